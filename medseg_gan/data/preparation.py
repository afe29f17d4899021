"""From cases on disk to the slice store: every case through the same `Compose`, patients cut into pools once."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose

from medseg_gan.data.records import Case, PatientSlices, cut_pools, disguise
from medseg_gan.data.slices import SliceRecord, StoreWriter
from medseg_gan.data.transforms import as_slices, build_preprocessing, spacing_of
from medseg_gan.data.volume_grid import volume_label_file, write_volume_label
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, LabelTable
from medseg_gan.machine.pool import in_order

POOL_SECONDS = 20.0  # expected work from which processes pay, each of which first imports for several seconds


@dataclass(frozen=True)
class Preprocessing:
    """Arguments of `build_preprocessing`."""

    table: LabelTable
    size: int
    crop: float = 1.0
    spacing: float | None = None
    min_lung_cm2: float = 20.0

    def compose(self) -> Compose:
        """The transforms."""
        return build_preprocessing(
            self.table, size=self.size, crop=self.crop, spacing=self.spacing, min_lung_cm2=self.min_lung_cm2
        )


@dataclass(frozen=True)
class CaseSlices:
    """What became of one case; the slices themselves wait in `part`.

    Attributes:
        part: `.npz` with `images` `(N, H, W)` int16 HU and `labels` `(N, H, W)` uint8.
        digest: of the images.
        slices: positions along z.
        labelled: whether each slice has labels.
        spacing: mm of a row step, a column step, and along z.
        affine: 4 x 4 of the whole volume turned to LPS.
        left_out: reason to number of slices.
        outside: pixels below and above the window.
    """

    part: Path
    digest: str
    slices: list[int]
    labelled: list[bool]
    spacing: tuple[float, float, float]
    affine: list[list[float]]
    left_out: dict[str, int]
    outside: tuple[int, int]


def prepare_case(case: Case, part: Path, how: Preprocessing, window: tuple[float, float]) -> CaseSlices:
    """Read one case and cut it into slices, which are written to `part`.

    Raises:
        MedsegError: the case's files cannot be used.
    """
    try:
        done: dict[str, Any] = how.compose()(dict(case))
    except RuntimeError as error:  # MONAI wraps what a transform raises
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MedsegError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
    wanted = done["slices"]
    images = as_slices(done["image"])[wanted].round().astype(np.int16)
    labels = np.full(images.shape, UNLABELLED, np.uint8)
    if "label" in done:
        labels = as_slices(done["label"])[wanted].astype(np.uint8)
    part.parent.mkdir(parents=True, exist_ok=True)
    np.savez(part, images=images, labels=labels)
    if "volume_label" in done:
        write_volume_label(_volume_part(part), done["volume_label"][:, :, wanted])
    column_mm, row_mm, thickness = spacing_of(done["image"])
    return CaseSlices(
        part=part,
        digest=hashlib.sha256(images.tobytes()).hexdigest(),
        slices=wanted.tolist(),
        labelled=[bool((label != UNLABELLED).any()) for label in labels],
        spacing=(row_mm, column_mm, thickness),
        affine=done["volume_affine"].tolist(),
        left_out=done["left_out"],
        outside=(int((images < window[0]).sum()), int((images > window[1]).sum())),
    )


def describe(how: Preprocessing) -> str:
    """The transforms of every case, one a line with what it does."""
    lines = [
        f"{type(step).__name__}: {(step.__doc__ or '').strip().splitlines()[0]}" for step in how.compose().transforms
    ]
    return "\n".join([*lines, f"size {how.size}, crop {how.crop:g}, spacing {how.spacing}, table {how.table.name}", ""])


def prepare_store(
    folder: Path,
    cases: Sequence[Case],
    how: Preprocessing,
    *,
    seed: int,
    window: tuple[float, float],
    cohort: Sequence[Case] = (),
    test_share: float = 0.2,
    min_test: int = 5,
    gan_share: float = 0.5,
    workers: int = 1,
    on_done: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Write the slice store of a run; `cases.json`, which makes it a store, comes last.

    Args:
        folder: of the store.
        cases: from `find_cases`, with their true names.
        how: preprocessing of every case.
        seed: of the pools.
        window: HU that networks will see; kept beside the slices, which stay HU.
        cohort: further cases, of other patients, that train a stand-in annotator and nothing else.
        test_share: see `cut_pools`.
        min_test: see `cut_pools`.
        gan_share: see `cut_pools`; used where labels are derived by rule.
        workers: processes at most.
        on_done: called after each case.

    Labels of the test patients' volumes on their own grid go to `volumes`, for scores in millimetres.

    Returns:
        `pools` (patients, slices and labelled slices of each), `volumes`, `left_out` (reason to number of slices),
        `outside_window` (share of pixels below and above).

    Raises:
        MedsegError: unusable volumes, no lung slice at all, or too few patients.
    """
    everyone = [*cases, *({**case, "cohort": True, "patient": f"cohort {case['patient']}"} for case in cohort)]
    parts = folder / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    try:
        results = list(_prepare_all(everyone, parts, how, window, workers, on_done))
        left_out = sum((Counter(result.left_out) for result in results), Counter[str]())
        usable, results = _with_slices(everyone, results, left_out)
        hidden = disguise(usable, [result.digest for result in results])
        derived = set(how.table.classes[1:]) == {"left_lung", "right_lung"}
        share = gan_share if derived else None
        pools = _pools_of(hidden, results, seed=seed, test_share=test_share, min_test=min_test, gan_share=share)
        records = _write(folder, hidden, results, pools, window, how.table)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    pixels = len(records) * how.size**2
    below, above = (sum(result.outside[k] for result in results) / pixels for k in (0, 1))
    return {
        "pools": _count_pools(records),
        "volumes": len(everyone),
        "left_out": dict(left_out),
        "outside_window": {"below": below, "above": above},
    }


def _pools_of(cases: Sequence[Case], results: Sequence[CaseSlices], **how: Any) -> dict[str, str]:
    """Pool of every patient: the stand-in's cohort apart, all others by `cut_pools`."""
    cohort = {case["patient"] for case in cases if case.get("cohort")}
    others = [item for item in _patients(cases, results) if item.patient not in cohort]
    return cut_pools(others, **how) | dict.fromkeys(cohort, "annotator")


def _with_slices(
    cases: Sequence[Case], results: Sequence[CaseSlices], left_out: Counter[str]
) -> tuple[list[Case], list[CaseSlices]]:
    """The cases that have slices, and those.

    Raises:
        MedsegError: there is none.
    """
    usable = [(case, result) for case, result in zip(cases, results, strict=True) if result.slices]
    if not usable:
        reasons = ", ".join(f"{count} slices: {reason}" for reason, count in left_out.items())
        raise MedsegError(
            f"no slice with lung was found in {len(results)} volumes ({reasons}); "
            "check that they are chest CT in HU, or lower prepare.min_lung_cm2"
        )
    return [case for case, _ in usable], [result for _, result in usable]


def _prepare_all(
    cases: Sequence[Case],
    parts: Path,
    how: Preprocessing,
    window: tuple[float, float],
    workers: int,
    on_done: Callable[[], None] | None,
) -> Iterator[CaseSlices]:
    """Every case in order; by processes where the first case, done here, shows that they will pay."""
    paths = [parts / f"{number:05d}.npz" for number in range(len(cases))]
    start = time.monotonic()
    for number, (case, path) in enumerate(zip(cases, paths, strict=True), start=1):
        yield prepare_case(case, path, how, window)
        if on_done:
            on_done()
        if workers > 1 and (time.monotonic() - start) / number * (len(cases) - number) > POOL_SECONDS:
            break
    else:
        return
    work = partial(_prepare_part, how=how, window=window)
    for result in in_order(work, list(zip(cases, paths, strict=True))[number:], workers, "prepare.workers"):
        yield result
        if on_done:
            on_done()


def _prepare_part(part: tuple[Case, Path], how: Preprocessing, window: tuple[float, float]) -> CaseSlices:
    return prepare_case(*part, how, window)


def _patients(cases: Sequence[Case], results: Sequence[CaseSlices]) -> list[PatientSlices]:
    """Slices and labelled slices of each patient."""
    slices: Counter[str] = Counter()
    labelled: Counter[str] = Counter()
    for case, result in zip(cases, results, strict=True):
        slices[case["patient"]] += len(result.slices)
        labelled[case["patient"]] += sum(result.labelled)
    return [PatientSlices(name, count, labelled[name]) for name, count in sorted(slices.items())]


def _write(
    folder: Path,
    cases: Sequence[Case],
    results: Sequence[CaseSlices],
    pools: dict[str, str],
    window: tuple[float, float],
    table: LabelTable,
) -> list[SliceRecord]:
    """Join the parts in the order of the pseudonyms, which says nothing about names or files."""
    volume_label_file(folder, "").parent.mkdir(parents=True, exist_ok=True)
    with StoreWriter(folder, window=window, table=table) as writer:
        for case, result in sorted(zip(cases, results, strict=True), key=lambda pair: str(pair[0]["case"])):
            pool = pools[case["patient"]]
            unlabelled = pool == "gan"  # its patients lend images alone, also where a rule could label them
            records = [
                SliceRecord(
                    case=case["case"],
                    patient=case["patient"],
                    slice_index=position,
                    spacing=result.spacing,
                    affine=result.affine,
                    pool=pool,
                    labelled=labelled and not unlabelled,
                )
                for position, labelled in zip(result.slices, result.labelled, strict=True)
            ]
            with np.load(result.part) as part:
                labels = np.full_like(part["labels"], UNLABELLED) if unlabelled else part["labels"]
                writer.append(part["images"], labels, records)
            result.part.unlink()
            volume = _volume_part(result.part)
            if pool == "test" and volume.is_file():
                shutil.move(volume, volume_label_file(folder, case["case"]))
            volume.unlink(missing_ok=True)  # before all are read: labels of whole volumes are large
    return writer.records


def _volume_part(part: Path) -> Path:
    return part.with_name(f"{part.stem}-volume.npz")


def _count_pools(records: Sequence[SliceRecord]) -> dict[str, dict[str, int]]:
    pools: dict[str, dict[str, int]] = {}
    for name in sorted({record.pool for record in records}):
        own = [record for record in records if record.pool == name]
        pools[name] = {
            "patients": len({record.patient for record in own}),
            "slices": len(own),
            "labelled_slices": sum(record.labelled for record in own),
        }
    return pools
