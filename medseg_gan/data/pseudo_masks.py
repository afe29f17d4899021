"""Pseudo ground truth for data sets without masks: the largest dog or car that a Mask R-CNN trained on COCO finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medseg_gan.data.picture_files import load_image, read_lines, to_channels
from medseg_gan.data.pictures import Picture
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import save_png, write_text
from medseg_gan.machine.vision import torchvision

torchvision()

from torchvision.models import detection  # noqa: E402

COCO_IDS = {"dog": 18, "car": 3}
COCO_CLASSES = 91  # ids in COCO's own numbering, background included
MIN_SCORE = 0.5
UNDETECTED = "without_detection.txt"

Detector = Callable[[list[Tensor]], list[dict[str, Tensor]]]


def build_detector(weights: Path | None, device: str | torch.device = "cpu") -> nn.Module:
    """Mask R-CNN of torchvision (ResNet50-FPN, first or second version, as the weights are) with given weights.

    The paper has detectron2's R101-FPN-3x; this one comes with torchvision.

    Args:
        weights: torchvision's own file of COCO weights.
        device: where it runs.

    Raises:
        MedsegError: no file was named, or it does not hold such weights.
    """
    if weights is None:
        raise MedsegError(
            "pseudo masks need Mask R-CNN weights and none were named; get maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth "
            "(torchvision's MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1) and give its path as weights"
        )
    state = _load_weights(Path(weights))
    second = any(key.startswith("backbone.fpn.inner_blocks.0.1.") for key in state)  # norm in the FPN
    build = detection.maskrcnn_resnet50_fpn_v2 if second else detection.maskrcnn_resnet50_fpn
    model = build(weights=None, weights_backbone=None, num_classes=COCO_CLASSES)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise MedsegError(f"{weights} does not fit Mask R-CNN with {COCO_CLASSES} classes ({reason})") from error
    # The first version was saved with frozen batch normalisation, which has no counter and, then, no epsilon.
    wrong = [*unexpected, *(key for key in missing if not key.endswith("num_batches_tracked"))]
    if wrong:
        raise MedsegError(
            f"{weights} does not hold weights of torchvision's maskrcnn_resnet50_fpn or _v2: {len(wrong)} entries do "
            f"not fit ({wrong[0]}); get maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"
        )
    for module in () if second else model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return model.eval().to(device)


def _load_weights(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MedsegError(f"{path} does not exist; give the path of torchvision's Mask R-CNN weights")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0][:120]
        raise MedsegError(f"{path} cannot be read as PyTorch weights ({reason}); get the file again") from error
    if not isinstance(state, dict):
        raise MedsegError(f"{path} holds a {type(state).__name__}, wanted a dictionary of weights")
    return state


def largest_instance(found: dict[str, Tensor], class_id: int, min_score: float = MIN_SCORE) -> np.ndarray | None:
    """Mask of the largest instance of a class.

    Args:
        found: torchvision's `labels` `(N,)`, `scores` `(N,)` and soft `masks` `(N, 1, H, W)`.
        class_id: in COCO's numbering.
        min_score: instances below it do not count.

    Returns:
        `(H, W)` bool, or None where there is no instance.
    """
    wanted = (found["labels"] == class_id) & (found["scores"] >= min_score)
    masks = found["masks"][wanted][:, 0] > 0.5
    areas = masks.sum((1, 2))
    if not len(areas) or not areas.max():
        return None
    return masks[areas.argmax()].cpu().numpy()


@torch.no_grad()
def write_pseudo_masks(
    pictures: Sequence[Picture],
    out: Path,
    detector: Detector,
    *,
    category: str,
    min_score: float = MIN_SCORE,
    device: str | torch.device = "cpu",
    on_done: Callable[[], None] | None = None,
) -> list[str]:
    """Write `<split>_masks/<stem>.png` for every picture in which the detector sees the object.

    Masks already there are kept, and so are the pictures that a former run found nothing in (listed in
    `without_detection.txt`), so an interrupted run goes on.

    Args:
        pictures: of Stanford Dogs or Cars.
        out: folder to fill; need not be the dataset's.
        detector: from `build_detector`: `(3, H, W)` float images in [0, 1] to their instances.
        category: `dog` or `car`.
        min_score: instances below it do not count.
        device: where the detector runs.
        on_done: called after each picture.

    Returns:
        Names of the pictures without a detection, which have no mask.

    Raises:
        MedsegError: an unknown category, two pictures with one mask name, or an unreadable picture.
    """
    if category not in COCO_IDS:
        raise MedsegError(f"there are no pseudo masks for {category!r}, wanted {' or '.join(COCO_IDS)}")
    out, record = Path(out), Path(out) / UNDETECTED
    known = {line for _, line in read_lines(record)} if record.is_file() else set()
    paths = [out / f"{picture.split}_masks" / f"{PurePosixPath(picture.name).stem}.png" for picture in pictures]
    if len(set(paths)) < len(paths):
        twice = next(path for k, path in enumerate(paths) if path in paths[:k])
        raise MedsegError(f"two pictures would share the mask {twice.name}; give them different names")
    undetected = []
    for picture, path in zip(pictures, paths, strict=True):
        if picture.name in known:
            undetected.append(picture.name)
        elif not path.is_file():
            image = np.array(to_channels(load_image(picture.image), 3, picture.image))
            tensor = torch.from_numpy(image).permute(2, 0, 1).to(device).float() / 255
            mask = largest_instance(detector([tensor])[0], COCO_IDS[category], min_score)
            if mask is None:
                undetected.append(picture.name)
                write_text(record, "".join(f"{name}\n" for name in sorted({*known, *undetected})))
            else:
                save_png(path, mask.astype(np.uint8) * np.uint8(255))
        if on_done:
            on_done()
    return undetected
