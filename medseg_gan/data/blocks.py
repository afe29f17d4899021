"""Work cut into blocks, done in this process or in several, with the results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

import torch

from medseg_gan.errors import MedsegError

T = TypeVar("T")
R = TypeVar("R")


def in_blocks(work: Callable[[T], R], jobs: Sequence[T], workers: int) -> Iterator[R]:
    """Yield `work(job)` of every job, in order.

    Args:
        work: a module's function, so that other processes find it.
        jobs: plain values.
        workers: processes; 1 means this one.

    Raises:
        MedsegError: a process was ended from outside; and whatever `work` raises.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    context = get_context("spawn")  # a fork would copy the locks of torch's threads
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_one_thread) as pool:
        try:
            yield from pool.map(work, jobs)
        except BrokenProcessPool as error:
            raise MedsegError(
                "a working process was ended from outside, most often for want of memory; "
                "run the same command again with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)
