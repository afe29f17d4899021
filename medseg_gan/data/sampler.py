"""Endless shuffled indices that can start anywhere: the k-th is a pure function of the seed and k."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.machine.seeding import numpy_rng


class EndlessSampler:
    """Positions 0 to N - 1 in a new order each round, without end.

    Args:
        count: N.
        seed: of the order.
        start: number of positions already used; starting at k equals skipping k.

    Raises:
        MedsegError: there is nothing to draw from.
    """

    def __init__(self, count: int, seed: int, start: int = 0) -> None:
        if count < 1:
            raise MedsegError("there are no images to draw from; wanted at least one")
        self.count, self.seed, self.start = count, seed, start

    def __iter__(self) -> Iterator[int]:
        """Yield positions without end."""
        round_number, inside = divmod(self.start, self.count)
        while True:
            yield from numpy_rng(self.seed, "round", round_number).permutation(self.count)[inside:].tolist()
            round_number, inside = round_number + 1, 0


class PatientBalancedSampler:
    """Every patient equally often, and each patient's images in a new order each time they have all been seen.

    Each round takes one image of every patient, in shuffled order.

    Args:
        groups: patient of each image.
        seed: of the order.
        start: number of positions already used; starting at k equals skipping k.

    Raises:
        MedsegError: there is nothing to draw from.
    """

    def __init__(self, groups: Sequence[str], seed: int, start: int = 0) -> None:
        if not len(groups):
            raise MedsegError("there are no images to draw from; wanted at least one")
        names = np.asarray(groups)
        self.members = [np.flatnonzero(names == name) for name in sorted(set(groups))]
        self.seed, self.start = seed, start

    def __iter__(self) -> Iterator[int]:
        """Yield positions without end."""
        round_number, inside = divmod(self.start, len(self.members))
        orders: dict[int, tuple[int, np.ndarray]] = {}
        while True:
            for patient in numpy_rng(self.seed, "round", round_number).permutation(len(self.members))[inside:].tolist():
                own = self.members[patient]
                lap, place = divmod(round_number, len(own))
                if orders.get(patient, (-1,))[0] != lap:
                    orders[patient] = (lap, numpy_rng(self.seed, "patient", patient, lap).permutation(own))
                yield int(orders[patient][1][place])
            round_number, inside = round_number + 1, 0
