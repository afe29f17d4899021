"""Volumes of every format load to one LPS tensor with one affine; what is no volume is refused in one line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_writer import single_frames, write_multi_frame, write_series
from monai.data import MetaTensor
from monai.transforms import Compose, Orientation

from medseg_gan.data.volumes import (
    LoadVolumed,
    SimpleITKReader,
    is_volume_file,
    load_label,
    load_raw,
    load_volume,
)
from medseg_gan.errors import MedsegError

SHAPE = (7, 6, 5)
STRAIGHT = np.array([[-1.5, 0, 0, 40], [0, -1.25, 0, 30], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])  # LPS axes, RAS mm


def turned(affine: np.ndarray, degrees: float) -> np.ndarray:
    """The affine of an oblique scan."""
    angle = np.deg2rad(degrees)
    about_x, about_z = np.eye(4), np.eye(4)
    about_x[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    about_z[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return about_z @ about_x @ affine


AFFINES = {"straight": STRAIGHT, "oblique": turned(STRAIGHT, 12)}
HU = np.random.default_rng(2).integers(-900, 1500, SHAPE).astype(np.int16)
LARGE = np.tile(HU, (4, 4, 4))  # a file cut in its first kB is not even recognised as NIfTI


def write_nifti(path: Path, affine: np.ndarray, axcodes: str = "LPS", array: np.ndarray = HU) -> Path:
    """Write LPS data as NIfTI in another axis order."""
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(axcodes))
    nib.save(image.as_reoriented(turn), path)
    return path


def simpleitk_image(affine: np.ndarray, array: np.ndarray = HU) -> sitk.Image:
    """The same data as a SimpleITK image."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_simpleitk(path: Path, affine: np.ndarray, order: tuple[int, ...] = (0, 1, 2), compress: bool = True) -> Path:
    """Write with permuted axes."""
    sitk.WriteImage(sitk.PermuteAxes(simpleitk_image(affine), order), str(path), useCompression=compress)
    return path


WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    **{
        f"nifti {codes}": lambda folder, affine, codes=codes: write_nifti(folder / "a.nii.gz", affine, codes)
        for codes in ("LPS", "RAS", "LAS", "RPI", "SPL", "ARI")
    },
    **{
        f"nrrd {order}": lambda folder, affine, order=order: write_simpleitk(folder / "a.nrrd", affine, order)
        for order in permutations(range(3))
    },
    "nifti plain": lambda folder, affine: write_nifti(folder / "a.nii", affine),
    "nhdr": lambda folder, affine: write_simpleitk(folder / "a.nhdr", affine, compress=False),
    "mha": lambda folder, affine: write_simpleitk(folder / "a.mha", affine, (2, 0, 1)),
    "mhd": lambda folder, affine: write_simpleitk(folder / "a.mhd", affine, (1, 0, 2), compress=False),
    "dicom": lambda folder, affine: write_series(folder / "series", single_frames(HU, affine)),
    "enhanced": lambda folder, affine: write_multi_frame(folder / "e.dcm", HU, affine, [2, 1, 4, 3, 0]),
}


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_and_axis_order_loads_to_the_same_place(tmp_path: Path, writer: str, affine: str) -> None:
    volume = load_volume(WRITERS[writer](tmp_path, AFFINES[affine]))
    assert isinstance(volume, MetaTensor) and volume.dtype == torch.float32
    assert np.array_equal(volume[0], HU)
    assert np.allclose(volume.affine, AFFINES[affine], atol=1e-4)


def test_the_way_back_to_the_order_of_the_file(tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "a.nii.gz", AFFINES["oblique"], "SAR")
    volume = load_volume(file)
    stored = nib.load(file)
    affine = volume.applied_operations[0]["extra_info"]["original_affine"]
    axes = "".join(nib.aff2axcodes(np.asarray(affine)))
    back = Orientation(axes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(volume)
    assert np.array_equal(back[0], stored.get_fdata()) and np.allclose(back.affine, stored.affine)
    assert np.allclose(affine, stored.affine)


def test_padding_and_metal_are_clipped(tmp_path: Path) -> None:
    array = HU.copy()
    array[0, 0, 0], array[1, 1, 1] = -3024, 20000
    file = write_nifti(tmp_path / "a.nii.gz", STRAIGHT, array=array)
    volume = load_volume(file)[0]
    assert volume[0, 0, 0] == -1024 and volume[1, 1, 1] == 3071
    assert load_raw(file)[0, 0, 0, 0] == -3024


def test_scaled_nifti_values_are_rescaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(HU, STRAIGHT)
    image.header.set_slope_inter(0.5, 10)  # of what is stored
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(load_volume(tmp_path / "a.nii.gz")[0], HU / 2 + 10)


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 1), (7, 6, 1, 1), (7, 6, 5, 1)])
def test_depth_one_and_a_last_axis_of_one_are_legal(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = HU[:, :, : shape[2] if len(shape) > 2 else 1].reshape(shape)
    nib.save(nib.Nifti1Image(array, STRAIGHT), tmp_path / "a.nii.gz")
    assert np.array_equal(load_volume(tmp_path / "a.nii.gz").flatten(), array.ravel())


def test_flat_nrrd_gets_depth_one(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(HU[:, :, 0].T), str(tmp_path / "a.nrrd"))
    volume = load_volume(tmp_path / "a.nrrd")
    assert volume.shape == (1, 7, 6, 1) and np.array_equal(volume[0, :, :, 0], HU[:, :, 0])


def test_labels_keep_their_values(tmp_path: Path) -> None:
    label = (HU % 6).astype(np.uint8)
    read = load_label(write_nifti(tmp_path / "a.nii.gz", STRAIGHT, "RAS", label))
    assert read.dtype == torch.uint8 and np.array_equal(read[0], label) and np.allclose(read.affine, STRAIGHT)
    sitk.WriteImage(simpleitk_image(STRAIGHT, label), str(tmp_path / "a.nrrd"))
    assert np.array_equal(load_label(tmp_path / "a.nrrd")[0], label)


@pytest.mark.parametrize("value", [-1, 256, 1.5])
def test_labels_outside_a_byte_are_refused(tmp_path: Path, value: float) -> None:
    label = np.zeros(SHAPE, np.float32)
    label[1, 2, 3] = value
    with pytest.raises(MedsegError, match=f"has the value {value:g}"):
        load_label(write_nifti(tmp_path / "a.nii.gz", STRAIGHT, array=label))
    with pytest.raises(MedsegError, match="is a folder"):
        load_label(tmp_path)


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def truncated(path: Path) -> Path:
    return write_bytes(path, path.read_bytes()[: path.stat().st_size * 2 // 3])


def with_value(value: float) -> np.ndarray:
    array = HU.astype(np.float32)
    array[0, 0, :2] = value
    return array


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "no.nii.gz", "does not exist"),
    "cut nii.gz": (
        lambda d: truncated(write_nifti(d / "a.nii.gz", STRAIGHT, array=LARGE)),
        "truncated; wanted a whole NIfTI file",
    ),
    "cut nii": (lambda d: truncated(write_nifti(d / "a.nii", STRAIGHT)), "truncated; wanted a whole NIfTI file"),
    "cut nrrd": (lambda d: truncated(write_simpleitk(d / "a.nrrd", STRAIGHT)), "wanted a whole NRRD file"),
    "cut mha": (lambda d: truncated(write_simpleitk(d / "a.mha", STRAIGHT)), "wanted a whole MetaImage file"),
    "text nii": (lambda d: write_bytes(d / "a.nii", b"hello " * 99), "of another format"),
    "text nii.gz": (lambda d: write_bytes(d / "a.nii.gz", b"hello " * 99), "of another format"),
    "zipped text": (lambda d: write_bytes(d / "a.nii.gz", gzip.compress(b"hello " * 99)), "of another format"),
    "empty nii.gz": (lambda d: write_bytes(d / "a.nii.gz", b""), "wanted a whole NIfTI file"),
    "text nrrd": (lambda d: write_bytes(d / "a.nrrd", b"hello " * 99), "of another format"),
    "nan": (lambda d: write_nifti(d / "a.nii.gz", STRAIGHT, array=with_value(np.nan)), "has 2 values that are NaN"),
    "inf": (lambda d: write_nifti(d / "a.nii.gz", STRAIGHT, array=with_value(np.inf)), "has 2 values that are NaN"),
    "4-D": (
        lambda d: write_nifti(d / "a.nii.gz", STRAIGHT, array=np.stack([HU, HU], axis=-1)),
        r"has 4 axes \(7 x 6 x 5 x 2\)",
    ),
    "png": (lambda d: write_bytes(d / "a.png", b"\x89PNG" * 99), "is not a volume; wanted .nii"),
    "empty folder": (lambda d: d, "holds no DICOM images"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    path = make(tmp_path)
    with pytest.raises(MedsegError, match=words) as caught:
        load_volume(path)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(str(path)) and "wanted" in said and len(said) - len(str(path)) < 160


def test_colour_and_several_volumes_in_nrrd_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6, 7, 3), np.uint8), isVector=True), str(tmp_path / "c.nrrd"))
    with pytest.raises(MedsegError, match="has 4 axes"):
        load_volume(tmp_path / "c.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 5, 6, 7), np.int16), isVector=False), str(tmp_path / "d.nrrd"))
    with pytest.raises(MedsegError, match="has 4 axes"):
        load_volume(tmp_path / "d.nrrd")


def test_a_volume_without_voxel_size_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(HU, None)
    image.header.set_sform(np.diag([0.0, 0, 0, 1]), code=1)
    nib.save(nib.Nifti1Image(HU, None, image.header), tmp_path / "a.nii.gz")
    with pytest.raises(MedsegError, match="no voxel size"):
        load_volume(tmp_path / "a.nii.gz")


def test_names_of_volume_files() -> None:
    yes = ["a.nii", "a.nii.gz", "A.NII.GZ", "a.b.nrrd", "a.nhdr", "a.mha", "a.mhd"]
    no = ["a.gz", "._a.nii.gz", "a.dcm", "a.png", "nii", "a.nii.txt"]
    assert all(is_volume_file(Path(name)) for name in yes) and not any(is_volume_file(Path(name)) for name in no)
    reader = SimpleITKReader()
    assert reader.verify_suffix("x.NRRD") and not reader.verify_suffix("x.nii") and not reader.verify_suffix(["x.mha"])


def test_load_volumed_in_a_compose(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "a.nii.gz", STRAIGHT)
    label = write_nifti(tmp_path / "GT.nii.gz", STRAIGHT, array=(HU % 5).astype(np.uint8))
    load = Compose([LoadVolumed(("image", "label"), allow_missing_keys=True)])
    both = load({"image": image, "label": label, "case": "a"})
    assert both["image"].dtype == torch.float32 and both["label"].dtype == torch.uint8 and both["case"] == "a"
    assert load({"image": image, "label": None})["label"] is None
    assert "label" not in load({"image": image})
    with pytest.raises(MedsegError, match="case a has no label"):
        LoadVolumed(("image", "label"))({"image": image, "label": None, "case": "a"})


def test_reading_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in ("a.nii.gz", "a.mha"):
        writer = write_nifti if suffix.endswith("gz") else write_simpleitk
        load_volume(writer(tmp_path / suffix, STRAIGHT))
    assert capfd.readouterr() == ("", "")
