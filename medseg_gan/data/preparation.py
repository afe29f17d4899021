"""From cases on disk to the slice store: every case through the same `Compose`, patients cut into pools once."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg_gan.data.records import Case, PatientSlices, cut_pools, disguise
from medseg_gan.data.slices import SliceRecord, StoreWriter
from medseg_gan.data.transforms import build_preprocessing
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, LabelTable


@dataclass(frozen=True)
class Preprocessing:
    """Arguments of `build_preprocessing`."""

    table: LabelTable
    size: int
    crop: float = 1.0
    spacing: float | None = None
    min_lung_cm2: float = 20.0


@dataclass(frozen=True)
class CaseSlices:
    """The slices of one case.

    Attributes:
        images: `(N, H, W)` int16 HU, anterior up, patient-left at the right.
        labels: `(N, H, W)` uint8.
        slices: `(N,)` positions along z.
        spacing: mm of a row step, a column step, and along z.
        affine: of the volume turned to LPS.
        left_out: reason to number of slices.
    """

    images: np.ndarray
    labels: np.ndarray
    slices: np.ndarray
    spacing: tuple[float, float, float]
    affine: list[list[float]]
    left_out: dict[str, int]


def prepare_case(case: Case, how: Preprocessing) -> CaseSlices:
    """Read one case and cut it into slices."""
    compose = build_preprocessing(
        how.table, size=how.size, crop=how.crop, spacing=how.spacing, min_lung_cm2=how.min_lung_cm2
    )
    given = {key: value for key, value in case.items() if key != "label" or value is not None}
    done: dict[str, Any] = compose(given)
    z_step = float(np.linalg.norm(np.asarray(done["volume_affine"])[:3, 2]))
    pixel = [float(step) * done["side"] / how.size for step in done["pixel_mm"]]
    return CaseSlices(
        images=_upright(done["image"]).round().clip(-32768, 32767).astype(np.int16),
        labels=_upright(done["label"]).astype(np.uint8),
        slices=np.asarray(done["slices"]),
        spacing=(pixel[1], pixel[0], z_step),
        affine=np.asarray(done["volume_affine"], float).tolist(),
        left_out=done["left_out"],
    )


def describe(how: Preprocessing) -> str:
    """The transforms of every case, one a line."""
    compose = build_preprocessing(
        how.table, size=how.size, crop=how.crop, spacing=how.spacing, min_lung_cm2=how.min_lung_cm2
    )
    return "".join(f"{type(step).__name__}\n" for step in compose.transforms)


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
    """Write the slice store of a run.

    Args:
        folder: of the store.
        cases: from `find_cases`, with their true names.
        how: preprocessing of every case.
        seed: of pseudonyms and pools.
        window: HU that networks will see; kept beside the slices, which stay HU.
        cohort: further cases, of other patients, that train a stand-in annotator and nothing else.
        test_share: see `cut_pools`.
        min_test: see `cut_pools`.
        gan_share: see `cut_pools`; used where labels are derived by rule.
        workers: processes.
        on_done: called after each case.

    Returns:
        `pools` (patients, slices and labelled slices of each), `left_out` (reason to number), `outside_window` (share
        of pixels below and above).

    Raises:
        MedsegError: unusable volumes, no lung slice at all, or too few patients.
    """
    for case in cohort:
        case["patient"] = f"cohort {case['patient']}"
    hidden = disguise([*cases, *cohort], seed)
    # Errors name the user's own file on the user's own screen; what is written carries the pseudonym.
    results = list(_prepare_all([*cases, *cohort], how, workers, on_done))
    left_out: Counter[str] = Counter()
    for result in results:
        left_out.update(result.left_out)
    if not any(len(result.slices) for result in results):
        raise MedsegError(
            f"no slice with lung was found in {len(results)} volumes ({dict(left_out)}); "
            "check that they are chest CT in HU, or lower prepare.min_lung_cm2"
        )
    derived = set(how.table.classes[1:]) == {"left_lung", "right_lung"}
    own = hidden[: len(cases)]
    pools = cut_pools(
        _patients(own, results),
        seed=seed,
        test_share=test_share,
        min_test=min_test,
        gan_share=gan_share if derived else None,
    ) | {case["patient"]: "annotator" for case in hidden[len(cases) :]}
    with StoreWriter(folder, window=window, table=how.table) as writer:
        for case, result in zip(hidden, results, strict=True):
            if len(result.slices):
                records = _records(case, result, pools[case["patient"]])
                writer.append(result.images, result.labels, records)
    return {
        "pools": _count_pools(writer.records),
        "left_out": dict(left_out),
        "volumes": len(results),
        "outside_window": _outside(writer, window),
    }


def _prepare_all(
    cases: Sequence[Case], how: Preprocessing, workers: int, on_done: Callable[[], None] | None
) -> Iterator[CaseSlices]:
    if workers <= 1 or len(cases) <= 1:
        for case in cases:
            yield prepare_case(case, how)
            if on_done:
                on_done()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(cases)), mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        try:
            for result in pool.map(prepare_case, cases, [how] * len(cases), chunksize=2):
                yield result
                if on_done:
                    on_done()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _patients(cases: Sequence[Case], results: Sequence[CaseSlices]) -> list[PatientSlices]:
    """Slices and labelled slices of each patient that has any."""
    slices: Counter[str] = Counter()
    labelled: Counter[str] = Counter()
    for case, result in zip(cases, results, strict=True):
        slices[case["patient"]] += len(result.slices)
        labelled[case["patient"]] += int((result.labels != UNLABELLED).any(axis=(1, 2)).sum())
    return [PatientSlices(name, count, labelled[name]) for name, count in sorted(slices.items()) if count]


def _records(case: Case, result: CaseSlices, pool: str) -> list[SliceRecord]:
    return [
        SliceRecord(
            case=case["case"],
            patient=case["patient"],
            slice_index=int(position),
            spacing=result.spacing,
            affine=result.affine,
            pool=pool,
            labelled=bool((label != UNLABELLED).any()),
        )
        for position, label in zip(result.slices, result.labels, strict=True)
    ]


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


def _outside(writer: StoreWriter, window: tuple[float, float]) -> dict[str, float]:
    images = np.concatenate(writer.images)
    return {"below": float((images < window[0]).mean()), "above": float((images > window[1]).mean())}


def _upright(volume: torch.Tensor) -> np.ndarray:
    """`(1, X, Y, Z)` in LPS to `(Z, H, W)`: anterior up, patient-left at the right."""
    return np.ascontiguousarray(np.asarray(volume)[0].transpose(2, 1, 0))
