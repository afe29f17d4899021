"""What can be attached to a training: rows, looks at every step, sample grids, measurements, advice, checkpoints.

Ignite's `TerminateOnNan` and `Checkpoint` do not serve here. The first waits for the device at every step and ends a
run as if it were finished, without a word on which term broke; the second knows only the files that its own process
wrote, so that older ones stay after a kill, and it saves weights that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor, nn

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import save_png, write_text
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.machine.processes import count, is_first
from medseg_gan.training.engine import Run, read_stats
from medseg_gan.training.grid import image_grid
from medseg_gan.training.log import say
from medseg_gan.training.watch import Watch

WARNINGS = "warnings.txt"


@dataclass(frozen=True)
class Rows:
    """Writes a row of the statistics every so many iterations and at the end."""

    every: int

    def attach(self, run: Run) -> None:
        """See `Handler`."""
        run.engine.add_event_handler(run.every(self.every), run.statistics.flush)


@dataclass(frozen=True)
class Look:
    """Calls a function with each iteration done; it may end the run by raising."""

    look: Callable[[int], None]

    def attach(self, run: Run) -> None:
        """See `Handler`."""
        run.engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.look(run.iteration))


@dataclass(frozen=True)
class SampleGrid:
    """Writes `samples/*.png`, and what its images measure as a row of their own."""

    draw: Callable[[], Tensor]  # (N, C, H, W) in [-1, 1]
    every: int  # iterations
    columns: int = 0  # images in a row; 0: about twice as wide as high
    values: Callable[[Tensor], Mapping[str, float]] = lambda images: {}

    def attach(self, run: Run) -> None:
        """See `Handler`."""

        def write() -> None:
            if is_first():
                images = self.draw()
                save_samples(run.folder / "samples" / f"{run.place}.png", images, self.columns)
                run.statistics.add(run.iteration, self.values(images))

        run.engine.add_event_handler(run.every(self.every), write)


@dataclass(frozen=True)
class Measurement:
    """Measures the networks after so many real images; the values are a row of their own."""

    measure: Callable[[int], Mapping[str, float]]
    every: int  # iterations

    def attach(self, run: Run) -> None:
        """See `Handler`."""

        def write() -> None:
            run.statistics.add(run.iteration, self.measure(run.statistics.images(run.iteration)))

        run.engine.add_event_handler(run.every(self.every), write)


@dataclass(frozen=True)
class Advice:
    """Shows every row to a watch, and says what it advises: once, and in `warnings.txt`."""

    watch: Watch

    def attach(self, run: Run) -> None:
        """See `Handler`; the watch first takes up the rows of an interrupted training."""
        path = run.folder / WARNINGS
        said = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.watch.go_on(row for row in read_stats(run.folder) if row["iteration"] <= run.done)

        def judge(row: Mapping[str, float]) -> None:
            advice = self.watch.judge(row)
            if advice and advice not in said:
                said.append(advice)
                say(f"{run.name}: {advice}")
                if is_first():
                    write_text(path, "".join(f"{line}\n" for line in said))

        run.statistics.listeners.append(judge)


@dataclass(frozen=True)
class Checkpoints:
    """Writes `checkpoint-*.pt`, from which a training goes on, and removes all but the newest."""

    every: int  # iterations
    keep: int = 2

    def attach(self, run: Run) -> None:
        """See `Handler`."""

        def write() -> None:
            run.statistics.flush()  # a term that is not finite stops the run before it reaches a checkpoint
            self.save(run)

        run.engine.add_event_handler(run.every(self.every), write)

    def save(self, run: Run) -> None:
        """Write the file of the iteration done.

        Raises:
            MedsegError: a weight is not finite; nothing is written then.
        """
        for name, item in run.objects.items():
            if isinstance(item, nn.Module):
                assert_finite(name, item, run)
        if not is_first():
            return
        rest: dict[str, Any] = {"iteration": run.iteration, "settings": dict(run.settings), "processes": count()}
        save_checkpoint(run.folder / f"checkpoint-{run.place}.pt", **run.objects, **run.extras, **rest)
        for old in sorted(run.folder.glob("checkpoint-*.pt"))[: -self.keep]:
            old.unlink()


def save_samples(path: Path, images: Tensor, columns: int = 0) -> None:
    """Write `(N, C, H, W)` images in [-1, 1] as a grid of so many columns, by default about twice as wide as high."""
    columns = columns or max(1, round((2 * len(images)) ** 0.5))
    save_png(path, image_grid(images, columns))


def assert_finite(name: str, network: nn.Module, run: Run) -> None:
    """Stop when a weight or buffer is NaN or infinite.

    Raises:
        MedsegError: names the first such tensor.
    """
    state = network.state_dict()
    finite = torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()
    bad = [key for key, sound in zip(state, finite, strict=True) if not sound]
    if bad:
        raise MedsegError(
            f"training stopped: {name}.{bad[0]} is not finite at step {run.iteration}. The last checkpoint is sound; "
            f"try {run.remedy}"
        )
