"""Divide a data set's images into train, val and test if the data set itself does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from medseg_gan.machine.seeding import mix_seed

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def cut_splits(names: Sequence[str], *, val: float, test: float) -> dict[str, Split]:
    """A split of every name that depends on the names alone, not on their order.

    The names are sorted by a hash of each; the first are test, the next val, the rest train.

    Args:
        names: all different.
        val: share of the names, rounded.
        test: share of the names, rounded.
    """
    order = sorted(names, key=lambda name: (mix_seed("split", name), name))
    tests, vals = round(len(order) * test), round(len(order) * val)
    return {name: "test" if k < tests else "val" if k < tests + vals else "train" for k, name in enumerate(order)}
