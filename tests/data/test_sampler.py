"""The k-th index is a function of the seed and k; patients come equally often."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from medseg_gan.data.sampler import EndlessSampler, PatientBalancedSampler
from medseg_gan.errors import MedsegError

GROUPS = ["a"] * 7 + ["b"] * 2 + ["c"] + ["a"] * 3


@pytest.mark.parametrize("start", [0, 1, 5, 13, 14, 100])
def test_starting_at_k_equals_skipping_k(start: int) -> None:
    for build in (lambda k: EndlessSampler(13, 3, k), lambda k: PatientBalancedSampler(GROUPS, 3, k)):
        assert list(islice(build(start), 40)) == list(islice(build(0), start, start + 40))


def test_every_round_holds_every_index_once_and_rounds_differ() -> None:
    drawn = list(islice(EndlessSampler(20, 1), 60))
    rounds = [drawn[k : k + 20] for k in (0, 20, 40)]
    assert all(sorted(one) == list(range(20)) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2]
    assert drawn != list(islice(EndlessSampler(20, 2), 60))


def test_patients_come_equally_often_and_none_repeats_a_slice_too_early() -> None:
    drawn = list(islice(PatientBalancedSampler(GROUPS, 5), 3 * 40))
    assert Counter(GROUPS[index] for index in drawn) == {"a": 40, "b": 40, "c": 40}
    of_a = [index for index in drawn if GROUPS[index] == "a"]
    for k in range(0, 40, 10):
        assert len(set(of_a[k : k + 10])) == 10


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(MedsegError, match="wanted at least one"):
        EndlessSampler(0, 1)
    with pytest.raises(MedsegError, match="wanted at least one"):
        PatientBalancedSampler([], 1)
