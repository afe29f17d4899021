"""Jobs in processes: results by name, errors in one line."""

import math
import os
import time

import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.training import pool
from medseg_gan.training.pool import process_count, run_jobs


def test_one_process_per_core_unless_told_and_one_on_a_gpu():
    assert process_count(0, "cpu") == os.cpu_count()
    assert process_count(3, "cpu") == 3
    assert process_count(0, "cuda") == process_count(3, "cuda") == 1


def test_processes_give_what_calls_give():
    jobs = {name: {"a": value} for name, value in (("one", 1), ("two", 2), ("three", 3))}
    here = run_jobs(_pid_and_square, jobs, 1, "here")
    there = run_jobs(_pid_and_square, jobs, 2, "there")
    assert [here[name][1] for name in jobs] == [there[name][1] for name in jobs] == [1, 4, 9]
    assert {pid for pid, _ in here.values()} == {os.getpid()}
    assert os.getpid() not in {pid for pid, _ in there.values()}


def test_a_failing_job_is_named_and_ends_the_others():
    start = time.monotonic()
    with pytest.raises(MedsegError, match=r"^short: the disk is full"):
        run_jobs(_fail_or_sleep, {"short": {"seconds": 0}, "long": {"seconds": 300}}, 2, "there")
    assert time.monotonic() - start < 120


def test_a_killed_process_is_reported():
    with pytest.raises(MedsegError, match="want of memory; use fewer workers"):
        run_jobs(os._exit, {"a": {"status": 9}, "b": {"status": 9}}, 2, "there")


def test_the_bar_counts_units_of_jobs_with_those_done_earlier(monkeypatch):
    bars = []

    class Kept(pool.Progress):
        def __init__(self, *arguments, **words):
            super().__init__(*arguments, **words)
            bars.append(self)

    monkeypatch.setattr(pool, "Progress", Kept)
    jobs = {"long": {"a": 1}, "short": {"a": 2}}
    run_jobs(_pid_and_square, jobs, 1, "here", total=20, unit="image", sizes={"long": 8, "short": 5})
    run_jobs(_pid_and_square, jobs, 1, "here")
    assert [(bar.initial, bar.done, bar.total, bar.unit) for bar in bars] == [(7, 20, 20, "image"), (0, 2, 2, "job")]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bar_moves_before_a_job_ends_and_what_was_not_counted_counts_at_the_end(workers, tmp_path, monkeypatch):
    """Each job waits until the bar has shown the units that it counted first."""
    seen = []

    class Kept(pool.Progress):
        def update(self, count=1):
            super().update(count)
            seen.append(self.done)
            (tmp_path / str(self.done)).touch()

    monkeypatch.setattr(pool, "Progress", Kept)
    jobs = {name: {"folder": tmp_path} for name in ("one", "two")}
    sizes = {"one": 10, "two": 10}
    run_jobs(_count_and_wait, jobs, workers, "counting", 27, "image", sizes, counts_itself=True)
    assert seen[0] < 17 and seen[-1] == 27 and seen == sorted(seen)


def test_one_job_runs_here():
    assert run_jobs(math.comb, {}, 2, "none") == {}
    assert run_jobs(_pid_and_square, {"only": {"a": 2}}, 4, "one")["only"] == (os.getpid(), 4)


def _pid_and_square(a):
    return os.getpid(), a * a


def _count_and_wait(folder, on_done):
    """Count three of ten units, and see that somebody notices."""
    on_done(3)
    deadline = time.monotonic() + 60
    while not any(folder.iterdir()):
        if time.monotonic() > deadline:
            raise MedsegError("nobody noticed")
        time.sleep(0.01)


def _fail_or_sleep(seconds):
    if not seconds:
        raise MedsegError("the disk is full")
    time.sleep(seconds)
