"""Collect the faults of several files, so that a person sees all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medseg_gan.errors import MedsegError


@contextmanager
def noted(faults: list[str]) -> Iterator[None]:
    """Note an error instead of ending with it, so that a person hears of all that is wrong at once."""
    try:
        yield
    except MedsegError as error:
        faults.append(str(error))


def refuse(faults: list[str]) -> None:
    """Tell all faults, one on each line, if there are any."""
    if faults:
        raise MedsegError("\n".join(faults))
