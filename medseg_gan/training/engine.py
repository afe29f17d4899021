"""What every training has around its step: resume, statistics, NaN stop, progress; all else is attached by handlers.

Example:
    handlers = [Rows(every=10), SampleGrid(draw, every=100), Checkpoints(every=500)]
    run_training(
        step, step.objects(), batches_from, handlers, folder=folder, settings={"lr": 0.1}, total=1000, batch_size=8
    )
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from ignite.engine.events import CallableEventWithFilter
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import full_disk_told, write_text
from medseg_gan.machine.checkpoint import latest_checkpoint, plain, restore
from medseg_gan.machine.processes import average_, count, is_first
from medseg_gan.training.log import Progress, say

STATS = "stats.jsonl"
SHOWN = ("loss_G", "loss_D", "r_t", "p")  # behind the progress bar

Step = Callable[[Engine, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class Run:
    """What a handler knows of the training it is attached to."""

    engine: Engine
    statistics: Statistics
    folder: Path  # gets everything that is written
    objects: Mapping[str, Any]  # all that the next step depends on
    extras: Mapping[str, Any]
    settings: Mapping[str, Any]
    total: int  # iterations at the end
    batch_size: int
    done: int  # iterations done when it began
    name: str
    remedy: str

    def every(self, iterations: int) -> CallableEventWithFilter:
        """The event of each so-many-th iteration and of the last."""
        return Events.ITERATION_COMPLETED(event_filter=lambda _, done: done % iterations == 0 or done == self.total)

    @property
    def iteration(self) -> int:
        """Iterations done, those of earlier processes included."""
        return self.engine.state.iteration

    @property
    def place(self) -> str:
        """Nine digits for the names of files: iterations done times batch size, the images seen where all see some."""
        return f"{self.iteration * self.batch_size:09d}"


class Handler(Protocol):
    """Something attached to a training; `training.handlers` has what every system can use."""

    def attach(self, run: Run) -> None:
        """Add event handlers to `run.engine`, or listeners to `run.statistics.listeners`."""


def run_training(
    step: Step,
    objects: Mapping[str, Any],
    batches: Callable[[int], Iterable[Any]],
    handlers: Sequence[Handler],
    *,
    folder: Path,
    settings: Mapping[str, Any],
    total: int,
    batch_size: int,
    images: Callable[[int], int] | None = None,
    scalars: Callable[[], Mapping[str, float | Tensor]] = dict,
    extras: Mapping[str, Any] | None = None,
    name: str = "training",
    remedy: str = "a lower lr or precision fp32",
) -> int:
    """Run a step from the newest checkpoint of a folder, or from the beginning, to the end.

    Every process of a group runs it; the first writes. After each iteration its terms are collected and progress is
    shown, then the handlers follow as they are listed; `Checkpoints` come last, so that what is saved was looked at.

    Args:
        step: `(engine, batch) -> {term: detached scalar tensor}`; seeds itself from `engine.state.iteration`.
        objects: named objects with `state_dict`: all that the next step depends on.
        batches: gives the batches from an iteration done on.
        handlers: attached in this order.
        folder: gets `stats.jsonl` and `tensorboard/`, and what the handlers write.
        settings: plain values that must not change between two runs.
        total: iterations at the end.
        batch_size: images per iteration, of all processes together.
        images: real images seen in so many iterations; by default `batch_size` in each.
        scalars: further values of a row, read when it is written.
        extras: saved too, and restored where a checkpoint has them.
        name: on the progress bar and in messages.
        remedy: what to try when a term or a weight is not finite.

    Returns:
        Iterations that were done before; `total` where nothing was left to do.

    Raises:
        MedsegError: a checkpoint of other settings, a term or a weight that is not finite, or a full disk.
    """
    folder, extras = Path(folder), extras or {}
    seen = images or (lambda iteration: iteration * batch_size)
    if (done := resume(folder, objects, settings, extras, name, total * batch_size)) >= total:
        return done
    with (
        full_disk_told(folder),
        Progress(seen(total), name, "img", initial=seen(done)) as bar,
        Statistics(folder, done, batch_size, scalars, seen, remedy) as statistics,
    ):
        engine = engine_at(step, done, total)
        run = Run(engine, statistics, folder, objects, extras, settings, total, batch_size, done, name, remedy)
        statistics.listeners.append(lambda row: bar.note(shown(row) or bar.text))
        engine.add_event_handler(Events.ITERATION_COMPLETED, statistics.collect)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: bar.reach(seen(run.iteration)))
        for handler in handlers:
            handler.attach(run)
        engine.run(batches(done))
    return done


def engine_at(step: Step, done: int, total: int) -> Engine:
    """An engine that goes on after `done` of `total` iterations; it does not log, or errors would be printed twice."""
    engine = Engine(step)
    engine.load_state_dict({"iteration": done, "epoch_length": total, "max_epochs": 1})
    engine.logger = logging.getLogger("medseg_gan.engine")
    engine.logger.setLevel(logging.CRITICAL)
    return engine


def shown(row: Mapping[str, float]) -> str:
    """What stands behind the progress bar."""
    return ", ".join(f"{name} {row[name]:.3g}" for name in SHOWN if name in row)


def resume(
    folder: Path,
    objects: Mapping[str, Any],
    settings: Mapping[str, Any],
    extras: Mapping[str, Any],
    name: str,
    most: int,
) -> int:
    """Restore the newest checkpoint of a training folder that is not beyond `most` images, if there is one.

    Returns:
        Iterations already done; 0 without a checkpoint.

    Raises:
        MedsegError: the checkpoint belongs to other settings, or cannot be read.
    """
    path = latest_checkpoint(folder, most=most)
    if path is None:
        return 0
    rest = restore(path, **objects)
    before = rest["settings"]
    pairs = [(name, before.get(name), plain(name, now)) for name, now in settings.items()]  # tuples are lists
    changed = [f"{name}: {old} -> {now}" for name, old, now in pairs if old != now]
    if changed:
        raise MedsegError(f"{path} was made with other settings ({', '.join(changed)}); train in another folder")
    for extra in extras.keys() & rest.keys():
        extras[extra].load_state_dict(rest[extra])
    if (processes := rest["processes"]) != count():
        say(f"{name}: goes on in {count()} processes instead of {processes}, so other numbers are drawn")
    return int(rest["iteration"])


class Statistics:
    """Rows of mean terms in `stats.jsonl` and TensorBoard; rows past the iteration resumed from are dropped.

    Terms stay on the device until a row is written, so that no step waits for one. In a group of processes a row holds
    their means, the same for all, and the first writes it.
    """

    def __init__(
        self,
        folder: Path,
        done: int,
        batch_size: int,
        scalars: Callable[[], Mapping[str, float | Tensor]],
        images: Callable[[int], int],
        remedy: str,
    ) -> None:
        """Open the files of a training folder, going on after iteration `done`; see `run_training`."""
        self.path, self.batch_size, self.scalars, self.images = folder / STATS, batch_size, scalars, images
        self.remedy = remedy
        self.listeners: list[Callable[[Mapping[str, float]], None]] = []
        self.writer: SummaryWriter | None = None
        if is_first():
            kept = [row for row in read_stats(folder) if row["iteration"] <= done]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done * batch_size + 1)
        self.pending: list[tuple[int, str, Tensor]] = []
        self.last = (done, time.monotonic())

    def collect(self, engine: Engine) -> None:
        """Remember the terms of the step just done."""
        terms: Mapping[str, Tensor] = engine.state.output  # type: ignore[assignment]
        self.pending += [(engine.state.iteration, name, term) for name, term in terms.items()]

    def flush(self) -> dict[str, float]:
        """Write the mean of each term since the last row.

        Returns:
            The row; empty when no step was done since.

        Raises:
            MedsegError: a term is not finite; names the first one and its step.
        """
        if not self.pending:
            return {}
        values = torch.stack([term.float() for _, _, term in self.pending])
        average_([values])
        columns = defaultdict(list)
        for (iteration, name, _), value in zip(self.pending, values.tolist(), strict=True):
            if not torch.isfinite(torch.tensor(value)):
                raise MedsegError(
                    f"training stopped: {name} is {value} at step {iteration} ({self.images(iteration)} images). "
                    f"The last checkpoint is sound; try {self.remedy}"
                )
            columns[name].append(value)
        iteration = self.pending[-1][0]
        self.pending = []
        row: dict[str, float] = {"iteration": iteration, "images": self.images(iteration)}
        row |= {name: sum(column) / len(column) for name, column in columns.items()}
        row |= {name: float(value) for name, value in self.scalars().items()}
        seen, seconds = self.images(iteration) - self.images(self.last[0]), time.monotonic() - self.last[1]
        row["img_per_s"] = seen / max(seconds, 1e-9)
        self.last = (iteration, time.monotonic())
        self._write(row)
        return row

    def add(self, iteration: int, values: Mapping[str, float]) -> dict[str, float]:
        """Write values measured after an iteration as a row of their own, which is returned; nothing without values."""
        if not values:
            return {}
        row = {"iteration": iteration, "images": self.images(iteration), **values}
        self._write(row)
        return row

    def _write(self, row: Mapping[str, float]) -> None:
        if self.writer is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            for name in row.keys() - {"iteration", "images"}:
                self.writer.add_scalar(name, row[name], int(row["iteration"]) * self.batch_size)
        for listener in self.listeners:
            listener(row)

    def __enter__(self) -> Statistics:
        """Use as a context manager."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the TensorBoard file."""
        if self.writer is not None:
            self.writer.close()


def read_stats(folder: Path) -> list[dict[str, Any]]:
    """Rows of a training folder's statistics; a last line cut off by a kill is left out."""
    path = folder / STATS
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
