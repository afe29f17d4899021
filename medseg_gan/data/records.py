"""The cases in a folder, their patients, and the pool of each patient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gan.data import segthor
from medseg_gan.data.dicom import dicom_patient, find_dicom_folders
from medseg_gan.data.volumes import is_volume_file
from medseg_gan.errors import MedsegError
from medseg_gan.machine.seeding import numpy_rng
from medseg_gan.machine.walk import walk_folder

Case = dict[str, Any]
"""`image`: path; `label`: path or None; `case`, `patient`: names from the files, pseudonyms after `disguise`."""

LABEL_FOLDERS = ("labels", "label", "masks", "labelstr", "labelsts")
LABEL_ENDING = re.compile(r"(^|[_-])(label|seg|mask|gt)$", re.IGNORECASE)

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
    found: dict[str, list[Case]] = {}
    for name in finders if layout == "auto" else [layout]:
        found[name] = finders[name](root)
        if found[name] and name == "segthor":
            break  # its files would also be found as a plain folder's
    if found.get("folder") and found.get("dicom"):
        raise MedsegError(
            f"{root} holds {len(found['folder'])} volume files and {len(found['dicom'])} DICOM folders, which may show "
            "the same patients; choose one with prepare.layout=folder or prepare.layout=dicom"
        )
    if any(found.values()):
        return sorted((case for cases in found.values() for case in cases), key=lambda case: str(case["case"]))
    wanted = {
        "segthor": "train/Patient_XX/Patient_XX.nii.gz with GT.nii.gz",
        "folder": ".nii, .nii.gz, .nrrd or .mha files",
        "dicom": "folders of DICOM files",
        "auto": "SegTHOR's layout, NIfTI/NRRD/MHA files or DICOM folders",
    }[layout]
    raise MedsegError(f"{root}: no volumes found, wanted {wanted}; check the path and prepare.layout")


def _folder_cases(root: Path, patient_pattern: str | None) -> list[Case]:
    """Images with their labels, which are called `NAME_label` or `NAME-label`, or lie in a folder `labels`."""
    files = sorted(path for path in walk_folder(root) if is_volume_file(path))
    labels: dict[tuple[Path, str], Path] = {}
    images: dict[Path, str] = {}
    for path in files:
        stem = _stem(path)
        plain = LABEL_ENDING.sub("", stem)
        inside = path.parent.name.lower() in LABEL_FOLDERS
        place = path.parent.parent if inside else path.parent, plain
        if not inside and plain == stem:
            images[path] = stem
        elif place in labels:
            raise MedsegError(f"{labels[place]} and {path} look like labels of one image; keep one of them")
        else:
            labels[place] = path
    cases = []
    for path, stem in images.items():
        places = [(path.parent, stem), (path.parent.parent, stem)]  # beside it, or in a sibling of its folder
        label = next((labels.pop(place) for place in places if place in labels), None)
        name = path.relative_to(root).parent.joinpath(stem).as_posix()
        cases.append({"image": path, "label": label, "case": name, "patient": _patient(stem, patient_pattern)})
    if labels:
        orphan = next(iter(labels.values()))
        raise MedsegError(f"{orphan} looks like a label but no image has its name; rename or remove it")
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


def _patient(stem: str, pattern: str | None) -> str:
    """Patient in a file's stem: the pattern's first group, else all before a last `_number`; all of `Patient_07`."""
    if pattern is None:
        numbered = re.fullmatch(r"(patient|case|subject)_\d+", stem, re.IGNORECASE)
        return stem if numbered else re.sub(r"_\d+$", "", stem)
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


MIN_LABELLED = 2  # one trains, one picks checkpoints
DEFAULT_GAN_SHARE = 0.5  # of labelled patients, where there are no others


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
    labelled = sorted((item for item in patients if item.labelled), key=lambda item: item.patient)
    dominant = [item.patient for item in labelled if item.slices > DOMINANT_SHARE * total]
    others = [item.patient for item in labelled if item.patient not in dominant]
    num_test = max(min_test, round(test_share * len(labelled)))
    gan_needs_some = gan_share is not None or not pools
    needed = num_test + MIN_LABELLED + gan_needs_some
    if len(labelled) < needed or len(others) < num_test:
        unfit = f" ({len(dominant)} of them hold too many of all slices to be tested on)" if dominant else ""
        ways = "lower prepare.min_test_patients, " * (min_test > 1)
        ways += "take prepare.labels=lungs, which needs no ground truth, " * (gan_share is None)
        raise MedsegError(
            f"patients with labels and usable slices: {len(labelled)}{unfit}; wanted at least {needed}: {num_test} "
            f"for the test, {MIN_LABELLED} to train segmenters{', 1 for the GAN' * gan_needs_some}. Give more "
            f"patients, {ways}or check how prepare.patient_pattern reads patients from file names"
        )
    order = numpy_rng(seed, "pools").permutation(others).tolist()
    test, rest = order[:num_test], order[num_test:]
    # Of dominant patients every second one goes to the GAN: two of them serve both kinds of training.
    rest = dominant[0::2] + rest + dominant[1::2] if gan_needs_some else dominant + rest
    share = DEFAULT_GAN_SHARE if gan_share is None else gan_share
    num_gan = min(max(1, round(share * len(labelled))), len(rest) - MIN_LABELLED) if gan_needs_some else 0
    pools |= dict.fromkeys(test, "test") | dict.fromkeys(rest[:num_gan], "gan")
    return pools | dict.fromkeys(rest[num_gan:], "labelled")
