"""Intervals by bootstrap over what was drawn: patients, scenes, or images on their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_gan.machine.seeding import numpy_rng

LEVEL = 0.95
"""Coverage of every interval."""


def bootstrap_counts(units: Sequence[str] | np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each item counts in each resample of the units that items belong to: `(B, N)`.

    Args:
        units: `(N,)` what is drawn together, for each item.
        resamples: B.
        seed: of the bootstrap.
    """
    names, member = np.unique(np.asarray(units), return_inverse=True)
    rng = numpy_rng(seed, "bootstrap")
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)  # (B, units)
    return times[:, member]


def interval(values: np.ndarray | Sequence[float]) -> list[float]:
    """`[low, high]` between which the middle `LEVEL` of the values lies."""
    tail = (1 - LEVEL) / 2
    return [float(value) for value in np.quantile(values, [tail, 1 - tail])]
