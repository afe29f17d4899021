"""Work in several processes gives what work in one gives, in order, errors included."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import SimpleITK
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.machine.pool import in_order


def square(number: int) -> int:
    if number < 0:
        raise MedsegError(f"{number} is negative, wanted at least 0")
    return number * number


def vanish(number: int) -> int:
    os._exit(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_up_to_the_error(workers):
    results = []
    with pytest.raises(MedsegError, match="negative"):
        results.extend(in_order(square, [0, 1, 2, 3, -1], workers))
    assert results == [0, 1, 4, 9]


def test_no_job_is_no_result():
    assert list(in_order(square, [], 2)) == []


def test_a_process_ended_from_outside_is_one_line_with_the_setting_to_lower():
    with pytest.raises(MedsegError, match=r"^a worker process was ended from outside.*; use fewer workers$"):
        list(in_order(vanish, [1, 1], 2))
    with pytest.raises(MedsegError, match=r"want of memory; run the same command again with a lower prepare\.workers$"):
        list(in_order(vanish, [1, 1], 2, "prepare.workers"))


def test_a_loop_that_is_left_early_ends_its_processes():
    results = in_order(pid_then_sleep, [0, 300, 300], 2)
    worker = next(results)
    results.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_worker_has_one_thread_for_torch_and_for_itk():
    assert set(in_order(threads, range(2), 2)) == {(1, 1)}


def pid_then_sleep(seconds: int) -> int:
    time.sleep(seconds)
    return os.getpid()


def threads(_: int) -> tuple[int, int]:
    return torch.get_num_threads(), SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
