"""Work in several processes gives what work in one gives, in order, errors included."""

from __future__ import annotations

import os

import pytest

from medseg_gan.data.blocks import in_blocks
from medseg_gan.errors import MedsegError


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
        results.extend(in_blocks(square, [0, 1, 2, 3, -1], workers))
    assert results == [0, 1, 4, 9]


def test_no_job_is_no_result():
    assert list(in_blocks(square, [], 2)) == []


def test_a_process_ended_from_outside_is_one_line():
    with pytest.raises(MedsegError, match="fewer workers"):
        list(in_blocks(vanish, [1, 1], 2))
