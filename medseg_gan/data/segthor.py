"""SegTHOR (Lambert et al., 2020) as published: where its files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_gan.errors import MedsegError

GROUND_TRUTH = "GT.nii.gz"
OTHER_SPELLINGS = ("gt.nii.gz", "gt.nii")


def find_cases(root: Path) -> list[dict[str, Any]]:
    """Cases of `train/Patient_XX/Patient_XX.nii.gz` with `GT.nii.gz`, and of `test/Patient_XX.nii.gz` without.

    `root` may be the folder above `train`, `train` itself, or any folder of such patient folders. A patient folder
    without ground truth counts as unlabelled.

    Returns:
        Cases as `records.find_cases` has them; none where the layout is another.

    Raises:
        MedsegError: ground truth without its image, or under another name.
    """
    cases = [case for folder in (root, root / "train", root / "test") for case in _patient_folders(folder)]
    if cases and (root / "test").is_dir():
        cases += [_case(path, None) for path in sorted((root / "test").glob("[!.]*.nii.gz")) if path.is_file()]
    return cases


def _patient_folders(folder: Path) -> list[dict[str, Any]]:
    cases = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_dir() or path.name.startswith("."):
            continue
        image, label = path / f"{path.name}.nii.gz", path / GROUND_TRUTH
        odd = [] if label.is_file() else [file for file in path.iterdir() if file.name.lower() in OTHER_SPELLINGS]
        if odd:  # the patient would count as unlabelled
            raise MedsegError(f"{odd[0]} looks like ground truth, wanted the name {GROUND_TRUTH}; rename the file")
        if image.is_file():
            cases.append(_case(image, label if label.is_file() else None))
        elif label.is_file():
            raise MedsegError(f"{path} has {GROUND_TRUTH} but no {image.name}; copy the image or remove it")
    return cases


def _case(image: Path, label: Path | None) -> dict[str, Any]:
    name = image.name.removesuffix(".nii.gz")
    return {"image": image, "label": label, "case": name, "patient": name}
