"""What every training has around its step: resume, statistics, NaN stop, sample sheets, checkpoints, progress."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.engine.events import CallableEventWithFilter
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from medseg_gan.atomic import save_png, write_text
from medseg_gan.checkpoint import latest_checkpoint, restore, save_checkpoint
from medseg_gan.errors import MedsegError
from medseg_gan.training.grid import image_grid
from medseg_gan.training.log import Progress, say

STATS = "stats.jsonl"


def resume(folder: Path, objects: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """Restore the newest checkpoint of a folder, if there is one.

    Args:
        folder: where `run_training` leaves checkpoints.
        objects: named objects with `load_state_dict`, as given to `run_training`.
        settings: plain values that must not have changed since.

    Returns:
        Number of iterations already done; 0 without a checkpoint.

    Raises:
        MedsegError: the checkpoint belongs to other settings.
    """
    path = latest_checkpoint(folder)
    if path is None:
        return 0
    rest = restore(path, **objects)
    before = rest["settings"]
    changed = [f"{key}: {before.get(key)} -> {value}" for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise MedsegError(f"{path} was made with other settings ({', '.join(changed)}); train in another folder")
    return int(rest["iteration"])


def run_training(
    step: Callable[[Engine, Any], dict[str, torch.Tensor]],
    batches: Iterable[Any],
    folder: Path,
    objects: Mapping[str, Any],
    *,
    done: int,
    total: int,
    batch_size: int,
    settings: Mapping[str, Any],
    log_every: int,
    snapshot_every: int,
    sample_every: int,
    samples: Callable[[], torch.Tensor] | None = None,
    scalars: Callable[[], Mapping[str, float | torch.Tensor]] = dict,
    warn: Callable[[Mapping[str, float]], str | None] | None = None,
    description: str = "training",
    keep: int = 2,
) -> None:
    """Run `step` from iteration `done` to `total` on an Ignite engine, with everything around it.

    Args:
        step: `(engine, batch) -> {term: detached scalar tensor}`; seeds itself from `engine.state.iteration`.
        batches: batches from iteration `done` on.
        folder: gets `stats.jsonl`, `tensorboard/`, `samples/*.png` and `checkpoint-*.pt`.
        objects: named objects with `state_dict`, all that the next step depends on.
        done: iterations done before (see `resume`).
        total: iterations at the end.
        batch_size: images per iteration.
        settings: plain values kept in the checkpoint.
        log_every: iterations between rows of the statistics.
        snapshot_every: iterations between checkpoints.
        sample_every: iterations between sample sheets.
        samples: draws `(N, C, H, W)` images in [-1, 1] for the sheet.
        scalars: further values of a row, read when it is written.
        warn: looks at a row and says in one line what to try, or None; each line is said once.
        description: name on the progress bar.
        keep: number of checkpoints kept.

    Raises:
        MedsegError: a term or a weight is not finite.
    """
    engine = Engine(step)
    engine.logger = logging.getLogger("medseg_gan.engine")
    engine.logger.setLevel(logging.CRITICAL)  # Ignite would print the error a second time
    if done >= total:
        return
    with (
        Progress(total * batch_size, description, "img", initial=done * batch_size) as bar,
        Statistics(folder, done, batch_size, scalars) as statistics,
    ):
        engine.add_event_handler(Events.ITERATION_COMPLETED, statistics.collect)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: bar.update(batch_size))

        said: set[str] = set()

        def write_row() -> None:
            row = statistics.flush()
            bar.note(", ".join(f"{key} {row[key]:.3g}" for key in ("loss_G", "loss_D", "r_t", "p") if key in row))
            advice = warn(row) if warn and row else None
            if advice and advice not in said:
                said.add(advice)
                say(f"{description}: {advice}")

        def write_samples() -> None:
            if samples is not None:
                save_samples(folder / "samples" / f"{engine.state.iteration * batch_size:09d}.png", samples())

        def write_checkpoint() -> None:
            write_row()  # a non-finite term must stop the run before it reaches a checkpoint
            save_state(folder, objects, engine.state.iteration, batch_size, settings, keep)

        for every, write in ((log_every, write_row), (sample_every, write_samples), (snapshot_every, write_checkpoint)):
            engine.add_event_handler(every_or_last(every, total), write)
        engine.load_state_dict({"iteration": done, "epoch_length": total, "max_epochs": 1})
        engine.run(batches)


def every_or_last(every: int, total: int) -> CallableEventWithFilter:
    """The event of each `every`-th iteration and of the last."""
    return Events.ITERATION_COMPLETED(event_filter=lambda _, iteration: iteration % every == 0 or iteration == total)


class Statistics:
    """Rows of mean terms in `stats.jsonl` and TensorBoard; rows past the iteration resumed from are dropped.

    Terms stay on the device until a row is written, so that no step waits for one.
    """

    def __init__(
        self, folder: Path, done: int, batch_size: int, scalars: Callable[[], Mapping[str, float | torch.Tensor]] = dict
    ) -> None:
        """Open the files of a training folder, going on after iteration `done`."""
        self.path, self.batch_size, self.scalars = folder / STATS, batch_size, scalars
        kept = [row for row in read_stats(folder) if row["iteration"] <= done]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done * batch_size + 1)
        self.pending: list[tuple[int, str, torch.Tensor]] = []
        self.last = (done, time.monotonic())

    def collect(self, engine: Engine) -> None:
        """Remember the terms of the step just done."""
        terms: Mapping[str, torch.Tensor] = engine.state.output  # type: ignore[assignment]
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
        values = torch.stack([term.float() for _, _, term in self.pending]).tolist()
        columns = defaultdict(list)
        for (iteration, name, _), value in zip(self.pending, values, strict=True):
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
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name in row.keys() - {"iteration", "images"}:
            self.writer.add_scalar(name, row[name], row["images"])
        return row

    def __enter__(self) -> Statistics:
        """Use as a context manager."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the TensorBoard file."""
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


def save_state(
    folder: Path, objects: Mapping[str, Any], iteration: int, batch_size: int, settings: Mapping[str, Any], keep: int
) -> None:
    """Write `checkpoint-<images>.pt` and remove all but the newest `keep`.

    Raises:
        MedsegError: a weight is not finite; nothing is written then.
    """
    for name, item in objects.items():
        if isinstance(item, nn.Module):
            _assert_finite(name, item, iteration)
    path = folder / f"checkpoint-{iteration * batch_size:09d}.pt"
    save_checkpoint(path, **objects, iteration=iteration, settings=dict(settings))
    for old in sorted(folder.glob("checkpoint-*.pt"))[:-keep]:
        old.unlink()


def save_samples(path: Path, images: torch.Tensor) -> None:
    """Write `(N, C, H, W)` images in [-1, 1] as a sheet about twice as wide as high."""
    columns = max(1, round((2 * len(images)) ** 0.5))
    save_png(path, image_grid(images, columns))


def _assert_finite(name: str, network: nn.Module, iteration: int) -> None:
    state = network.state_dict()
    finite = torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()
    bad = [key for key, sound in zip(state, finite, strict=True) if not sound]
    if bad:
        raise MedsegError(
            f"training stopped: {name}.{bad[0]} is not finite at step {iteration}. The last checkpoint is sound; "
            "try a lower lr, a larger r1_gamma or precision fp32"
        )
