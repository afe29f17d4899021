"""Watches masks while a layered GAN trains: is the solution trivial? It sees neither true masks nor labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from medseg_gan.systems.layered.recipe import TrainGan
from medseg_gan.systems.layered.step import EMPTY, FULL
from medseg_gan.training.restarts import Trivial
from medseg_gan.training.watch import Watch

CODED = 0.5
"""Share of masks that are empty or full from which areas, not shapes, tell the parent code."""
MEMORY = 0.7
"""Weight of the past in the running means of the rows."""


class Watchdog(Watch):
    """Judges running means of the masks' areas in round 1, and F's answers on real pictures at each round's end.

    Args:
        settings: of the training; `watch_from` is the share of round 1 from which it judges, as early masks are often
            coded by class and mend.
        stop: whether a trivial solution ends the training (raises `Trivial`) or is only noted in `reason`.
    """

    def __init__(self, settings: TrainGan, stop: bool) -> None:
        super().__init__(("area", "empty", "full"), MEMORY)
        self.settings, self.stop = settings, stop
        self.first = settings.watch_from * settings.gan_steps
        self.reason: str | None = None

    def judge(self, row: Mapping[str, float]) -> str | None:
        """Look at a row of the statistics.

        Returns:
            What is wrong, in one line, where it does not stop the training.

        Raises:
            Trivial: the solution is, and the training is to stop.
        """
        if "area" not in row:
            return None
        self.remember(row)
        iteration = int(row["iteration"])
        if not self.first <= iteration <= self.settings.gan_steps:
            return None
        area, coded = self.means["area"], self.means["empty"] + self.means["full"]
        if area < EMPTY:
            return self._found(f"all as background (mean mask {area:.3f})", iteration)
        if area > FULL:
            return self._found(f"all as foreground (mean mask {area:.3f})", iteration)
        if coded > CODED:
            return self._found(f"masks are empty or full ({coded:.0%} of them), not shapes", iteration)
        return None

    def judge_segmenter(self, iteration: int, share: Callable[[], float]) -> None:
        """At the end of a round, look at how much of real pictures F takes for foreground.

        Raises:
            Trivial: nearly nothing or nearly all, and the training is to stop.
        """
        if iteration % self.settings.round_steps:
            return
        found = share()
        self.reason = None  # what looked trivial on the way has mended, if F now tells something
        if found < EMPTY or found > FULL:
            self._found(f"F takes {found:.1%} of real pictures for foreground", iteration)

    def _found(self, reason: str, iteration: int) -> str:
        self.reason = reason
        if self.stop:
            raise Trivial(reason, iteration)
        return reason
