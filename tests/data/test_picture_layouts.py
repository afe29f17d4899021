"""Datasets are recognised by their folders; a plain folder of images and masks is one too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gan.data.phantom.birds import write_birds_phantom
from medseg_gan.data.phantom.shelf import write_shelf_phantom
from medseg_gan.data.picture_layouts import find_pictures
from medseg_gan.errors import MedsegError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty pictures in two folders, the last ten without masks."""
    for k in range(40):
        name = f"{'ab'[k % 2]}/p{k:02d}"
        for kind, ending in (("images", "jpg"), ("masks", "png")):
            path = tmp_path / kind / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "images" or k < 30:
                Image.fromarray(np.full((4, 4), 255, np.uint8)).save(path)
    return tmp_path


def lists(root: Path, **splits: str) -> None:
    (root / "splits").mkdir(exist_ok=True)
    for split, names in splits.items():
        (root / "splits" / f"{split}.txt").write_text("\n".join(names.split()))


def test_a_plain_folder_is_split_by_its_names(folder):
    found = find_pictures(folder)
    assert Counter(item.split for item in found.pictures) == {"train": 34, "val": 3, "test": 3}
    assert all(item.mask for item in found.pictures if item.split != "train")
    assert "splits/ is missing" in found.notes[0]
    assert found.pictures[0].name == "images/a/p00.jpg"
    assert found.pictures[0].mask == folder / "masks/a/p00.png"
    assert sum(item.mask is None for item in found.pictures) == 10


def test_lists_decide_where_there_are_any(folder):
    lists(folder, val="a/p00 b/p01.jpg", test="a/p02.jpg")
    splits = {item.name: item.split for item in find_pictures(folder).pictures}
    assert splits["images/a/p00.jpg"] == splits["images/b/p01.jpg"] == "val"
    assert Counter(splits.values()) == {"train": 37, "val": 2, "test": 1}
    lists(folder, train="a/p04 a/p06")
    found = find_pictures(folder)
    assert Counter(item.split for item in found.pictures) == {"train": 2, "val": 2, "test": 1}
    assert found.notes == ("35 pictures are in no list of splits/ and are left out",)


def test_classes_are_words_in_sorted_order(folder):
    (folder / "labels.csv").write_text("name,class\na/p00,10\nb/p01.jpg,9\na/p02,10\n")
    found = find_pictures(folder)
    assert found.classes == ("9", "10")
    by_name = {item.name: item.class_id for item in found.pictures}
    assert [by_name[f"images/{name}.jpg"] for name in ("a/p00", "b/p01", "a/p02", "b/p03")] == [1, 0, 1, None]
    (folder / "labels.csv").write_text("\ufeffclass,name\nwren,a/p00\ncrow,b/p01\n", encoding="utf-8")
    assert find_pictures(folder).classes == ("crow", "wren")


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"val": "a/p00", "test": "a/p00.jpg"}, r"which is in val\.txt too"),
        ({"test": "a/p0"}, "images/ has no such picture; did you mean a/p\\d0"),
        ({"test": "b/p35"}, "1 test pictures have no mask"),
        ({}, "none of train.txt, val.txt and test.txt"),
    ],
)
def test_bad_lists_are_one_line(folder, splits, words):
    lists(folder, **splits)
    with pytest.raises(MedsegError, match=words) as caught:
        find_pictures(folder)
    assert "\n" not in str(caught.value)


def test_bad_labels_are_one_line(folder):
    for text, words in {
        "picture,kind\na/p00,x\n": "columns picture, kind, wanted name and class",
        "": "columns none",
        "name,class\na/p00,\n": "has no class",
        "name,class\na/p99,x\n": "no such picture",
    }.items():
        (folder / "labels.csv").write_text(text)
        with pytest.raises(MedsegError, match=words):
            find_pictures(folder)


def test_stray_masks_and_doubled_names_are_refused(folder):
    (folder / "images/a/p00.jpg").rename(folder / "images/a/q00.jpg")
    with pytest.raises(MedsegError, match=r"1 masks without a picture .*a/p00\.png"):
        find_pictures(folder)
    Image.new("L", (4, 4)).save(folder / "images/a/q00.png")
    with pytest.raises(MedsegError, match="have one name"):
        find_pictures(folder)


def test_hidden_files_and_other_files_are_passed_over(folder):
    (folder / "images/a/._p00.jpg").write_bytes(b"fork")
    (folder / "images/a/notes.txt").write_text("x")
    assert len(find_pictures(folder).pictures) == 40


def test_a_folder_without_masks_is_all_train(folder):
    (folder / "masks").rename(folder / "other")
    assert {(item.split, item.mask) for item in find_pictures(folder).pictures} == {("train", None)}


def test_layouts_are_recognised(tmp_path):
    write_birds_phantom(tmp_path / "birds", train=12, val=1, test=1, size=16)
    write_shelf_phantom(tmp_path / "shelf", objects=1, scenes=2, frames=1, size=16)
    assert find_pictures(tmp_path / "birds").dataset.startswith("CUB")
    assert find_pictures(tmp_path / "shelf").dataset.startswith("Amazon")
    assert find_pictures(tmp_path / "shelf", "apc").dataset.startswith("Amazon")
    with pytest.raises(MedsegError, match="not laid out as a picture dataset; wanted Images/"):
        find_pictures(tmp_path / "shelf", "dogs")


def test_wrong_folders_and_layouts_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedsegError, match=r"not laid out as a picture dataset; wanted images\.txt"):
        find_pictures(tmp_path / "empty")
    with pytest.raises(MedsegError, match="is not a folder"):
        find_pictures(tmp_path / "none")
    with pytest.raises(UsageError, match="did you mean dogs"):
        find_pictures(tmp_path, "dog")
    (tmp_path / "empty" / "images").mkdir()
    with pytest.raises(MedsegError, match="has no picture"):
        find_pictures(tmp_path / "empty")
