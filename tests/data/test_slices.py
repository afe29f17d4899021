"""The store gives back what was written, and half a store is none."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_gan.data.slices import SliceRecord, SliceStore, StoreWriter, to_hu, to_unit, write_store
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, lookup_table

WINDOW = (-1000.0, 400.0)
TABLE = lookup_table("lungs")


def slices(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[SliceRecord]]:
    rng = np.random.default_rng(seed)
    records = [
        SliceRecord(
            case=f"patient-{k // 3:03d}-01",
            patient=f"patient-{k // 3:03d}",
            slice_index=k,
            spacing=(1.5, 1.5, 3.0),
            affine=np.eye(4).tolist(),
            pool=("gan", "labelled", "test")[k // 3 % 3],
            labelled=k % 2 == 0,
        )
        for k in range(count)
    ]
    images = rng.integers(-1024, 3000, (count, 16, 16)).astype(np.int16)
    return images, rng.integers(0, 3, images.shape).astype(np.uint8), records


def test_a_store_gives_back_what_was_written(tmp_path: Path) -> None:
    images, labels, records = slices(12)
    write_store(tmp_path, images, labels, records, WINDOW, TABLE)
    store = SliceStore.open(tmp_path)
    np.testing.assert_array_equal(store.images, images)
    np.testing.assert_array_equal(store.labels, labels)
    assert store.records == records
    assert (store.window, store.table, store.size, len(store)) == (WINDOW, TABLE, 16, 12)


def test_parts_written_one_by_one_equal_the_whole(tmp_path: Path) -> None:
    images, labels, records = slices(30)
    write_store(tmp_path / "whole", images, labels, records, WINDOW, TABLE)
    with StoreWriter(tmp_path / "parts", window=WINDOW, table=TABLE) as writer:
        for part in (slice(0, 1), slice(1, 17), slice(17, 30)):
            writer.append(images[part], labels[part], records[part])
    for name in ("images.npy", "labels.npy", "cases.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_pools_labels_and_patients_choose_slices(tmp_path: Path) -> None:
    write_store(tmp_path, *slices(18), WINDOW, TABLE)
    store = SliceStore.open(tmp_path)
    parts = [store.indices(pool) for pool in ("gan", "labelled", "test")]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(18))
    both = [store.indices("gan", labelled=answer) for answer in (True, False)]
    np.testing.assert_array_equal(np.sort(np.concatenate(both)), parts[0])
    assert store.patients("gan") == ["patient-000", "patient-003"]
    assert store.indices("gan", patients=["patient-003"]).tolist() == [9, 10, 11]


def test_tensors_are_in_the_networks_range(tmp_path: Path) -> None:
    write_store(tmp_path, *slices(6), WINDOW, TABLE)
    store = SliceStore.open(tmp_path)
    images, labels = store.image_tensor([4, 1]), store.label_tensor([4, 1])
    assert images.shape == (2, 1, 16, 16)
    assert images.min() >= -1
    assert images.max() <= 1
    assert (labels == torch.from_numpy(store.labels[[4, 1]])).all()


def test_windowed_hu_come_back_within_half_a_unit() -> None:
    hu = np.arange(-1000, 401).astype(np.int16)
    np.testing.assert_array_equal(to_hu(to_unit(hu, WINDOW), WINDOW), hu)
    assert to_unit(np.array([-3024, 3000], np.int16), WINDOW).tolist() == [-1, 1]


def test_slices_without_labels_are_unlabelled_everywhere(tmp_path: Path) -> None:
    images, _, records = slices(3)
    write_store(tmp_path, images, None, records, WINDOW, TABLE)
    assert (SliceStore.open(tmp_path).labels == UNLABELLED).all()


def test_an_interrupted_writer_leaves_no_store_and_no_rests(tmp_path: Path) -> None:
    images, labels, records = slices(4)
    write_store(tmp_path, images, labels, records, WINDOW, TABLE)
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path, window=WINDOW, table=TABLE) as writer:
        writer.append(images, labels, records)
        raise KeyboardInterrupt
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or path.name == "cases.json"]
    with pytest.raises(MedsegError, match="holds no slices"):
        SliceStore.open(tmp_path)


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = StoreWriter(tmp_path, window=WINDOW, table=TABLE)
    with pytest.raises(MedsegError, match="disk full while writing"), writer:
        monkeypatch.setattr(writer.arrays[1], "append", full)
        writer.append(*slices(2))
    assert not list(tmp_path.iterdir())


def test_an_empty_store_and_slices_of_two_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="wanted at least one"), StoreWriter(tmp_path, window=WINDOW, table=TABLE):
        pass
    images, labels, records = slices(2)
    with pytest.raises(ValueError, match="do not fit"), StoreWriter(tmp_path, window=WINDOW, table=TABLE) as writer:
        writer.append(images, labels, records)
        writer.append(images[:, :8, :8], labels[:, :8, :8], records)


@pytest.mark.parametrize("fault", ["labels", "records", "truncated", "version"])
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, fault: str) -> None:
    images, labels, records = slices(4)
    write_store(tmp_path, images, labels, records, WINDOW, TABLE)
    cases = json.loads((tmp_path / "cases.json").read_text())
    if fault == "labels":
        np.save(tmp_path / "labels.npy", labels[:3])
    if fault == "records":
        (tmp_path / "cases.json").write_text(json.dumps({**cases, "slices": cases["slices"][:3]}))
    if fault == "version":
        (tmp_path / "cases.json").write_text(json.dumps({**cases, "version": 0}))
    if fault == "truncated":
        (tmp_path / "images.npy").write_bytes((tmp_path / "images.npy").read_bytes()[:-100])
    with pytest.raises(MedsegError, match="again"):
        SliceStore.open(tmp_path)
