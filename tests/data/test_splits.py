"""A derived split depends on the names alone."""

from __future__ import annotations

from collections import Counter

from medseg_gan.data.splits import cut_splits


def test_shares_and_order():
    names = [str(number) for number in range(1, 11789)]
    splits = cut_splits(names, val=788 / 11788, test=1000 / 11788)
    assert Counter(splits.values()) == {"train": 10000, "val": 788, "test": 1000}
    assert cut_splits(names[::-1], val=788 / 11788, test=1000 / 11788) == splits


def test_splits_are_spread_over_the_list():
    names = [f"{number:05d}" for number in range(2000)]
    tests = [name for name, split in cut_splits(names, val=0.1, test=0.1).items() if split == "test"]
    assert 60 < sum(name < "01000" for name in tests) < 140


def test_a_larger_set_keeps_most_of_the_split():
    small, large = ([str(k) for k in range(count)] for count in (900, 1000))
    before, after = (cut_splits(names, val=0.1, test=0.1) for names in (small, large))
    assert sum(before[name] == after[name] for name in small) > 0.93 * len(small)
