"""The Caltech birds are read as published, and every broken list is one clear line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medseg_gan.data.cub import find_cub, holds_cub
from medseg_gan.data.phantom.birds import CLASSES, draw_bird, write_birds_phantom
from medseg_gan.data.picture_preparation import prepare_pictures
from medseg_gan.data.pictures import PictureStore
from medseg_gan.errors import MedsegError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_birds_phantom(tmp_path, train=20, val=4, test=6, size=16)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(root: Path, words: str) -> None:
    with pytest.raises(MedsegError, match=words) as caught:
        find_cub(root)
    assert "\n" not in str(caught.value)


def test_the_phantom_reads_back_as_it_was_drawn(root, tmp_path):
    found = find_cub(root)
    assert Counter(item.split for item in found.pictures) == {"train": 20, "val": 4, "test": 6}
    assert [name.split(".")[1] for name in found.classes] == list(CLASSES)
    assert found.notes == ()
    prepare_pictures(tmp_path / "store", found.pictures, size=16, dataset=found.dataset, classes=found.classes)
    store = PictureStore.open(tmp_path / "store")
    for number in range(30):
        image, mask, class_id = draw_bird(0, number, 16)
        assert np.array_equal(store.images[number], image)
        assert np.array_equal(store.masks[number], mask)
        assert store.class_ids([number]).tolist() == [class_id]


def test_the_folder_above_and_masks_beside_are_found(root, tmp_path):
    above = tmp_path / "above"
    above.mkdir()
    (above / "CUB_200_2011").mkdir()
    for path in list(root.iterdir()):
        if path != above:
            path.rename(above / ("" if path.name == "segmentations" else "CUB_200_2011") / path.name)
    assert holds_cub(above)
    found = find_cub(above)
    assert all(item.mask for item in found.pictures)
    assert found.pictures[0].name.startswith("001.")


def test_without_the_split_file_one_is_derived_from_the_ids(root):
    (root / "train_val_test_split.txt").unlink()
    found = find_cub(root)
    assert Counter(item.split for item in found.pictures) == {"train": 25, "val": 2, "test": 3}
    assert "not the published one" in found.notes[0]
    lines = (root / "images.txt").read_text().splitlines()
    (root / "images.txt").write_text("\n".join(lines[::-1]))
    assert {item.name: item.split for item in find_cub(root).pictures} == {
        item.name: item.split for item in found.pictures
    }


def test_masks_may_lack_in_train_but_not_in_test(root):
    pictures = find_cub(root).pictures
    pictures[0].mask.unlink()
    assert find_cub(root).pictures[0].mask is None
    next(item for item in pictures if item.split == "test").mask.unlink()
    refused(root, "1 test pictures have no mask")
    for item in pictures:
        item.mask.unlink(missing_ok=True)
    refused(root, "6 test pictures have no mask")


def test_missing_files_are_named(root):
    next((root / "images").rglob("*.png")).unlink()
    refused(root, "does not exist; copy the picture")
    (root / "segmentations").rename(root / "masks")
    refused(root, r"segmentations\.tgz")
    (root / "images.txt").write_text("")
    refused(root, "names no picture")
    assert not holds_cub(root / "nowhere")


def test_class_ids_with_gaps_are_refused(root):
    edit(root / "classes.txt", "12 012", "14 012")
    refused(root, "leave a gap, 12 is missing below 14")


def test_classes_that_do_not_fit_are_refused(root):
    edit(root / "image_class_labels.txt", "\n5 5\n", "\n5 13\n")
    refused(root, "uses class 13")
    (root / "image_class_labels.txt").unlink()
    assert {item.class_id for item in find_cub(root).pictures} == {None}


def test_without_class_names_numbers_do(root):
    (root / "classes.txt").unlink()
    assert find_cub(root).classes == tuple(str(k) for k in range(1, 13))
    edit(root / "image_class_labels.txt", "\n5 5\n", "\n5 15\n")
    refused(root, "leave a gap, 13 is missing below 15")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("train_val_test_split.txt", "\n3 0\n", "\n3 7\n", "holds split 7"),
        ("train_val_test_split.txt", "\n3 0\n", "\n", "nothing for 1 of the 30"),
        ("train_val_test_split.txt", "\n3 0\n", "\n3 0\n3 0\n", "line 4: id 3 comes twice"),
        ("train_val_test_split.txt", "\n3 0\n", "\n3 x\n", "wanted a whole number"),
        ("image_class_labels.txt", "\n3 3\n", "\n3 " + "9" * 5000 + "\n", "wanted a whole number"),
        ("bounding_boxes.txt", "\n2 ", "\n2 nan 1 2 2\n99 ", "wanted finite numbers"),
        ("images.txt", "\n2 ", "\ntwo ", "line 2: .* is not an id and a value"),
        ("images.txt", "\n2 ", "\n2 ../", "outside the dataset"),
        ("bounding_boxes.txt", "\n2 ", "\n2 9 ", "wanted x, y, width and height"),
    ],
)
def test_broken_lists_are_refused(root, name, old, new, words):
    edit(root / name, old, new)
    refused(root, words)


def test_boxes_are_checked(root, tmp_path):
    lines = (root / "bounding_boxes.txt").read_text().splitlines()
    (root / "bounding_boxes.txt").write_text("\n".join(["1 3 3 0 5", *lines[1:]]))
    refused(root, "a width and a height above 0")
    (root / "bounding_boxes.txt").write_text("\n".join(["1 3 3 40 5", *lines[1:]]))
    found = find_cub(root)
    assert found.pictures[0].box == (3, 3, 40, 5)
    with pytest.raises(MedsegError, match="lies outside"):
        prepare_pictures(tmp_path / "store", found.pictures, size=16, dataset=found.dataset)
