"""Pseudo masks: the largest instance of the class, written once, with the undetected listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from medseg_gan.data.pictures import Picture
from medseg_gan.data.pseudo_masks import COCO_IDS, build_detector, largest_instance, write_pseudo_masks
from medseg_gan.errors import MedsegError


def found(*instances: tuple[int, float, int]) -> dict[str, Tensor]:
    """Instances as (label, score, columns covered) of a 4 x 8 picture."""
    masks = torch.zeros(len(instances), 1, 4, 8)
    for k, (_, _, columns) in enumerate(instances):
        masks[k, :, :, :columns] = 0.9
    labels, scores = ([item[k] for item in instances] for k in (0, 1))
    return {"labels": torch.tensor(labels), "scores": torch.tensor(scores), "masks": masks}


def bright(images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Stands for a detector: sees one dog where the picture is bright."""
    masks = (images[0].mean(0) > 0.5).float()[None, None]
    keep = masks.any().long()
    return [{"labels": torch.tensor([18])[:keep], "scores": torch.ones(1)[:keep], "masks": masks[:keep]}]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Two pictures whose left half is bright and a dark one."""
    items = []
    for name, level in (("a", 255), ("b", 200), ("c", 10)):
        image = np.zeros((6, 8, 3), np.uint8)
        image[:, :4] = level
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        split = "test" if name == "b" else "train"
        items.append(Picture(f"Images/{name}.png", tmp_path / f"{name}.png", None, split, None))
    return items


def test_the_largest_sure_instance_of_the_class_wins():
    mask = largest_instance(found((18, 0.9, 2), (18, 0.8, 5), (18, 0.3, 7), (3, 0.9, 8)), COCO_IDS["dog"])
    assert mask.dtype == bool
    assert mask.sum() == 5 * 4
    assert largest_instance(found((18, 0.9, 2)), COCO_IDS["car"]) is None
    assert largest_instance(found((18, 0.9, 0)), COCO_IDS["dog"]) is None
    assert largest_instance({key: value[:0] for key, value in found((18, 1.0, 3)).items()}, 18) is None


def test_masks_go_by_split_and_stem_and_the_undetected_are_listed(pictures, tmp_path):
    out, calls = tmp_path / "out", []
    missing = write_pseudo_masks(pictures, out, bright, category="dog", on_done=lambda: calls.append(1))
    assert missing == ["Images/c.png"]
    assert (out / "without_detection.txt").read_text() == "Images/c.png\n"
    for path in (out / "train_masks/a.png", out / "test_masks/b.png"):
        mask = np.asarray(Image.open(path))
        assert (mask[:, :4] == 255).all() and not mask[:, 4:].any()
    assert not (out / "train_masks/c.png").exists()
    assert len(calls) == 3


def test_a_second_run_detects_nothing_anew(pictures, tmp_path):
    write_pseudo_masks(pictures, tmp_path / "out", bright, category="dog")

    def never(images: list[Tensor]) -> list[dict[str, Tensor]]:
        raise AssertionError

    assert write_pseudo_masks(pictures, tmp_path / "out", never, category="dog") == ["Images/c.png"]


def test_unclear_orders_are_one_line(pictures, tmp_path):
    with pytest.raises(MedsegError, match="wanted dog or car"):
        write_pseudo_masks(pictures, tmp_path, bright, category="cat")
    with pytest.raises(MedsegError, match=r"share the mask a\.png"):
        write_pseudo_masks([pictures[0], pictures[0]], tmp_path, bright, category="dog")


def test_missing_or_foreign_weights_are_one_line(tmp_path):
    with pytest.raises(MedsegError, match=r"maskrcnn_resnet50_fpn_v2_coco.*give its path"):
        build_detector(None)
    with pytest.raises(MedsegError, match="does not exist"):
        build_detector(tmp_path / "none.pth")
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(MedsegError, match="cannot be read as PyTorch weights"):
        build_detector(tmp_path / "page.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MedsegError, match="does not hold weights of torchvision's maskrcnn"):
        build_detector(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(MedsegError, match="holds a list"):
        build_detector(tmp_path / "list.pth")


def test_weights_that_would_run_code_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(MedsegError, match="cannot be read"):
        build_detector(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
