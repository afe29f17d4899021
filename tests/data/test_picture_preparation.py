"""Preparing pictures is the same whatever the processes, and says what it left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gan.data.phantom.birds import draw_bird
from medseg_gan.data.picture_preparation import prepare_pictures, read_picture
from medseg_gan.data.pictures import Picture, PictureStore
from medseg_gan.data.splits import SPLITS
from medseg_gan.errors import MedsegError


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Nine pictures; the last three have no mask, the last is known to be empty."""
    found = []
    for number in range(9):
        image, mask, class_id = draw_bird(0, number, 32)
        path, mask_path = tmp_path / f"secret-folder-{number}.png", tmp_path / f"m{number}.png"
        Image.fromarray(image).save(path)
        Image.fromarray(mask * 255).save(mask_path)
        found.append(Picture(f"{number}.png", path, mask_path if number < 6 else None, SPLITS[number % 3], class_id))
    return [*found[:8], replace(found[8], empty=True)]


def test_the_store_holds_the_pictures(pictures, tmp_path):
    calls = []
    counts = prepare_pictures(
        tmp_path / "store", pictures, size=32, dataset="toys", classes=["a"], on_done=lambda: calls.append(1)
    )
    store = PictureStore.open(tmp_path / "store")
    for number in range(9):
        image, mask, class_id = draw_bird(0, number, 32)
        assert np.array_equal(store.images[number], image)
        assert np.array_equal(store.masks[number], mask if number < 6 else mask * 0 + (0 if number == 8 else 255))
        assert (store.records[number].class_id, store.records[number].labelled) == (class_id, number not in (6, 7))
    assert len(calls) == 9
    assert counts["splits"]["test"] == {"pictures": 3, "labelled": 3}
    assert counts["splits"]["train"] == {"pictures": 3, "labelled": 2}
    assert counts["without_mask"] == []
    assert counts["without_foreground"] == 0


def test_the_store_knows_no_place_on_this_machine(pictures, tmp_path):
    prepare_pictures(tmp_path / "store", pictures, size=16, dataset="toys")
    text = (tmp_path / "store" / "pictures.json").read_text()
    assert "secret-folder" not in text
    assert str(tmp_path) not in text


def test_processes_give_the_same_store(pictures, tmp_path):
    many = [replace(picture, name=f"{k}-{picture.name}") for k in range(12) for picture in pictures]
    for workers in (1, 2):
        prepare_pictures(tmp_path / str(workers), many, size=16, dataset="toys", workers=workers)
    for name in ("images.npy", "masks.npy", "pictures.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_test_pictures_without_masks_are_named(pictures, tmp_path):
    odd = [*pictures[:7], replace(pictures[7], split="test")]
    assert prepare_pictures(tmp_path / "s", odd, size=16, dataset="toys")["without_mask"] == ["7.png"]


def test_grey_stores_have_one_channel(pictures, tmp_path):
    prepare_pictures(tmp_path / "s", pictures, size=16, channels=1, dataset="toys")
    assert PictureStore.open(tmp_path / "s").images.shape == (9, 16, 16, 1)


def test_mask_and_image_are_cropped_alike(tmp_path):
    image = np.zeros((20, 36, 3), np.uint8)
    image[4:13, 11:25] = 255
    Image.fromarray(image).save(tmp_path / "i.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "m.png")
    small, mask, _ = read_picture(Picture("i", tmp_path / "i.png", tmp_path / "m.png", "train", None), 10, 3)
    assert np.array_equal(mask, small[..., 0] >= 128)
    assert mask.sum() > 10


def test_masks_without_foreground_are_counted_and_none_at_all_refused(pictures, tmp_path):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "blank.png")
    one = [replace(pictures[0], mask=tmp_path / "blank.png"), *pictures[1:]]
    assert prepare_pictures(tmp_path / "s", one, size=16, dataset="toys")["without_foreground"] == 1
    with pytest.raises(MedsegError, match="none of the 1 masks of toys has foreground"):
        prepare_pictures(tmp_path / "s", [one[0], pictures[8]], size=16, dataset="toys")
    assert not (tmp_path / "s" / "pictures.json").exists()


def test_bad_files_and_no_files_are_one_line(pictures, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(MedsegError, match=r"bad\.jpg cannot be read"):
        prepare_pictures(tmp_path / "s", [replace(pictures[0], image=tmp_path / "bad.jpg")], size=16, dataset="toys")
    with pytest.raises(MedsegError, match="lies outside"):
        prepare_pictures(tmp_path / "s", [replace(pictures[0], box=(30, 0, 9, 9))], size=16, dataset="toys")
    with pytest.raises(MedsegError, match="no picture was found"):
        prepare_pictures(tmp_path / "s", [], size=16, dataset="toys")
