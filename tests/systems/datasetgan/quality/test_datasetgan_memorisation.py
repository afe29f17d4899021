"""The audit of a run's pairs: the right pools, files that name rows and pseudonyms, and a planted copy found."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import read_json
from medseg_gan.systems.datasetgan.quality.copies import audit_pairs
from medseg_gan.systems.datasetgan.report.copies import Copies

WINDOW, TABLE, SIZE = (-1000.0, 400.0), lookup_table("paper"), 32
POOLS = ("annotator", "gan", "labelled", "test")
COPIED = 6
"""Row of the real store that the generated slice 2 copies; its first `gan` slice is row 5."""


def slices(count: int, seed: int) -> np.ndarray:
    """Blocks of 8 x 8 random greys, `(N, 32, 32)` HU."""
    coarse = np.random.default_rng(seed).integers(-1000, 400, (count, SIZE // 8, SIZE // 8))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.int16)


def store(folder: Path, images: np.ndarray, records: list[SliceRecord]) -> SliceStore:
    write_store(folder, images, None, records, WINDOW, TABLE)
    return SliceStore.open(folder)


def record(pool: str, patient: int, k: int) -> SliceRecord:
    name = f"patient-{patient:03d}"
    return SliceRecord(f"{name}-01", name, 10 * k, (1.0, 1.0, 2.0), None, pool, False)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[SliceStore, SliceStore]:
    folder = tmp_path_factory.mktemp("stores")
    records = [record(pool, 10 * p + k // 5, k % 5) for p, pool in enumerate(POOLS) for k in range(5 if p == 0 else 30)]
    images = slices(len(records), 0)
    made = slices(12, 1)
    made[2] = images[COPIED] + 20
    drawn = [SliceRecord(f"generated-{k:010d}", "generated", 0, (1, 1, 2), None, "generated", True) for k in range(12)]
    return store(folder / "real", images, records), store(folder / "generated", made, drawn)


@pytest.fixture(scope="module")
def audited(stores: tuple[SliceStore, SliceStore], tmp_path_factory: pytest.TempPathFactory) -> tuple[Copies, Path]:
    folder = tmp_path_factory.mktemp("report")
    return audit_pairs(folder, *stores, seed=3, canaries=2), folder


def test_a_copied_slice_is_named_by_its_row_in_the_store(audited: tuple[Copies, Path]) -> None:
    with (audited[1] / "memorisation.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert lines[0]["sample"] == "generated-0000000002" and lines[0]["row"] == "2" and lines[0]["flagged"] == "True"
    assert (lines[0]["pixels_row"], lines[0]["pixels_patient"], lines[0]["pixels_slice"]) == ("6", "patient-010", "10")
    assert {line["flagged"] for line in lines[1:]} == {"False"}


def test_only_the_gans_pool_counts_as_seen_and_no_stand_in_as_unseen(audited: tuple[Copies, Path]) -> None:
    facts = read_json(audited[1] / "memorisation.json")
    assert facts["training"] == {"slices": 30, "patients": 6}
    assert facts["unseen_pool"] == {"slices": 60, "patients": 12}
    assert facts["verdict"] == audited[0].verdict == "signs of copying"
    assert facts["canaries"]["flagged"] == facts["canaries"]["planted"] == 10
    assert facts["sentences"][0].startswith("Signs of copying: 1 of 12 generated slices")


def test_pictures_are_those_of_the_rows(stores: tuple[SliceStore, SliceStore], audited: tuple[Copies, Path]) -> None:
    copies = audited[0]
    low, high = WINDOW
    want = np.round((stores[0].images[COPIED].astype(float) - low) / (high - low) * 255)
    assert np.abs(copies.nearest["pixels"][0].astype(float) - want).max() <= 1


def test_a_run_without_unseen_slices_is_refused_in_one_line(
    stores: tuple[SliceStore, SliceStore], tmp_path: Path
) -> None:
    real = stores[0]
    rows = real.indices("gan")
    only = store(tmp_path / "only", real.images[rows], [real.records[k] for k in rows])
    with pytest.raises(MedsegError, match="no unseen real slice"):
        audit_pairs(tmp_path, only, stores[1], seed=0)
