"""What every training has around its step: resume, statistics, NaN stop, sample sheets, checkpoints, progress."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.engine.events import CallableEventWithFilter
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import is_full_disk, save_png, write_text
from medseg_gan.machine.checkpoint import latest_checkpoint, plain, restore, save_checkpoint
from medseg_gan.machine.processes import average_, count, is_first
from medseg_gan.training.grid import image_grid
from medseg_gan.training.log import Progress, say

STATS = "stats.jsonl"
WARNINGS = "warnings.txt"
SHOWN = ("loss_G", "loss_D", "r_t", "p")  # behind the progress bar

Step = Callable[[Engine, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class Training:
    """Everything around a step, the same for every system: resume, statistics, sheets, checkpoints, NaN stop.

    In a group of processes every one runs it; the first writes the files, and all read them.

    Example:
        training = Training(folder, objects, settings, total=1000, batch_size=8, ...)
        done = training.resume()
        training.run(step, batches_from(done), done)
    """

    folder: Path  # gets `stats.jsonl`, `warnings.txt`, `tensorboard/`, `samples/*.png` and `checkpoint-*.pt`
    objects: Mapping[str, Any]  # named objects with `state_dict`: all that the next step depends on
    settings: Mapping[str, Any]  # plain values that must not change between two runs
    total: int  # iterations at the end
    batch_size: int  # images per iteration, of all processes together
    log_every: int  # iterations between rows of the statistics
    snapshot_every: int  # iterations between checkpoints
    sample_every: int  # iterations between sample sheets
    samples: Callable[[], Tensor] | None = None  # draws (N, C, H, W) in [-1, 1] for the sheet
    of_samples: Callable[[Tensor], Mapping[str, float]] = lambda images: {}  # values of a sheet, in a row of their own
    measure: Callable[[int], Mapping[str, float]] | None = None  # after so many images; values in a row of their own
    measure_every: int = 1  # iterations between measurements
    extras: Mapping[str, Any] = field(default_factory=dict)  # saved too, and restored where a checkpoint has them
    sample_columns: int = 0  # images in a row of the sheet; 0: about twice as wide as high
    scalars: Callable[[], Mapping[str, float | Tensor]] = dict  # further values of a row, read when it is written
    warn: Callable[[Mapping[str, float]], str | None] | None = None  # says in one line what to try; said once
    after_step: Callable[[int], None] | None = None  # called with each iteration done; may end the run by raising
    description: str = "training"  # name on the progress bar
    keep: int = 2  # checkpoints kept

    def resume(self) -> int:
        """Restore the newest checkpoint of the folder that is not beyond the end, if there is one.

        Returns:
            Iterations already done; 0 without a checkpoint.

        Raises:
            MedsegError: the checkpoint belongs to other settings, or cannot be read.
        """
        path = latest_checkpoint(self.folder, most=self.total * self.batch_size)
        if path is None:
            return 0
        rest = restore(path, **self.objects)
        before = rest["settings"]
        pairs = [(name, before.get(name), plain(name, now)) for name, now in self.settings.items()]  # tuples are lists
        changed = [f"{name}: {old} -> {now}" for name, old, now in pairs if old != now]
        if changed:
            raise MedsegError(f"{path} was made with other settings ({', '.join(changed)}); train in another folder")
        for name in self.extras.keys() & rest.keys():
            self.extras[name].load_state_dict(rest[name])
        if (processes := rest.get("processes", 1)) != count():
            say(
                f"{self.description}: goes on in {count()} processes instead of {processes}, so other numbers are drawn"
            )
        return int(rest["iteration"])

    def run(self, step: Step, batches: Iterable[Any], done: int) -> None:
        """Run a step on an Ignite engine from iteration `done` to the end.

        Args:
            step: `(engine, batch) -> {term: detached scalar tensor}`; seeds itself from `engine.state.iteration`.
            batches: from iteration `done` on.
            done: iterations done before, as `resume` says.

        Raises:
            MedsegError: a term or a weight is not finite, or the disk is full.
        """
        if done >= self.total:
            return
        engine = Engine(step)
        engine.logger = logging.getLogger("medseg_gan.engine")
        engine.logger.setLevel(logging.CRITICAL)  # Ignite would print an error a second time
        images = (done * self.batch_size, self.total * self.batch_size)
        try:
            with (
                Progress(images[1], self.description, "img", initial=images[0]) as bar,
                Statistics(self.folder, done, self.batch_size, self.scalars) as statistics,
            ):
                self.attach_common(engine, statistics, bar)
                engine.load_state_dict({"iteration": done, "epoch_length": self.total, "max_epochs": 1})
                engine.run(batches)
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise MedsegError(f"disk full while writing to {self.folder}; free space, then run it again") from error

    def attach_common(self, engine: Engine, statistics: Statistics, bar: Progress) -> None:
        """Attach, in this order: terms, progress, rows and advice, sheets, measurements, checkpoints."""
        path = self.folder / WARNINGS
        said = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

        def judge_row(row: Mapping[str, float]) -> None:
            advice = self.warn(row) if self.warn and row else None
            if advice and advice not in said:
                said.append(advice)
                say(f"{self.description}: {advice}")
                if is_first():
                    write_text(path, "".join(f"{line}\n" for line in said))

        def write_row() -> None:
            row = statistics.flush()
            bar.note(", ".join(f"{name} {row[name]:.3g}" for name in SHOWN if name in row))
            judge_row(row)

        def write_samples() -> None:
            if self.samples is not None and is_first():
                images = self.samples()
                seen = engine.state.iteration * self.batch_size
                save_samples(self.folder / "samples" / f"{seen:09d}.png", images, self.sample_columns)
                judge_row(statistics.add(engine.state.iteration, self.of_samples(images)))

        def write_measurement() -> None:
            if self.measure is not None:
                iteration = engine.state.iteration
                judge_row(statistics.add(iteration, self.measure(iteration * self.batch_size)))

        def write_checkpoint() -> None:
            write_row()  # a term that is not finite stops the run before it reaches a checkpoint
            self.save(engine.state.iteration)

        engine.add_event_handler(Events.ITERATION_COMPLETED, statistics.collect)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: bar.update(self.batch_size))
        if self.after_step is not None:
            judge = self.after_step
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: judge(engine.state.iteration))
        engine.add_event_handler(self.every(self.log_every), write_row)
        engine.add_event_handler(self.every(self.sample_every), write_samples)
        engine.add_event_handler(self.every(self.measure_every), write_measurement)
        engine.add_event_handler(self.every(self.snapshot_every), write_checkpoint)

    def every(self, iterations: int) -> CallableEventWithFilter:
        """The event of each so-many-th iteration and of the last."""
        return Events.ITERATION_COMPLETED(event_filter=lambda _, done: done % iterations == 0 or done == self.total)

    def save(self, iteration: int) -> None:
        """Write `checkpoint-<images>.pt` and remove all but the newest `keep`.

        Raises:
            MedsegError: a weight is not finite; nothing is written then.
        """
        for name, item in self.objects.items():
            if isinstance(item, nn.Module):
                assert_finite(name, item, iteration)
        if not is_first():
            return
        path = self.folder / f"checkpoint-{iteration * self.batch_size:09d}.pt"
        rest = {"iteration": iteration, "settings": dict(self.settings), "processes": count()}
        save_checkpoint(path, **self.objects, **self.extras, **rest)
        for old in sorted(self.folder.glob("checkpoint-*.pt"))[: -self.keep]:
            old.unlink()


class Statistics:
    """Rows of mean terms in `stats.jsonl` and TensorBoard; rows past the iteration resumed from are dropped.

    Terms stay on the device until a row is written, so that no step waits for one. In a group of processes a row holds
    their means, the same for all, and the first writes it.
    """

    def __init__(
        self, folder: Path, done: int, batch_size: int, scalars: Callable[[], Mapping[str, float | Tensor]] = dict
    ) -> None:
        """Open the files of a training folder, going on after iteration `done`."""
        self.path, self.batch_size, self.scalars = folder / STATS, batch_size, scalars
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
                    f"training stopped: {name} is {value} at step {iteration} ({iteration * self.batch_size} images). "
                    "The last checkpoint is sound; try a lower lr, a larger r1_gamma or precision fp32"
                )
            columns[name].append(value)
        iteration = self.pending[-1][0]
        self.pending = []
        row: dict[str, float] = {"iteration": iteration, "images": iteration * self.batch_size}
        row |= {name: sum(column) / len(column) for name, column in columns.items()}
        row |= {name: float(value) for name, value in self.scalars().items()}
        steps, seconds = iteration - self.last[0], time.monotonic() - self.last[1]
        row["img_per_s"] = steps * self.batch_size / max(seconds, 1e-9)
        self.last = (iteration, time.monotonic())
        self._write(row)
        return row

    def add(self, iteration: int, values: Mapping[str, float]) -> dict[str, float]:
        """Write values measured after an iteration as a row of their own, which is returned; nothing without values."""
        if not values:
            return {}
        row = {"iteration": iteration, "images": iteration * self.batch_size, **values}
        self._write(row)
        return row

    def _write(self, row: Mapping[str, float]) -> None:
        if self.writer is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name in row.keys() - {"iteration", "images"}:
            self.writer.add_scalar(name, row[name], int(row["images"]))

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


def save_samples(path: Path, images: Tensor, columns: int = 0) -> None:
    """Write `(N, C, H, W)` images in [-1, 1] as a sheet of so many columns, by default about twice as wide as high."""
    columns = columns or max(1, round((2 * len(images)) ** 0.5))
    save_png(path, image_grid(images, columns))


def assert_finite(name: str, network: nn.Module, iteration: int) -> None:
    """Stop when a weight or buffer is NaN or infinite.

    Raises:
        MedsegError: names the first such tensor.
    """
    state = network.state_dict()
    finite = torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()
    bad = [key for key, sound in zip(state, finite, strict=True) if not sound]
    if bad:
        raise MedsegError(
            f"training stopped: {name}.{bad[0]} is not finite at step {iteration}. The last checkpoint is sound; "
            "try a lower lr, a larger r1_gamma or precision fp32"
        )
