"""Image files of every kind become what they show, and bad ones one clear line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gan.data.picture_files import (
    binarise,
    check_box,
    crop_resize,
    inside,
    load_image,
    read_lines,
    read_mask,
    to_channels,
)
from medseg_gan.errors import MedsegError

COLOUR = np.zeros((4, 6, 3), np.uint8)
COLOUR[:, :3] = (200, 100, 50)


def saved(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_every_mode_becomes_rgb_or_grey(tmp_path):
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    for name, array in {
        "grey": grey,
        "rgba": np.dstack([COLOUR, np.full((4, 6), 7, np.uint8)]),
        "deep": grey.astype(np.uint16) * 257,
        "bit": grey > 100,
        "rgb": COLOUR,
    }.items():
        image = load_image(saved(tmp_path / f"{name}.png", array))
        rgb, one = np.asarray(to_channels(image, 3, tmp_path)), np.asarray(to_channels(image, 1, tmp_path))
        assert (rgb.shape, one.shape, rgb.dtype, one.dtype) == ((4, 6, 3), (4, 6), np.uint8, np.uint8)
        if name in ("rgb", "rgba"):
            assert np.array_equal(rgb, COLOUR)
        elif name != "bit":
            assert np.array_equal(one, grey)
            assert np.array_equal(rgb, np.dstack([grey] * 3))
    palette = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(np.asarray(to_channels(load_image(tmp_path / "palette.png"), 3, tmp_path)), COLOUR)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_grey_becomes_the_nearest_of_256(tmp_path, name):
    deep = np.array([[0, 100, 200, 40000, 65300, 65535]], np.uint16)
    image = load_image(saved(tmp_path / name, deep))
    grey = np.asarray(to_channels(image, 1, tmp_path / name))
    assert np.array_equal(grey, np.round(deep / 65535 * 255))
    assert np.array_equal(np.asarray(to_channels(image, 3, tmp_path / name)), np.dstack([grey] * 3))


@pytest.mark.parametrize(("top", "bits"), [(1023, 10), (4095, 12), (16383, 14)])
def test_16_bit_grey_that_fills_fewer_bits_is_refused(tmp_path, top, bits):
    path = saved(tmp_path / "scan.png", np.linspace(0, top, 24).reshape(4, 6).astype(np.uint16))
    for channels in (1, 3):
        with pytest.raises(MedsegError, match=rf"scan\.png has 16 bits .* above {top} \({bits} bits\)") as caught:
            to_channels(load_image(path), channels, path)
        assert "\n" not in str(caught.value)


def test_a_black_16_bit_picture_is_black(tmp_path):
    path = saved(tmp_path / "black.png", np.zeros((4, 6), np.uint16))
    assert not np.asarray(to_channels(load_image(path), 1, path)).any()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[-1024, 3071]], np.int32), "from -1024 to 3071, wanted"),
        (np.array([[0, 70000]], np.int32), "from 0 to 70000, wanted"),
        (np.array([[0, 0.5]], np.float32), "from 0 to 0.5 in floating point, wanted"),
    ],
)
def test_grey_values_that_8_bits_would_cut_are_refused(tmp_path, values, words):
    path = saved(tmp_path / "scan.tif", values)
    with pytest.raises(MedsegError, match=rf"scan\.tif holds grey values {words}"):
        to_channels(load_image(path), 1, path)


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = saved(tmp_path / "turned.png", COLOUR, exif=exif)
    assert np.array_equal(np.asarray(load_image(path)), np.rot90(COLOUR, -1))


def test_masks_are_cut_at_half_their_range():
    levels = np.array([[0, 51, 127, 128, 204, 255]], np.uint8)
    assert binarise(Image.fromarray(levels), 0.5).tolist() == [[False, False, False, True, True, True]]
    assert binarise(Image.fromarray(levels), 0.0).tolist() == [[False, True, True, True, True, True]]
    deep = np.array([[0, 32767, 32768]], np.uint16)
    assert binarise(Image.fromarray(deep), 0.5).tolist() == [[False, False, True]]
    assert binarise(Image.fromarray(np.array([[0, 1]], np.uint8)), 0.5).tolist() == [[False, True]]
    assert binarise(Image.fromarray(np.array([[False, True]])), 0.5).tolist() == [[False, True]]
    assert binarise(Image.fromarray(np.dstack([levels, levels * 0, levels * 0])), 0.5).sum() == 3


def test_the_short_side_is_resized_and_the_centre_kept():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (8, 20, 3)).astype(np.uint8)
    whole = np.asarray(Image.fromarray(wide).resize((10, 4), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(crop_resize(Image.fromarray(wide), 4)), whole[:, 3:7])
    high = np.asarray(crop_resize(Image.fromarray(wide.transpose(1, 0, 2).copy()), 4)).astype(int)
    assert np.abs(high - whole[:, 3:7].transpose(1, 0, 2)).max() <= 1
    assert np.array_equal(np.asarray(crop_resize(Image.fromarray(wide[:, :8]), 8)), wide[:, :8])


def test_resizing_averages():
    checks = np.indices((32, 32)).sum(0) % 2 * np.uint8(255)
    small = np.asarray(crop_resize(Image.fromarray(checks.astype(np.uint8)), 8)).astype(int)
    assert np.abs(small - 128).max() < 8


def test_cut_off_and_foreign_files_are_one_line(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(whole, "JPEG")
    contents = {
        "half.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
        "text.jpg": b"<html>404</html>",
        "empty.png": b"",
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MedsegError, match=f"{name} cannot be read as a JPEG") as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(MedsegError, match="does not exist"):
        load_image(tmp_path / "none.png")


@pytest.mark.parametrize("side", [9000, 60000])
def test_a_small_file_that_claims_a_huge_picture_is_refused(tmp_path, side):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(MedsegError, match=r"bomb\.png claims"):
        load_image(tmp_path / "bomb.png")


def test_a_mask_of_another_size_is_refused(tmp_path):
    mask = saved(tmp_path / "m.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(MedsegError, match=r"m\.png has 5 x 4 pixels, its picture p\.jpg has 6 x 4"):
        read_mask(mask, 0.5, Image.fromarray(COLOUR), Path("p.jpg"))


def test_boxes_outside_the_picture_are_refused():
    image = Image.fromarray(COLOUR)  # 6 x 4
    check_box((0, 0, 6, 4), image, Path("a"))
    check_box((1, 0, 6.5, 4), image, Path("a"))  # published boxes are not exact
    for box in ((4, 0, 6, 4), (-3, 0, 3, 3), (0, 3, 2, 4)):
        with pytest.raises(MedsegError, match="lies outside"):
            check_box(box, image, Path("a"))


def test_names_that_lead_elsewhere_are_refused():
    assert inside("a/b.jpg", Path("list.txt")) == "a/b.jpg"
    for name in ("../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "a\\b.jpg", "."):
        with pytest.raises(MedsegError, match="outside the dataset"):
            inside(name, Path("list.txt"))


def test_lines_are_numbered_and_bad_text_is_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone\r\n\n two \n", encoding="utf-8")
    assert read_lines(tmp_path / "a.txt") == [(1, "one"), (3, "two")]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MedsegError, match="UTF-8"):
        read_lines(tmp_path / "b.txt")
    with pytest.raises(MedsegError, match="does not exist"):
        read_lines(tmp_path / "c.txt")
