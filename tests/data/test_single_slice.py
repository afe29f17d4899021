"""One slice on its own is the slice that a whole run would have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from chest import affine, chest, save
from dicom_writer import save as save_dicom
from dicom_writer import single_frames
from PIL import Image

from medseg_gan.data.preparation import Preprocessing, prepare_case
from medseg_gan.data.single_slice import is_picture, load_picture, load_slice
from medseg_gan.data.slices import to_unit
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.labels import lookup_table

WINDOW = (-1000.0, 400.0)


@pytest.mark.parametrize("how", [{"size": 32}, {"size": 48, "crop": 0.8}, {"size": 32, "crop": 0.9, "spacing": 4.0}])
@pytest.mark.parametrize("axes", ["LPS", "RAS"])
def test_a_slice_is_what_prepare_makes_of_it(tmp_path: Path, how: dict[str, Any], axes: str) -> None:
    hu, truth = chest(64, 3)
    save(tmp_path / "image.nii.gz", hu, affine(), axes)
    save(tmp_path / "label.nii.gz", truth, affine(), axes)
    case: Any = {"case": "c", "patient": "p", "image": tmp_path / "image.nii.gz", "label": tmp_path / "label.nii.gz"}
    done = prepare_case(case, tmp_path / "part.npz", Preprocessing(lookup_table("paper"), **how), WINDOW)
    images = np.load(tmp_path / "part.npz")["images"]
    assert len(done.slices) == 3
    for image, position in zip(images, done.slices, strict=True):
        alone = load_slice(tmp_path / "image.nii.gz", window=WINDOW, index=position, **how)
        assert alone.shape == (1, how["size"], how["size"]) and alone.dtype == torch.float32
        np.testing.assert_allclose(alone[0].numpy(), to_unit(image, WINDOW), atol=2 / 1400 + 1e-6)  # 1 HU of rounding


def test_formats_of_the_same_volume_give_the_same_slice(tmp_path: Path) -> None:
    hu = chest(32, 3)[0]
    save(tmp_path / "v.nii.gz", hu, affine())
    sitk.WriteImage(sitk.ReadImage(tmp_path / "v.nii.gz"), tmp_path / "v.nrrd")
    for number, header in enumerate(single_frames(hu, affine())):
        save_dicom(header, tmp_path / "series" / f"{number}.dcm")
    wanted = load_slice(tmp_path / "v.nii.gz", size=16, window=WINDOW, index=2)
    for name in ("v.nrrd", "series"):
        assert torch.equal(load_slice(tmp_path / name, size=16, window=WINDOW, index=2), wanted)


def test_a_volume_of_one_slice_needs_no_index(tmp_path: Path) -> None:
    save(tmp_path / "one.nii.gz", chest(32, 1)[0], affine())
    one = load_slice(tmp_path / "one.nii.gz", size=16, window=WINDOW)
    assert torch.equal(one, load_slice(tmp_path / "one.nii.gz", size=16, window=WINDOW, index=0))


@pytest.mark.parametrize(
    ("index", "told"), [(None, "has 3 slices; choose one with --index"), (3, "wanted 0 to 2"), (-1, "wanted 0 to 2")]
)
def test_a_slice_that_is_not_there_is_one_line(tmp_path: Path, index: int | None, told: str) -> None:
    save(tmp_path / "v.nii.gz", chest(32, 3)[0], affine())
    with pytest.raises(UsageError, match=told):
        load_slice(tmp_path / "v.nii.gz", size=16, window=WINDOW, index=index)


def test_stretched_pixels_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(chest(32, 1)[0], np.diag([-1.0, -2.0, 3.0, 1.0])), tmp_path / "v.nii.gz")
    with pytest.raises(MedsegError, match="wanted square ones"):
        load_slice(tmp_path / "v.nii.gz", size=16, window=WINDOW)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("L", 3), ("RGB", 1), ("RGB", 3)])
def test_a_picture_becomes_the_network_s_channels(tmp_path: Path, mode: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (16, 16) if mode == "L" else (16, 16, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "p.png")
    image = load_picture(tmp_path / "p.png", 16, channels)
    assert image.shape == (channels, 16, 16)
    if (mode == "L") == (channels == 1):
        pixels = (image.permute(1, 2, 0).numpy() + 1) * 127.5
        np.testing.assert_allclose(pixels.squeeze(), values, atol=1e-3)
    assert load_picture(tmp_path / "p.png", 8, channels).shape == (channels, 8, 8)


def test_pictures_are_told_from_volumes(tmp_path: Path) -> None:
    (tmp_path / "series.png").mkdir()
    assert is_picture(Path("a.PNG")) and is_picture(Path("b.jpeg"))
    assert not is_picture(Path("c.nii.gz")) and not is_picture(tmp_path / "series.png")
