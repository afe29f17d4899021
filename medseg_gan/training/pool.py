"""Independent jobs in processes of one thread each, which for small networks beats threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import Array, c_longlong
from functools import partial
from multiprocessing.sharedctypes import RawArray
from typing import Any

from medseg_gan.errors import MedsegError
from medseg_gan.machine.pool import ended_from_outside, worker_pool
from medseg_gan.training.log import Progress

LOOK_EVERY = 0.5
"""Seconds between looks at what the processes have counted."""

_done: Array[c_longlong] | None = None
"""In a worker: units done, by the number of the job; the parent reads them."""


def process_count(workers: int, device: str) -> int:
    """Processes to train with: one per core on the CPU (two of one thread beat one of two), one on a GPU.

    Args:
        workers: as a recipe has it, 0 for one per core.
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        return 1
    return workers or os.cpu_count() or 1


def run_jobs(
    function: Callable[..., Any],
    jobs: Mapping[str, Mapping[str, Any]],
    workers: int,
    description: str,
    total: int | None = None,
    unit: str = "job",
    sizes: Mapping[str, int] | None = None,
    counts_itself: bool = False,
) -> dict[str, Any]:
    """Call `function` once per job and collect what it returns.

    Args:
        function: importable by name; called with a job's arguments.
        jobs: picklable keyword arguments by the job's name.
        workers: processes; 1 calls the function here, with this process's threads.
        description: on the progress bar.
        total: number of units with those done earlier, for the bar.
        unit: what the bar counts.
        sizes: units of each job; one each by default.
        counts_itself: whether `function` also takes `on_done`, to call with a number of units when they are done, so
            that the bar moves before a job ends. What it leaves uncounted counts at its end.

    Returns:
        Results by name.

    Raises:
        MedsegError: a job failed, in one line with its name; the others are ended.
    """
    sizes = dict.fromkeys(jobs, 1) if sizes is None else sizes
    count = sum(sizes[name] for name in jobs)
    total = count if total is None else total
    with Progress(total, description, unit, initial=total - count) as bar:
        if workers > 1 and len(jobs) > 1:
            return _in_processes(function, jobs, workers, bar, sizes, counts_itself)
        results: dict[str, Any] = {}
        for name, arguments in jobs.items():
            until = bar.done + sizes[name]
            words = {**arguments, "on_done": bar.update} if counts_itself else arguments
            results[name] = _call(name, partial(function, **words))
            bar.note(name)
            bar.reach(until)
        return results


def _in_processes(
    function: Callable[..., Any],
    jobs: Mapping[str, Mapping[str, Any]],
    workers: int,
    bar: Progress,
    sizes: Mapping[str, int],
    counts_itself: bool,
) -> dict[str, Any]:
    """`run_jobs` in several processes, which count for the bar as they go."""
    results: dict[str, Any] = {}
    done = RawArray(c_longlong, len(jobs))  # each place is written by one process, so that none needs a lock
    before = bar.done
    with worker_pool(min(workers, len(jobs)), initializer=_share_counts, initargs=(done,)) as pool:
        names = {
            pool.submit(_counted, function, arguments, number, sizes[name], counts_itself): name
            for number, (name, arguments) in enumerate(jobs.items())
        }
        left = set(names)
        while left:
            ended, left = wait(left, timeout=LOOK_EVERY, return_when=FIRST_COMPLETED)
            for future in ended:
                results[names[future]] = _call(names[future], future.result)
                bar.note(names[future])
            if (reached := before + sum(done)) != bar.done:
                bar.reach(reached)
    return results


def _call(name: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except MedsegError as error:
        raise MedsegError(f"{name}: {error}") from error
    except BrokenProcessPool as error:
        raise MedsegError(f"{name}: {ended_from_outside()}") from error


def _counted(
    function: Callable[..., Any], arguments: Mapping[str, Any], number: int, size: int, counts_itself: bool
) -> Any:
    """A worker's call, which notes for the parent how many units of job `number` are done."""
    done = _done
    assert done is not None

    def count(units: int) -> None:
        done[number] += units

    result = function(**arguments, **({"on_done": count} if counts_itself else {}))
    done[number] = size
    return result


def _share_counts(done: Array[c_longlong]) -> None:
    global _done
    _done = done
