"""Measure what a CT slice looks like in numbers, the same way on real and on phantom slices."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from medseg_gan.data.phantom.thorax import write_thorax_phantom
from medseg_gan.errors import MedsegError

TARGETS: dict[str, tuple[float, float, float]] = {
    "pixel_mm": (1.13, 1.48, 1.95),
    "body_cm2": (518.0, 670.0, 828.0),
    "lung_hu": (-894.0, -858.0, -711.0),
    "fat_hu": (-105.0, -94.0, -76.0),
    "soft_hu": (20.0, 42.0, 68.0),
    "noise_hu": (5.5, 12.0, 26.0),
}
"""5th, 50th and 95th percentile on real slices: pixel at 256 x 256, and what `measure_slice` returns."""

TOLERANCE = 0.20
SOFT_TISSUE_SCALE_HU = 42.0
"""Soft tissue lies near 0 HU, the zero of the scale, so a fifth of its own value means nothing at 20 HU: its tolerance
is a fifth of the 5th-to-95th range of real slices or of this median, whichever is larger."""

SLICES_PER_PATIENT = 10


def body_mask(image: np.ndarray) -> np.ndarray:
    """The patient without couch, clothes and free-standing arms.

    Args:
        image: `(H, W)` HU.

    Returns:
        `(H, W)` bool: the largest dense component after an opening that cuts thin couch shells, holes filled.
    """
    dense = ndimage.binary_opening(image > -400, iterations=3)
    components, count = ndimage.label(dense)
    if count == 0:
        return np.zeros(image.shape, bool)
    largest = 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
    return ndimage.binary_fill_holes(components == largest)


def lung_mask(image: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Air-filled tissue inside the body: dark components of at least 400 pixels, two at most, edges off.

    Args:
        image: `(H, W)` HU.
        body: `(H, W)` bool.

    Returns:
        `(H, W)` bool.
    """
    components, count = ndimage.label((image < -500) & body)
    if count == 0:
        return np.zeros(image.shape, bool)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = [k for k in np.argsort(sizes)[::-1][:2] if sizes[k] >= 400]
    return ndimage.binary_erosion(np.isin(components, kept), iterations=2)


def soft_tissue_mode(values: np.ndarray) -> float:
    """Most frequent value in [-10, 110] HU, from a histogram of 2 HU bins smoothed over three of them."""
    counts, edges = np.histogram(values, bins=np.arange(-10.0, 112.0, 2.0))
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), 1.5)
    return float(edges[np.argmax(smooth)] + 1.0)


def local_noise(image: np.ndarray, body: np.ndarray) -> float:
    """20th percentile over soft tissue of the standard deviation in 5 x 5 pixels.

    Low, because most windows also hold vessels and fat planes; the calmest fifth shows the noise.
    """
    smooth = ndimage.gaussian_filter(image, 1.5)
    soft = ndimage.binary_erosion((smooth > -30) & (smooth < 130) & body, iterations=3)
    if soft.sum() < 50:
        return float("nan")
    mean = ndimage.uniform_filter(image, 5)
    variance = ndimage.uniform_filter(image**2, 5) - mean**2
    return float(np.percentile(np.sqrt(np.maximum(variance[soft], 0.0)), 20))


def measure_slice(image: np.ndarray, pixel_mm: float) -> dict[str, float]:
    """The figures of `TARGETS` for one slice.

    Args:
        image: `(H, W)` HU, anterior up.
        pixel_mm: pixel size; reported as if the slice had 256 columns.

    Returns:
        A value per key of `TARGETS`; `nan` where the tissue is not there.
    """
    image = np.maximum(image.astype(np.float32), -1024.0)
    body = body_mask(image)
    lung = lung_mask(image, body)
    calm = ndimage.gaussian_filter(image, 1.0)[ndimage.binary_erosion(body, iterations=3)]
    fat = calm[(calm > -140) & (calm < -60)]
    return {
        "pixel_mm": pixel_mm * image.shape[1] / 256,
        "body_cm2": float(body.sum()) * pixel_mm**2 / 100,
        "lung_hu": float(np.median(image[lung])) if lung.sum() >= 200 else float("nan"),
        "fat_hu": float(np.median(fat)) if fat.size >= 200 else float("nan"),
        "soft_hu": soft_tissue_mode(calm) if calm.size else float("nan"),
        "noise_hu": local_noise(image, body),
    }


def patient_of(path: Path) -> str:
    """The patient a file belongs to: its folder in SegTHOR layout, else its name up to the last underscore."""
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return name if name.startswith("Patient_") else name.rpartition("_")[0] or name


def slices_of(path: Path, count: int) -> Iterator[tuple[np.ndarray, float]]:
    """Up to `count` slices of a NIfTI file, evenly spread, as `(H, W)` anterior up, with their pixel size in mm."""
    volume = nib.Nifti1Image.from_filename(path)
    wanted = nib.orientations.axcodes2ornt("LPS")
    turned = volume.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(volume.affine), wanted))
    hu = np.asanyarray(turned.dataobj)
    for k in np.unique(
        np.linspace(0, hu.shape[2] - 1, count + 2).round().astype(int)[1:-1] if hu.shape[2] > 1 else [0]
    ):
        yield hu[:, :, k].T, float(turned.header.get_zooms()[0])


def measure_slices(folder: Path, per_patient: int = SLICES_PER_PATIENT) -> dict[str, np.ndarray]:
    """Measure every NIfTI image below a folder, each patient counting at most `per_patient` slices with lung.

    Args:
        folder: searched recursively for `*.nii.gz`; files called `GT.nii.gz` are left out.
        per_patient: slices taken per patient.

    Returns:
        `(N,)` values per key of `TARGETS`, without `nan`.

    Raises:
        MedsegError: there is no image.
    """
    by_patient: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.nii.gz")):
        if path.name != "GT.nii.gz":
            by_patient.setdefault(patient_of(path), []).append(path)
    if not by_patient:
        raise MedsegError(f"{folder} holds no *.nii.gz image; name a folder of CT volumes or slices")
    rows = []
    for paths in by_patient.values():
        share = -(-per_patient // len(paths))
        rows += [measure_slice(*item) for path in paths for item in slices_of(path, share)][:per_patient]
    rows = [row for row in rows if np.isfinite(row["lung_hu"])]  # as the recipes, which keep slices with lung
    columns = {key: np.array([row[key] for row in rows]) for key in TARGETS}
    return {key: values[np.isfinite(values)] for key, values in columns.items()}


def quantiles(values: np.ndarray) -> tuple[float, float, float]:
    """5th, 50th and 95th percentile."""
    low, middle, high = np.percentile(values, (5, 50, 95))
    return float(low), float(middle), float(high)


def allowed_deviation(key: str, target: float) -> float:
    """How far a measured quantile may lie from its target: a fifth of it (see `SOFT_TISSUE_SCALE_HU`)."""
    if key == "soft_hu":
        low, _, high = TARGETS[key]
        return TOLERANCE * max(high - low, SOFT_TISSUE_SCALE_HU)
    return TOLERANCE * abs(target)


def quantile_table(phantom: dict[str, np.ndarray], real: dict[str, np.ndarray] | None = None) -> list[str]:
    """Lines of a table: quantiles on the phantom, on real slices measured here (if given) and the targets."""
    lines = [f"{'':10s} {'phantom p5/p50/p95':>26s} {'real, measured here':>26s} {'target':>26s}  within a fifth"]
    for key, target in TARGETS.items():
        found = quantiles(phantom[key])
        kept = [abs(f - t) <= allowed_deviation(key, t) for f, t in zip(found, target, strict=True)]
        cells = [found, quantiles(real[key]) if real else None, target]
        text = ["/".join(f"{v:.4g}" for v in cell) if cell else "-" for cell in cells]
        lines.append(f"{key:10s} {text[0]:>26s} {text[1]:>26s} {text[2]:>26s}  {'yes' if all(kept) else 'NO'}")
    return lines


def main() -> None:
    """Print the table for a fresh phantom, beside real slices when `--real` names their folder."""
    parser = argparse.ArgumentParser(prog="benchmarks/phantom_measure.py", description=__doc__)
    parser.add_argument("--real", type=Path, help="folder of real CT volumes or slices (NIfTI)")
    parser.add_argument("--phantom", type=Path, help="folder of an existing phantom (default: write one)")
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    real = measure_slices(arguments.real) if arguments.real else None
    if arguments.phantom:
        phantom = measure_slices(arguments.phantom)
    else:
        with tempfile.TemporaryDirectory() as folder:
            counts = {"gan_patients": arguments.patients, "labelled_patients": 0, "annotator_patients": 0}
            write_thorax_phantom(
                Path(folder), seed=arguments.seed, matrix=256, slices_per_patient=SLICES_PER_PATIENT, **counts
            )
            phantom = measure_slices(Path(folder))
    print("\n".join(quantile_table(phantom, real)))


if __name__ == "__main__":
    main()
