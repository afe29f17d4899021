"""SegTHOR (Lambert et al., 2020) as published: where its files lie and what its labels mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_gan.errors import MedsegError

GROUND_TRUTH = "GT.nii.gz"


def find_cases(root: Path) -> list[dict[str, Any]]:
    """Cases of `train/Patient_XX/Patient_XX.nii.gz` with `GT.nii.gz`, and of `test/Patient_XX.nii.gz` without.

    `root` may be the folder above `train`, `train` itself, or any folder of `Patient_XX` folders. A patient folder
    without ground truth counts as unlabelled. Empty where the layout is another.

    Raises:
        MedsegError: ground truth without its image.
    """
    cases = []
    for folder in (root / "train", root / "test", root):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.is_dir() and (image := path / f"{path.name}.nii.gz").is_file():
                label = path / GROUND_TRUTH
                cases.append(_case(image, label if label.is_file() else None, path.name))
            elif (path / GROUND_TRUTH).is_file():
                raise MedsegError(f"{path} has {GROUND_TRUTH} but no {path.name}.nii.gz; copy the image or remove it")
            elif folder.name == "test" and path.name.startswith("Patient_") and path.name.endswith(".nii.gz"):
                cases.append(_case(path, None, path.name.removesuffix(".nii.gz")))
    return cases


def _case(image: Path, label: Path | None, name: str) -> dict[str, Any]:
    return {"image": image, "label": label, "case": name, "patient": name}
