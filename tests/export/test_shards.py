"""Shards give back the slices, and the same slices make the same bytes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from export_example import card, generated, real
from PIL import Image

from medseg_gan.errors import UsageError
from medseg_gan.export.shards import write_shards
from medseg_gan.machine.atomic import read_json


def test_slices_are_read_back_equal(tmp_path: Path) -> None:
    parts = [generated(tmp_path / "g"), real(tmp_path / "r")]
    folder = write_shards(tmp_path / "x", parts, card(), samples=7)
    assert read_json(folder / "shards.json")["shards"] == {
        "shard-000000.tar": 7,
        "shard-000001.tar": 7,
        "shard-000002.tar": 3,
    }
    files = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            files |= {entry.name: shard.extractfile(entry).read() for entry in shard}
    items = [item for part in parts for item in part]
    assert len(files) == 3 * len(items)
    for item in items:
        np.testing.assert_array_equal(np.load(io.BytesIO(files[f"{item.name}.image.npy"])), item.image)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(files[f"{item.name}.label.png"]))), item.label)
        facts = json.loads(files[f"{item.name}.json"])
        assert facts["synthetic"] == item.synthetic and facts["uncertainty"] == item.uncertainty


def test_webdataset_reads_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    part = generated(tmp_path / "g")
    folder = write_shards(tmp_path / "x", [part], card())
    samples = list(webdataset.WebDataset(str(folder / "shard-000000.tar"), shardshuffle=False).decode("l8"))
    for sample, item in zip(samples, part, strict=True):
        np.testing.assert_array_equal(sample["image.npy"], item.image)
        np.testing.assert_array_equal(sample["label.png"], item.label)
        assert sample["json"]["notice"] == "research only"


def test_the_same_slices_make_the_same_bytes_and_nothing_is_overwritten(tmp_path: Path) -> None:
    part = generated(tmp_path / "g")
    one, two = (write_shards(tmp_path / name, [part], card()) for name in "ab")
    assert (one / "shard-000000.tar").read_bytes() == (two / "shard-000000.tar").read_bytes()
    with pytest.raises(UsageError, match="not overwritten"):
        write_shards(one, [part], card())
