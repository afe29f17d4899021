"""The one process pool: spawned processes of one thread each, which end with their parent and never hang behind it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from medseg_gan.errors import MedsegError
from medseg_gan.machine.memory import keep_freed_memory

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def worker_pool(
    workers: int, *, setting: str = "", initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool that is gone when the block is left; an error or Ctrl-C ends its processes at once.

    Args:
        workers: processes. They are spawned: a fork would copy the locks of torch's and ITK's threads.
        setting: the setting that lowers their number, for the message.
        initializer: called first in each process, with `initargs`.
        initargs: arguments of `initializer`.

    Raises:
        MedsegError: a process was ended from outside, as the system does where memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(initializer, initargs))
    try:
        yield pool
    except BaseException as error:  # Ctrl-C and an abandoned loop as well: nothing may go on behind the user's back
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise ended_from_outside(setting) from error
        raise
    pool.shutdown()


def ended_from_outside(setting: str = "") -> MedsegError:
    """What a user is told when the system ended a process."""
    way = f"run the same command again with a lower {setting}" if setting else "use fewer workers"
    return MedsegError(f"a worker process was ended from outside, usually for want of memory; {way}")


def in_order(work: Callable[[T], R], jobs: Sequence[T], workers: int, setting: str = "") -> Iterator[R]:
    """Yield `work(job)` of every job, in order.

    Args:
        work: a module's function, or a `partial` of one, so that other processes find it.
        jobs: plain values.
        workers: processes; 1 means this one.
        setting: as in `worker_pool`.

    Raises:
        MedsegError: a process was ended from outside; and whatever `work` raises.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    with worker_pool(min(workers, len(jobs)), setting=setting) as pool:
        yield from pool.map(work, jobs)


def _start_worker(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """One thread; Ctrl-C is the parent's business; and no worker outlives a parent that was killed."""
    torch.set_num_threads(1)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # ITK reads it when it first counts its threads
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
