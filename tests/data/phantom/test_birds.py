"""The bird phantom: masks, boxes and classes agree, colour alone does not give the mask, the layout is CUB's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gan.data.phantom.birds import CLASSES, Block, bounding_box, draw_bird, write_birds_phantom, write_block
from medseg_gan.errors import MedsegError

SETTINGS = {"seed": 3, "train": 20, "val": 5, "test": 5, "size": 24}


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("birds")
    write_birds_phantom(root, **SETTINGS)
    return root


def rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_masks_boxes_and_classes_agree(birds):
    labels, boxes = rows(birds / "image_class_labels.txt"), rows(birds / "bounding_boxes.txt")
    names = rows(birds / "classes.txt")
    assert [name.split(".")[1] for _, name in names] == list(CLASSES)
    for number, (key, name) in enumerate(rows(birds / "images.txt")):
        image, mask, class_id = draw_bird(3, number, 24)
        assert np.array_equal(np.asarray(Image.open(birds / "images" / name)), image)
        assert np.array_equal(np.asarray(Image.open(birds / "segmentations" / name)), mask * 255)
        assert labels[number] == [key, str(class_id + 1)]
        assert name.startswith(names[class_id][1] + "/")
        x, y, width, height = (int(float(word)) for word in boxes[number][1:])
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
        assert mask[y].any() and mask[:, x].any() and mask[y + height - 1].any() and mask[:, x + width - 1].any()


def test_splits_are_whole_and_in_order(birds):
    splits = [int(value) for _, value in rows(birds / "train_val_test_split.txt")]
    assert splits == [0] * 20 + [1] * 5 + [2] * 5
    training = [int(value) for _, value in rows(birds / "train_test_split.txt")]
    assert training == [int(split != 2) for split in splits]


def test_a_picture_depends_on_seed_and_number_alone():
    for first, second in zip(draw_bird(1, 7, 32), draw_bird(1, 7, 32), strict=True):
        assert np.array_equal(first, second)
    assert not np.array_equal(draw_bird(1, 7, 32)[0], draw_bird(2, 7, 32)[0])
    assert not np.array_equal(draw_bird(1, 7, 32)[0], draw_bird(1, 19, 32)[0])


def test_another_size_shows_the_same_picture():
    for number in range(12):
        (small, mask, _), (large, large_mask, _) = draw_bird(0, number, 32), draw_bird(0, number, 64)
        average = large.reshape(32, 2, 32, 2, 3).astype(float).mean((1, 3))
        assert np.abs(average - small).mean() < 6
        assert abs(mask.mean() - large_mask.mean()) < 0.01


def test_colour_alone_does_not_give_the_mask():
    pictures = [draw_bird(0, number, 32) for number in range(800)]
    images, masks = (np.stack([picture[k] for picture in pictures]) for k in (0, 1))
    for levels in (8, 16):
        red, green, blue = (images.astype(int) * levels // 256).transpose(3, 0, 1, 2)
        code = (red * levels + green) * levels + blue
        votes = np.zeros((levels**3, 2))
        np.add.at(votes, (code[:500], masks[:500]), 1)
        guess, truth = votes.argmax(1)[code[500:]], masks[500:]
        assert (guess & truth).sum() / (guess | truth).sum() < 0.35
    # Even the choice that marks every colour as foreground which is so more often than foreground is overall.
    often = (votes[:, 1] > masks[:500].mean() * votes.sum(1))[code[500:]]
    assert (often & truth).sum() / (often | truth).sum() < 0.35


def test_colours_do_not_tell_the_class():
    means = np.array([draw_bird(0, number, 16)[0].mean((0, 1)) for number in range(600)])
    by_class = np.array([means[k :: len(CLASSES)].mean(0) for k in range(len(CLASSES))])
    assert by_class.std(0).max() < 3 * means.std(0).max() / np.sqrt(600 / len(CLASSES))


def test_foreground_area_varies_as_stated():
    areas = np.array([draw_bird(0, number, 32)[1].mean() for number in range(240)])
    assert areas.min() > 0.085
    assert areas.max() < 0.315
    assert 0.15 < areas.mean() < 0.25
    assert areas.std() > 0.04


def test_a_larger_set_begins_with_the_smaller(birds, tmp_path):
    done = []
    write_birds_phantom(tmp_path, **{**SETTINGS, "train": 60}, progress=lambda *both: done.append(both))
    assert done[-1] == (70, 70)
    for path in sorted((birds / "images").rglob("*.png")):
        assert (tmp_path / path.relative_to(birds)).read_bytes() == path.read_bytes()


def test_a_block_travels_to_another_process(birds):
    block = Block(birds, 3, 24, range(2, 4))
    boxes = write_block(pickle.loads(pickle.dumps(block)))
    assert boxes == [bounding_box(draw_bird(3, number, 24)[1]) for number in (2, 3)]


def test_a_complete_phantom_is_kept_and_another_refused(birds):
    path = next((birds / "images").rglob("*.png"))
    before = path.stat().st_mtime_ns
    write_birds_phantom(birds, **SETTINGS)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(MedsegError, match="other settings"):
        write_birds_phantom(birds, **{**SETTINGS, "seed": 4})


def test_the_box_of_one_pixel():
    mask = np.zeros((5, 7), np.uint8)
    mask[3, 2] = 1
    assert bounding_box(mask) == (2, 3, 1, 1)
