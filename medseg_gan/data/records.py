"""Which cases a folder holds, whose they are, and which pool each patient belongs to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gan.data import segthor
from medseg_gan.data.dicom import dicom_patient, find_dicom_folders
from medseg_gan.data.volumes import is_volume_file
from medseg_gan.errors import MedsegError
from medseg_gan.seeding import numpy_rng

Case = dict[str, Any]
"""`image`: path; `label`: path or None; `case`, `patient`: names from the files, pseudonyms after `disguise`."""

DOMINANT_SHARE = 0.25
"""A patient with more of all slices than this is never put in the test pool: what is left could not train anything."""


def find_cases(root: Path, layout: str = "auto", patient_pattern: str | None = None) -> list[Case]:
    """List the cases of a data folder.

    Args:
        root: the folder.
        layout: `segthor` (as published), `folder` (NIfTI, NRRD, MHA files), `dicom` (series folders), or `auto`.
        patient_pattern: for `folder`: regular expression whose first group is the patient in a file's name.

    Returns:
        Cases sorted by name; `label` is None where there is no ground truth.

    Raises:
        MedsegError: no folder, no volumes, or a name that the pattern does not fit.
    """
    root = Path(root)
    if not root.is_dir():
        raise MedsegError(f"{root} is not a folder; give the folder that holds the volumes")
    finders = {
        "segthor": segthor.find_cases,
        "folder": lambda r: _folder_cases(r, patient_pattern),
        "dicom": _dicom_cases,
    }
    names = list(finders) if layout == "auto" else [layout]
    for name in names:
        cases = finders[name](root)
        if cases:
            return sorted(cases, key=lambda case: str(case["case"]))
    wanted = {
        "segthor": "train/Patient_XX/Patient_XX.nii.gz with GT.nii.gz",
        "folder": ".nii, .nii.gz, .nrrd or .mha files",
        "dicom": "folders of DICOM files",
        "auto": "SegTHOR's layout, NIfTI/NRRD/MHA files or DICOM folders",
    }[layout]
    raise MedsegError(f"{root}: no volumes found, wanted {wanted}; check the path and prepare.layout")


def _folder_cases(root: Path, patient_pattern: str | None) -> list[Case]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and is_volume_file(path))
    labels = {path: path for path in files if _is_label(path, root)}
    cases = []
    for path in files:
        if path in labels:
            continue
        stem = _stem(path)
        name = path.relative_to(root).parent.joinpath(stem).as_posix()
        cases.append(
            {
                "image": path,
                "label": _label_of(path, labels, root),
                "case": name,
                "patient": _patient(stem, patient_pattern),
            }
        )
    return cases


def _dicom_cases(root: Path) -> list[Case]:
    return [
        {"image": folder, "label": None, "case": folder.relative_to(root).as_posix(), "patient": dicom_patient(folder)}
        for folder in find_dicom_folders(root)
    ]


def _stem(path: Path) -> str:
    """File name without `.nii.gz` or its other ending."""
    name = path.name
    return name[:-7] if name.lower().endswith(".nii.gz") else path.stem


def _is_label(path: Path, root: Path) -> bool:
    folders = {part.lower() for part in path.relative_to(root).parts[:-1]}
    return bool(folders & {"labels", "label", "masks"}) or bool(
        re.search(r"[_-](label|seg|mask|gt)$", _stem(path), re.I)
    )


def _label_of(image: Path, labels: Mapping[Path, Path], root: Path) -> Path | None:
    """The label of the same name: beside its image with `_label`, or in a `labels` folder."""
    stem = _stem(image)
    for path in labels:
        plain = re.sub(r"[_-](label|seg|mask|gt)$", "", _stem(path), flags=re.I)
        if plain == stem and (path.parent == image.parent or _is_label(path.parent / "x.nii", root)):
            return path
    return None


def _patient(stem: str, pattern: str | None) -> str:
    """Patient in a file's stem: the pattern's first group, or all before a last `_number`."""
    if pattern is None:
        return re.sub(r"_\d+$", "", stem) if not re.fullmatch(r"\w*?[Pp]atient_\d+", stem) else stem
    try:
        found = re.search(pattern, stem)
    except re.error as error:
        raise MedsegError(f"prepare.patient_pattern {pattern!r} is not a regular expression ({error})") from error
    if not found or not found.groups():
        raise MedsegError(
            f"prepare.patient_pattern {pattern!r} finds no patient in {stem!r}; it needs one group that fits every name"
        )
    return found.group(1)


def disguise(cases: Sequence[Case], digests: Sequence[str]) -> list[Case]:
    """Give patients and cases names that say nothing: numbers in the order of a digest of their images.

    A hash of the name, salted or shuffled by a known seed, can be undone by whoever has a list of names; here no name
    enters at all. The same images still get the same numbers, so a run can be repeated.

    Args:
        cases: with true names.
        digests: one for each case, of its images.

    Raises:
        MedsegError: two patients have the same images, and could meet in two pools.
    """
    owners: dict[str, Case] = {}
    for case, digest in zip(cases, digests, strict=True):
        other = owners.setdefault(digest, case)
        if other["patient"] != case["patient"]:
            raise MedsegError(
                f"{other['case']} and {case['case']} hold the same slices but count as two patients; "
                "remove one, or set prepare.patient_pattern so that they are one"
            )
    order = sorted(range(len(cases)), key=lambda k: digests[k])
    patients = list(dict.fromkeys(cases[k]["patient"] for k in order))
    numbers = {patient: number for number, patient in enumerate(patients, start=1)}
    digits = max(3, len(str(len(patients))))
    hidden: dict[int, Case] = {}
    counts: Counter[str] = Counter()
    for k in order:
        patient = f"patient-{numbers[cases[k]['patient']]:0{digits}d}"
        counts[patient] += 1
        hidden[k] = {**cases[k], "patient": patient, "case": f"{patient}-{counts[patient]:02d}"}
    return [hidden[k] for k in range(len(cases))]


@dataclass(frozen=True)
class PatientSlices:
    """What the cut into pools knows of a patient: slices in all, and those with labels."""

    patient: str
    slices: int
    labelled: int


def cut_pools(
    patients: Sequence[PatientSlices],
    *,
    seed: int,
    test_share: float = 0.2,
    min_test: int = 5,
    gan_share: float | None = None,
) -> dict[str, str]:
    """Cut patients once into pools that never mix.

    Patients without labels belong to `gan`. Of those with labels `test_share`, at least `min_test`, are for the test,
    the rest are `labelled`. Where every label is derived by rule there would be nobody for the GAN, so `gan_share` of
    them go there; a patient with very many slices then trains the GAN or the segmenters but is never tested on.

    Args:
        patients: each once.
        seed: of the cut.
        test_share: share of the patients with labels.
        min_test: test patients at least.
        gan_share: share of patients with labels for the GAN; None where unlabelled patients or the labelled ones serve.

    Returns:
        Pool of each patient: `gan`, `labelled` or `test`.

    Raises:
        MedsegError: too few patients.
    """
    total = sum(item.slices for item in patients)
    pools = {item.patient: "gan" for item in patients if not item.labelled}
    with_labels = sorted(item.patient for item in patients if item.labelled)
    dominant = sorted(item.patient for item in patients if item.labelled and item.slices > DOMINANT_SHARE * total)
    num_test = max(min_test, round(test_share * len(with_labels)))
    own_gan = gan_share is not None or not pools
    num_gan = max(1, round((gan_share or 0.5) * len(with_labels))) if own_gan else 0
    needed = num_test + 2 + (1 if own_gan else 0)
    if len(with_labels) < needed:
        raise MedsegError(
            f"{len(with_labels)} patient(s) with labels and usable slices were found, wanted at least {needed} "
            f"({num_test} for the test, 2 to train segmenters{', 1 for the GAN' if own_gan else ''}); "
            "give more patients or lower prepare.min_test_patients"
        )
    order = numpy_rng(seed, "pools").permutation([name for name in with_labels if name not in dominant]).tolist()
    if len(order) < num_test:
        raise MedsegError(
            f"{len(dominant)} patients hold more than {DOMINANT_SHARE:.0%} of the slices each and cannot be tested on; "
            f"the other {len(order)} are fewer than the {num_test} test patients wanted; give more patients"
        )
    test, rest = order[:num_test], order[num_test:]
    pools |= dict.fromkeys(test, "test")
    num_gan = min(num_gan, len(dominant) + len(rest) - 2)
    # Two dominant patients: one in each training pool; more: alternately.
    training = [name for k, name in enumerate(dominant) if k % 2 == 0] if own_gan else []
    gan = (training + rest)[:num_gan] if own_gan else []
    pools |= dict.fromkeys(gan, "gan")
    pools |= {name: "labelled" for name in with_labels if name not in pools}
    return pools
