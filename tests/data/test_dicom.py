"""DICOM series: any order, single and multi-frame, padding, compression, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writer import image_header, save, single_frames, write_multi_frame, write_series
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, RLELossless, generate_uid

from medseg_gan.data.dicom import dicom_patient, find_dicom_folders
from medseg_gan.data.volumes import load_volume
from medseg_gan.errors import MedsegError

SHAPE = (7, 6, 5)
AFFINE = np.array([[-1.5, 0, 0, 40], [0, -1.25, 0, 30], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])  # LPS axes, RAS mm


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(1).integers(-900, 1500, SHAPE).astype(np.float32)


def refusal(path: Path) -> str:
    """The one line with which a path is refused."""
    with pytest.raises(MedsegError) as caught:
        load_volume(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and ";" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_file_order_gives_the_same_volume(tmp_path: Path, hu: np.ndarray, seed: int) -> None:
    slices = single_frames(hu, AFFINE)
    order = np.random.default_rng(seed).permutation(len(slices))
    for number, index in enumerate(order):
        slices[index].InstanceNumber = number
        save(slices[index], tmp_path / f"{number}.dcm")
    (tmp_path / "notes.txt").write_text("not DICOM")
    volume = load_volume(tmp_path)
    assert np.array_equal(volume[0], hu) and np.allclose(volume.affine, AFFINE)


def test_multi_frame_orders_frames_and_rescales_each(tmp_path: Path, hu: np.ndarray) -> None:
    file = write_multi_frame(tmp_path / "enhanced.dcm", hu, AFFINE, order=[3, 0, 4, 1, 2])
    for path in (file, tmp_path):
        volume = load_volume(path)
        assert np.array_equal(volume[0], hu) and np.allclose(volume.affine, AFFINE)


def test_rescale_padding_and_clipping(tmp_path: Path, hu: np.ndarray) -> None:
    hu[0, 0], hu[1, 1] = 3070, -1000
    slices = single_frames(hu, AFFINE, slope=2, intercept=-1000, PixelPaddingValue=63536)  # -2000 written as unsigned
    for header in slices:
        header["PixelPaddingValue"].VR = "US"
        stored = np.frombuffer(header.PixelData, np.int16).reshape(SHAPE[1], SHAPE[0]).copy()
        stored[2, 2] = -2000
        header.PixelData = stored.tobytes()
    volume = load_volume(write_series(tmp_path, slices))[0].numpy()
    wanted = np.floor_divide(hu, 2) * 2
    inside = np.ones(SHAPE, bool)
    inside[2, 2] = False
    assert (volume[2, 2] == -1024).all() and np.abs(volume - wanted)[inside].max() <= 2


def test_padding_range_and_unsigned_values(tmp_path: Path, hu: np.ndarray) -> None:
    slices = single_frames(hu, AFFINE, PixelRepresentation=0, PixelPaddingValue=5000, PixelPaddingRangeLimit=6000)
    for header in slices:
        header["PixelPaddingValue"].VR = header["PixelPaddingRangeLimit"].VR = "US"
        stored = np.frombuffer(header.PixelData, np.uint16).reshape(SHAPE[1], SHAPE[0]).copy()
        stored[0, :3] = 5000, 5500, 6000
        header.PixelData = stored.tobytes()
    volume = load_volume(write_series(tmp_path, slices))[0].numpy()
    assert (volume[:3, 0] == -1024).all() and np.array_equal(volume[3:], hu[3:])


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000", "RLE"])
def test_compressed_slices_equal_uncompressed_ones(tmp_path: Path, compressor: str) -> None:
    """JPEG lossless only GDCM decodes here; RLE and JPEG 2000 pydicom may."""
    hu = np.random.default_rng(1).integers(-900, 1500, (40, 36, 3)).astype(np.float32)  # JPEG 2000 needs some width
    slices = single_frames(hu, AFFINE, PixelPaddingValue=-2000)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    for header in slices:
        header["PixelPaddingValue"].VR = "SS"
        if compressor == "RLE":
            header.compress(RLELossless, generate_instance_uid=False)
            continue
        stored = np.frombuffer(header.PixelData, np.int16).reshape(1, 36, 40).copy()
        stored[0, 3, 3] = -2000
        writer.SetFileName(str(tmp_path / "one.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(stored))
        packed = dcmread(tmp_path / "one.dcm")
        header.PixelData, header["PixelData"].is_undefined_length = packed.PixelData, True
        header.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    assert slices[0].file_meta.TransferSyntaxUID.is_compressed
    volume = load_volume(write_series(tmp_path / "series", slices))
    wanted = hu.copy()
    if compressor != "RLE":
        wanted[3, 3] = -1024
    assert np.array_equal(volume[0], wanted)


def test_gdcm_decodes_a_compressed_multi_frame_file(tmp_path: Path, hu: np.ndarray) -> None:
    file = write_multi_frame(tmp_path / "enhanced.dcm", hu, AFFINE, order=[4, 2, 0, 1, 3])
    data = dcmread(file)
    frames = []
    for stored in data.pixel_array:
        image = sitk.GetImageFromArray(stored[None])
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "one.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(image)
        packed = dcmread(tmp_path / "one.dcm")
        frames += generate_frames(packed.PixelData, number_of_frames=1)
    data.PixelData = encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    save(data, file)
    assert np.array_equal(load_volume(file)[0], hu)


def test_an_undecodable_syntax_is_named(tmp_path: Path, hu: np.ndarray) -> None:
    slices = single_frames(hu, AFFINE)
    for header in slices:
        header.PixelData = encapsulate([b"\xff\x4f\xff\x51no codestream"])
        header["PixelData"].is_undefined_length = True
        header.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.91")
    assert "JPEG 2000 Image Compression (1.2.840.10008.1.2.4.91)" in refusal(write_series(tmp_path, slices))


def test_files_without_preamble_or_meta_header_are_read(tmp_path: Path, hu: np.ndarray) -> None:
    for k, header in enumerate(single_frames(hu, AFFINE)):
        del header.file_meta
        header.save_as(tmp_path / f"IM{k}", implicit_vr=True, little_endian=True)
    assert np.array_equal(load_volume(tmp_path)[0], hu)


def test_a_gantry_tilt_is_kept_in_the_affine(tmp_path: Path, hu: np.ndarray) -> None:
    tilted = AFFINE.copy()
    tilted[1, 2] = 0.6
    volume = load_volume(write_series(tmp_path, single_frames(hu, tilted)))
    assert np.array_equal(volume[0], hu) and np.allclose(volume.affine, tilted, atol=1e-5)


def test_a_lone_slice_has_depth_one(tmp_path: Path, hu: np.ndarray) -> None:
    volume = load_volume(write_series(tmp_path, single_frames(hu[:, :, :1], AFFINE)))
    assert volume.shape == (1, 7, 6, 1) and np.allclose(volume.affine, AFFINE)


def test_two_series_are_refused_by_name_without_uids(tmp_path: Path, hu: np.ndarray) -> None:
    other = generate_uid()
    soft = single_frames(hu[:, :, :2], AFFINE, series=other, SeriesNumber=4, SeriesDescription="soft")
    write_series(tmp_path / "a", single_frames(hu, AFFINE))
    write_series(tmp_path / "a" / "b", soft)
    for file in (tmp_path / "a" / "b").iterdir():
        file.rename(tmp_path / "a" / f"soft{file.name}")
    said = refusal(tmp_path / "a")
    assert 'number 3 "lung" (5 files)' in said and 'number 4 "soft" (2 files)' in said and str(other) not in said


@pytest.mark.parametrize("count", [3, 5])
def test_a_missing_slice_is_located(tmp_path: Path, hu: np.ndarray, count: int) -> None:
    slices = single_frames(hu[:, :, :count], AFFINE)
    del slices[1]
    if count == 3:  # two steps are needed to see that one is doubled
        slices += single_frames(hu[:, :, :4], AFFINE)[3:]
    said = refusal(write_series(tmp_path, slices))
    assert "1 gap of missing slices" in said and "between -100.00 and -95.00 mm" in said


def test_other_faults_of_a_series_are_refused(tmp_path: Path, hu: np.ndarray) -> None:
    def change(name: str, index: int, **values: object) -> Path:
        slices = single_frames(hu, AFFINE)
        for keyword, value in values.items():
            setattr(slices[index], keyword, value)
        return write_series(tmp_path / name, slices)

    assert "twice" in refusal(change("twice", 2, ImagePositionPatient=[-40, -30, -100]))
    assert "uneven" in refusal(change("uneven", 4, ImagePositionPatient=[-40, -30, -89.4]))
    assert "shifted" in refusal(change("shifted", 2, ImagePositionPatient=[-35, -30, -95]))
    assert "direction" in refusal(change("direction", 1, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]))
    assert "size" in refusal(change("size", 1, PixelSpacing=[2, 2]))
    assert "RescaleSlope" in refusal(change("slope", 1, RescaleSlope=None))
    assert "modality MR" in refusal(write_series(tmp_path / "mr", single_frames(hu, AFFINE, Modality="MR")))


def test_empty_truncated_and_unpositioned(tmp_path: Path, hu: np.ndarray) -> None:
    (tmp_path / "empty").mkdir()
    assert "no DICOM images" in refusal(tmp_path / "empty")
    file = next(write_series(tmp_path / "cut", single_frames(hu[:, :, :1], AFFINE)).iterdir())
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(MedsegError, match="truncated"):
        load_volume(tmp_path / "cut")
    save(image_header(np.zeros((4, 8, 8)), NumberOfFrames=4), tmp_path / "capture" / "1.dcm")
    with pytest.raises(MedsegError, match="4 frames without positions"):
        load_volume(tmp_path / "capture")


def test_folders_and_patients_are_found(tmp_path: Path, hu: np.ndarray) -> None:
    write_series(tmp_path / "a" / "ct", single_frames(hu, AFFINE))
    write_series(tmp_path / "b", single_frames(hu, AFFINE, PatientID=""))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.dcm").write_text("only the name says DICOM, but the text is long enough to look at it " * 9)
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert find_dicom_folders(tmp_path) == [tmp_path / "a" / "ct", tmp_path / "b"]
    assert dicom_patient(tmp_path / "a" / "ct") == "P-17" and dicom_patient(tmp_path / "b") == "b"


def test_real_series_equal_their_converted_volumes() -> None:
    root = os.environ.get("MEDSEG_GAN_REAL_DATA")
    if not root:
        pytest.skip("MEDSEG_GAN_REAL_DATA is unset: no real CT to read")
    ct = Path(root) / "ct"
    truth = ct / "lungs_truth"
    folder, file = load_volume(truth / "ct-64Dicom"), load_volume(truth / "ct-64.nrrd")
    assert np.array_equal(folder, file) and np.allclose(folder.affine, file.affine, atol=1e-3)

    slices = load_volume(ct / "dicom" / "CMB-CRC-01068")
    halved = slices[0].numpy().reshape(256, 2, 256, 2, -1).mean(axis=(1, 3))
    whole = load_volume(ct / "unlabelled" / "volumes" / "CMB-CRC-01068.nii.gz")
    first = round(float((slices.affine[2, 3] - whole.affine[2, 3]) / whole.affine[2, 2]))
    same = whole[0, :, :, first : first + slices.shape[-1]].numpy()
    moved = slices.affine.numpy() @ [0.5, 0.5, 0, 1]  # centre of the first 2 x 2 pixels
    assert np.allclose(moved, whole.affine.numpy() @ [0, 0, first, 1], atol=1e-2)
    edge = (same <= -1000) | (halved <= -1000)  # there the means were taken before or after clipping the padding
    assert np.abs(same - halved)[~edge].max() <= 1
