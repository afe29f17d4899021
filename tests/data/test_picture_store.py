"""The picture store gives back what was written, and half a store is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_gan.data.pictures import (
    Picture,
    PictureRecord,
    PictureStore,
    PictureWriter,
    count_splits,
    refuse_unmasked_test,
    write_picture_store,
)
from medseg_gan.data.splits import SPLITS
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED


def pictures(count: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray, list[PictureRecord]]:
    rng = np.random.default_rng(0)
    records = [
        PictureRecord(f"a/{k}.png", SPLITS[k % 3], class_id=k % 4 if k % 5 else None, labelled=k % 2 == 0)
        for k in range(count)
    ]
    masks = rng.integers(0, 2, (count, 8, 8)).astype(np.uint8)
    masks[[not record.labelled for record in records]] = UNLABELLED
    return rng.integers(0, 256, (count, 8, 8, channels)).astype(np.uint8), masks, records


@pytest.mark.parametrize("channels", [1, 3])
def test_a_store_gives_back_what_was_written(tmp_path: Path, channels: int) -> None:
    images, masks, records = pictures(12, channels)
    write_picture_store(tmp_path, images, masks, records, dataset="toys", classes=("a", "b", "c", "d"))
    store = PictureStore.open(tmp_path)
    np.testing.assert_array_equal(store.images, images)
    np.testing.assert_array_equal(store.masks, masks)
    assert store.records == records
    assert (store.dataset, store.classes, store.size, store.channels) == ("toys", ("a", "b", "c", "d"), 8, channels)
    assert len(store) == 12
    about = json.loads((tmp_path / "pictures.json").read_text())
    assert (about["version"], about["size"], about["channels"]) == (1, 8, channels)


def test_parts_written_one_by_one_equal_the_whole(tmp_path: Path) -> None:
    images, masks, records = pictures(30)
    write_picture_store(tmp_path / "whole", images, masks, records, dataset="toys")
    with PictureWriter(tmp_path / "parts", dataset="toys") as writer:
        for part in (slice(0, 1), slice(1, 17), slice(17, 30)):
            writer.append(images[part], masks[part], records[part])
    for name in ("images.npy", "masks.npy", "pictures.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_splits_and_labels_choose_pictures(tmp_path: Path) -> None:
    write_picture_store(tmp_path, *pictures(18), dataset="toys")
    store = PictureStore.open(tmp_path)
    parts = [store.indices(split) for split in SPLITS]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(18))
    both = [store.indices("val", labelled=answer) for answer in (True, False)]
    np.testing.assert_array_equal(np.sort(np.concatenate(both)), parts[1])
    assert not len(store.indices("nothing"))
    assert count_splits(store.records)["val"] == {"pictures": len(parts[1]), "labelled": len(both[0])}


def test_tensors_are_images_masks_and_classes(tmp_path: Path) -> None:
    images, masks, records = pictures(6)
    images[0, 0, 0] = (0, 255, 51)
    write_picture_store(tmp_path, images, masks, records, dataset="toys")
    store = PictureStore.open(tmp_path)
    batch = store.image_tensor([4, 0])
    assert (batch.shape, batch.dtype) == ((2, 3, 8, 8), torch.float32)
    torch.testing.assert_close(batch[1, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    torch.testing.assert_close(batch[0], store.image_tensor(np.array([4]))[0], rtol=0, atol=0)
    labels = store.label_tensor([0, 1])
    assert labels.dtype == torch.int64
    assert set(labels[0].unique().tolist()) == {0, 1}
    assert (labels[1] == UNLABELLED).all()
    assert store.class_ids([0, 1, 5, 2]).tolist() == [-1, 1, -1, 2]
    assert store.image_tensor([]).shape == (0, 3, 8, 8)


def test_an_error_leaves_no_store(tmp_path: Path) -> None:
    images, masks, records = pictures(4)
    write_picture_store(tmp_path, images, masks, records, dataset="toys")
    with pytest.raises(RuntimeError), PictureWriter(tmp_path, dataset="toys") as writer:
        writer.append(images[:2], masks[:2], records[:2])
        raise RuntimeError
    with pytest.raises(MedsegError, match=r"pictures\.json is missing"):
        PictureStore.open(tmp_path)


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="at least one"), PictureWriter(tmp_path, dataset="toys"):
        pass


def test_arrays_that_do_not_match_are_refused(tmp_path: Path) -> None:
    images, masks, records = pictures(4)
    wrong = [(images[..., :2], masks, records), (images, masks[:, 1:], records), (images, masks, records[1:])]
    for parts in [*wrong, (images.astype(float), masks, records)]:
        with pytest.raises(ValueError, match="do not match"):
            write_picture_store(tmp_path, *parts, dataset="toys")


def test_half_a_store_is_none(tmp_path: Path) -> None:
    def spoilt(about: dict[str, object]) -> str:
        write_picture_store(tmp_path, *pictures(4), dataset="toys")
        content = json.loads((tmp_path / "pictures.json").read_text())
        (tmp_path / "pictures.json").write_text(json.dumps({**content, **about}))
        with pytest.raises(MedsegError) as caught:
            PictureStore.open(tmp_path)
        return str(caught.value)

    record = {"name": "a", "split": "train", "class_id": None, "labelled": True}
    assert "another version" in spoilt({"version": 9})
    assert "incomplete" in spoilt({"pictures": [{"name": "a"}]})
    assert "incomplete" in spoilt({"classes": None})
    assert "do not belong together" in spoilt({"pictures": [record]})
    assert "names the split 'rain'" in spoilt({"pictures": [{**record, "split": "rain"}] * 4})
    write_picture_store(tmp_path, *pictures(4), dataset="toys")
    np.save(tmp_path / "masks.npy", np.zeros((4, 8, 9), np.uint8))
    with pytest.raises(MedsegError, match="do not belong together"):
        PictureStore.open(tmp_path)
    (tmp_path / "masks.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(MedsegError, match="cannot be read"):
        PictureStore.open(tmp_path)
    (tmp_path / "masks.npy").unlink()
    with pytest.raises(MedsegError, match="cannot be read"):
        PictureStore.open(tmp_path)


def test_test_pictures_without_masks_are_refused_unless_known_empty(tmp_path: Path) -> None:
    kept = [Picture("a", tmp_path, None, "train", None), Picture("b", tmp_path, None, "test", None, empty=True)]
    refuse_unmasked_test(kept, tmp_path)
    with pytest.raises(MedsegError, match="1 test pictures have no mask"):
        refuse_unmasked_test([*kept, Picture("c", tmp_path, None, "test", None)], tmp_path)
