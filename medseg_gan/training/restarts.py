"""Trainings that begin anew with another seed after a trivial solution; `attempts.json` lists what was given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.training.log import say

ATTEMPTS = "attempts.json"
T = TypeVar("T")


class Trivial(Exception):  # noqa: N818 - a state, not a fault
    """A training found a solution that tells nothing, and is to stop."""

    def __init__(self, reason: str, iteration: int) -> None:
        super().__init__(reason)
        self.reason, self.iteration = reason, iteration


def with_restarts(
    attempt: Callable[[Path, int, bool], T], folder: Path, *, seed: int, restarts: int, name: str
) -> tuple[T, list[dict[str, Any]], int]:
    """Train until an attempt ends; called again after an interruption it goes on with the attempt it was in.

    Args:
        attempt: `(folder, seed, stop) -> result`; goes on in its own folder, and raises `Trivial` only where `stop`:
            the last attempt allowed is carried through whatever becomes of it.
        folder: gets `attempt-1` and so on, and `attempts.json`.
        seed: from which those of the attempts are made.
        restarts: new beginnings at most.
        name: in messages.

    Returns:
        What the last attempt returned, the attempts given up (`seed`, `iteration`, `trivial`), and its seed.
    """
    path = folder / ATTEMPTS
    given_up: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    while True:
        number = len(given_up)
        own = mix_seed(seed, "attempt", number)
        try:
            return attempt(folder / f"attempt-{number + 1}", own, number < restarts), given_up, own
        except Trivial as found:
            given_up.append({"seed": own, "iteration": found.iteration, "trivial": found.reason})
            write_json(path, given_up)
            which = f"{number + 1} of {restarts}"
            say(f"{name}: {found.reason} at step {found.iteration}; beginning anew ({which})")
