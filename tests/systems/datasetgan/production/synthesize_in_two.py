"""Synthesis by the processes of torchrun, slow enough to be killed in the middle: `synthesize_in_two.py RUN OUT`."""

from __future__ import annotations

import sys
import time

from medseg_gan.api import synthesize_pairs
from medseg_gan.systems.datasetgan.factory import LabelFactory

label = LabelFactory.label


def slowly(factory: LabelFactory, indices: range) -> object:
    """Label, and take some time for it."""
    time.sleep(0.2)
    return label(factory, indices)


LabelFactory.label = slowly  # type: ignore[assignment,method-assign]
run, out = sys.argv[1:]
synthesize_pairs(run, 56, out, to="png", shard=8)
