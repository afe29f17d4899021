"""The label factory: any number of generated slices with labels, independent of how they are requested."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medseg_gan.data.slices import SliceRecord, SliceStore, StoreWriter, to_hu
from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable
from medseg_gan.machine.atomic import atomic_path, read_json, write_array, write_json, write_text
from medseg_gan.machine.device import autocast
from medseg_gan.report.values import csv_text
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter
from medseg_gan.systems.datasetgan.interpreter.vote import keep_certain
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Sampling, weights_sha256
from stylegan2_ada_pytorch import Generator

JUDGED = "judged_"
"""Before the names of a judge's columns in a shard."""

SHARD_BLOCKS = 16
"""Blocks in one file of unfinished work: what an interruption can lose."""


@dataclass(frozen=True)
class Pairs:
    """Generated images with their labels.

    Attributes:
        images: `(N, 1, R, R)` float32 in [-1, 1].
        labels: `(N, R, R)` uint8.
        uncertainty: `(N, R, R)` float32, nats.
        scores: `(N,)` float32.
        doubt: `(N, K)` float32, expected share of wrong pixels by the class they were given.
    """

    images: Tensor
    labels: Tensor
    uncertainty: Tensor
    scores: Tensor
    doubt: Tensor


Judge = Callable[[Pairs], Mapping[str, np.ndarray]]
"""From pairs to columns by name: a number or a text for each pair."""


class LabelFactory:
    """Generator and interpreter together: sample index to image and label.

    Example:
        factory = LabelFactory(G, interpreter, Sampling(seed=0))
        pairs = factory.label(range(3_000_000, 3_000_016))

    Args:
        G: generator that the interpreter was trained on.
        interpreter: labels its features.
        sampling: how images are drawn; the one the annotated images were drawn with.
        device: where to compute.
    """

    def __init__(self, G: Generator, interpreter: Interpreter, sampling: Sampling, device: str = "cpu") -> None:
        self.interpreter = interpreter.to(device)
        self.source = ImageSource(FeatureExtractor(G, interpreter.variant, sampling.noise_mode), sampling, device)

    @property
    def interpreter_sha256(self) -> str:
        """Hash of the interpreter's weights."""
        return weights_sha256(nn.ModuleList(self.interpreter.members))

    def label(self, indices: np.ndarray | range) -> Pairs:
        """Images and labels at any sample indices, in the given order.

        Whole blocks are rendered and labelled, so that an image does not depend on what else is asked for.

        Raises:
            MedsegError: no index was given, or one below 0.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if not len(wanted):
            raise MedsegError("no generated pair was asked for; wanted at least one index")
        if wanted.min() < 0:
            raise MedsegError(f"the generated pair {wanted.min()} was asked for; sample indices begin at 0")
        size = self.source.sampling.block
        numbers = np.unique(wanted // size)
        parts = [self._block(int(number)) for number in numbers]
        rows = torch.from_numpy(np.searchsorted(numbers, wanted // size) * size + wanted % size)
        return Pairs(
            *(
                torch.cat([getattr(part, name) for part in parts])[rows]
                for name in ("images", "labels", "uncertainty", "scores", "doubt")
            )
        )

    def _block(self, number: int) -> Pairs:
        rendered = self.source.block(number)
        with autocast(self.source.device, self.source.sampling.precision):
            predicted = self.interpreter.predict(rendered.images, rendered.maps)
        parts = (rendered.images, predicted.labels, predicted.uncertainty, predicted.scores, predicted.doubt)
        return Pairs(*(part.cpu() for part in parts))


def num_generated(num_pairs: int, portion: float) -> int:
    """Pairs to generate so that `num_pairs` are left once the most uncertain portion is dropped."""
    generated = num_pairs
    while generated - int(generated * portion) < num_pairs:
        generated += 1
    return generated


def write_pairs(
    folder: Path,
    factory: LabelFactory,
    indices: range,
    *,
    window: tuple[float, float],
    table: LabelTable,
    spacing: tuple[float, float, float],
    drop_uncertain: float = 0.0,
    quirk: bool = False,
    judge: Judge | None = None,
    drop_by: str = "scores",
    on_done: Callable[[int], None] | None = None,
) -> SliceStore:
    """Write generated pairs as a slice store; called again, it goes on where it was interrupted.

    Beside the store: `scores.npy` `(N,)` and `uncertainty.npy` `(N, R, R)` float16 of the pairs kept, `indices.npy`,
    and `sampling.json`, from which every image can be rendered again: z depends on the seed and the index alone. With a
    judge, what it says of each pair kept and left out is in `quality.csv` and `dropped.csv`, in the store's order.

    Args:
        folder: of the store.
        factory: makes the pairs.
        indices: sample indices, one per generated pair.
        window: HU of -1 and 1.
        table: classes of the labels.
        spacing: mm of row, column and slice thickness written into the records.
        drop_uncertain: portion of the pairs, the most uncertain, that is left out.
        quirk: the published filter, see `keep_certain`.
        judge: says more of pairs than their uncertainty.
        drop_by: what is least of the pairs kept: `scores`, or a column of the judge's.
        on_done: called with the number of pairs generated so far.

    Raises:
        MedsegError: the folder holds pairs of other settings, or the disk is full.
    """
    plan = _plan_of(factory, indices, drop_uncertain, quirk, "" if judge is None else drop_by)
    path = folder / "sampling.json"
    if path.exists() and read_json(path) != plan:
        raise MedsegError(
            f"{folder} holds pairs of another generator, interpreter or other settings; use --rerun synthesize"
        )
    if (folder / "cases.json").exists():
        return SliceStore.open(folder)
    write_json(path, plan)
    shards = _generate(folder / "shards", factory, indices, window, judge, on_done)
    ranks = np.concatenate([_read(shard, "scores" if drop_by == "scores" else JUDGED + drop_by) for shard in shards])
    kept = keep_certain(ranks, drop_uncertain, quirk)
    if judge is not None:
        _write_judgements(folder, shards, kept, indices)
    _assemble(folder, shards, kept, indices, window=window, table=table, spacing=spacing)
    shutil.rmtree(folder / "shards")
    return SliceStore.open(folder)


def _plan_of(
    factory: LabelFactory, indices: range, drop_uncertain: float, quirk: bool, judged_by: str
) -> dict[str, Any]:
    """All that decides which pairs a store holds."""
    plan = {
        "version": 1,
        "sampling": asdict(factory.source.sampling),
        "weights_sha256": factory.source.weights_sha256,
        "interpreter_sha256": factory.interpreter_sha256,
        "first": indices.start,
        "generated": len(indices),
        "drop_uncertain": drop_uncertain,
        "quirk": quirk,
    }
    return plan | ({"judged": True, "drop_by": judged_by} if judged_by else {})


def _generate(
    folder: Path,
    factory: LabelFactory,
    indices: range,
    window: tuple[float, float],
    judge: Judge | None,
    on_done: Callable[[int], None] | None,
) -> list[Path]:
    """Label all indices, a shard at a time; shards that are there are kept."""
    size = SHARD_BLOCKS * factory.source.sampling.block
    shards = []
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        path = folder / f"{part.start:010d}.npz"
        if not path.exists():
            pairs = factory.label(part)
            told = {} if judge is None else {JUDGED + name: column for name, column in judge(pairs).items()}
            with atomic_path(path) as temporary:
                np.savez(
                    temporary,
                    images=to_hu(pairs.images[:, 0].numpy(), window),
                    labels=pairs.labels.numpy(),
                    uncertainty=pairs.uncertainty.numpy().astype(np.float16),
                    scores=pairs.scores.numpy(),
                    **told,  # type: ignore[arg-type]
                )
        shards.append(path)
        if on_done is not None:
            on_done(min(start + size, len(indices)))
    return shards


def _assemble(
    folder: Path,
    shards: Sequence[Path],
    kept: np.ndarray,
    indices: range,
    *,
    window: tuple[float, float],
    table: LabelTable,
    spacing: tuple[float, float, float],
) -> None:
    """Join the shards' kept pairs into one store, holding one shard in memory at a time."""
    scores, uncertainty = [], []
    done = 0
    with StoreWriter(folder, window=window, table=table) as writer:
        for shard in shards:
            with np.load(shard) as part:
                count = len(part["scores"])
                rows = kept[(kept >= done) & (kept < done + count)] - done
                records = [_record(indices[done + int(row)], spacing) for row in rows]
                writer.append(part["images"][rows], part["labels"][rows], records)
                scores.append(part["scores"][rows])
                uncertainty.append(part["uncertainty"][rows])
            done += count
        write_array(folder / "scores.npy", np.concatenate(scores))
        write_array(folder / "uncertainty.npy", np.concatenate(uncertainty))
        write_array(folder / "indices.npy", indices.start + kept)


def _write_judgements(folder: Path, shards: Sequence[Path], kept: np.ndarray, indices: range) -> None:
    """What the judge says of the pairs kept and of those left out, as tables."""
    with np.load(shards[0]) as part:
        names = [name for name in part.files if name.startswith(JUDGED)]
    columns = {name.removeprefix(JUDGED): np.concatenate([_read(shard, name) for shard in shards]) for name in names}
    dropped = np.setdiff1d(np.arange(len(indices)), kept)
    for name, rows in (("quality.csv", kept), ("dropped.csv", dropped)):
        if name == "dropped.csv" and not len(rows):
            continue
        lines = [
            {"case": _record(indices[k], (0.0, 0.0, 0.0)).case, **{key: col[k] for key, col in columns.items()}}
            for k in rows.tolist()
        ]
        write_text(folder / name, csv_text(lines, ("case", *columns)))


def _record(index: int, spacing: tuple[float, float, float]) -> SliceRecord:
    return SliceRecord(
        case=f"generated-{index:010d}",
        patient="generated",
        slice_index=0,
        spacing=spacing,
        affine=None,
        pool="generated",
        labelled=True,
    )


def _read(shard: Path, name: str) -> np.ndarray:
    with np.load(shard) as part:
        return part[name]
