"""Scenes of the Amazon Picking Challenge stay together, and empty ones are all background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg_gan.data.apc import cut_scenes, find_apc, holds_apc
from medseg_gan.data.phantom.shelf import OBJECTS, write_shelf_phantom
from medseg_gan.data.picture_preparation import prepare_pictures, read_picture
from medseg_gan.data.pictures import PictureStore
from medseg_gan.errors import MedsegError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_shelf_phantom(tmp_path, objects=2, scenes=4, frames=2, size=16)
    return tmp_path


def test_scenes_stay_together(root):
    pictures = find_apc(root).pictures
    assert len(pictures) == 2 * 2 * 5 * 2
    splits: dict[str, set[str]] = {}
    for item in pictures:
        splits.setdefault(item.name.rpartition("/")[0], set()).add(item.split)
    assert all(len(own) == 1 for own in splits.values())
    counts = [sum(own == {split} for own in splits.values()) for split in ("train", "val", "test")]
    assert counts == [16, 2, 2]


def test_the_split_is_the_one_of_seed_0():
    scenes = [f"s/o/scene-{k:04d}" for k in range(40)]
    splits = cut_scenes(scenes)
    assert splits == cut_scenes(scenes[::-1])
    order = list(scenes)
    np.testing.assert_equal(sorted(splits), order)
    assert [sum(own == split for own in splits.values()) for split in ("train", "val", "test")] == [32, 4, 4]


def test_empty_scenes_are_background_and_classes_are_objects(root, tmp_path):
    found = find_apc(root)
    assert found.classes == tuple(sorted(OBJECTS[:2]))
    counts = prepare_pictures(tmp_path / "s", found.pictures, size=16, dataset=found.dataset, classes=found.classes)
    store = PictureStore.open(tmp_path / "s")
    assert counts["without_mask"] == []
    for k, item in enumerate(found.pictures):
        assert item.empty == ("scene-empty" in item.name)
        assert store.masks[k].any() != item.empty
        assert store.records[k].labelled
        assert store.records[k].class_id == (None if item.empty else found.classes.index(item.name.split("/")[2]))


def test_any_value_above_0_is_foreground(root):
    from PIL import Image

    item = next(item for item in find_apc(root).pictures if not item.empty)
    _, before, _ = read_picture(item, 16, 3)
    Image.fromarray((np.asarray(Image.open(item.mask)) > 0) * np.uint8(3)).save(item.mask)
    assert np.array_equal(read_picture(item, 16, 3)[1], before)


def test_training_itself_may_be_named(root):
    assert holds_apc(root / "training")
    found = find_apc(root / "training")
    assert found.pictures[0].name.startswith("shelf/")
    assert [item.split for item in found.pictures] == [item.split for item in find_apc(root).pictures]


def test_bad_folders_are_one_line(root, tmp_path):
    assert not holds_apc(root / "training" / "shelf")
    for item in find_apc(root).pictures:
        if item.split == "test" and item.mask:
            item.mask.unlink()
    with pytest.raises(MedsegError, match="test pictures have no mask"):
        find_apc(root)
    (root / "training/shelf" / OBJECTS[0] / "scene-0009").mkdir()
    with pytest.raises(MedsegError, match=r"scene-0009 has no frame-\*\.color\.png"):
        find_apc(root)
    with pytest.raises(MedsegError, match="0 scenes, wanted at least 3"):
        find_apc(tmp_path / "nowhere")
