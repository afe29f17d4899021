"""dataset.zip gives back what was written, and an archive that is anything else is refused in one line."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg_gan.data.dataset_zip import DatasetZip, write_dataset_zip
from medseg_gan.errors import MedsegError


def images(count: int = 5, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *(shape or (16, 16)))).astype(np.uint8)


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, format="PNG")
    return buffer.getvalue()


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def archive(path: Path, files: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as target:
        for name, data in files.items():
            target.writestr(name, data)
    return path


GOOD = {f"00000/img{k:08d}.png": png(image) for k, image in enumerate(images(2))}
FIRST, SECOND = GOOD


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 3)])
def test_an_archive_gives_back_what_was_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    written = images(5, *shape)
    assert write_dataset_zip(tmp_path / "a.zip", written) == 5
    data = DatasetZip(tmp_path / "a.zip")
    assert len(data) == 5 and data.labels is None and data.label_dim == 0
    for k, image in enumerate(written):
        channels_first = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        np.testing.assert_array_equal(data.pixels(k), channels_first)
        assert torch.equal(data[k], torch.from_numpy(channels_first / np.float32(127.5) - np.float32(1)))
        assert data[k].min() >= -1 and data[k].max() <= 1


def test_the_layout_is_the_published_one(tmp_path: Path) -> None:
    write_dataset_zip(tmp_path / "a.zip", (images(1)[0] for _ in range(1002)), labels=[0, 1] * 501)
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        names = file.namelist()
        assert (names[0], names[1001], names[-1]) == ("00000/img00000000.png", "00001/img00001001.png", "dataset.json")
        assert all(member.compress_type == zipfile.ZIP_STORED for member in file.infolist())
        assert json.loads(file.read("dataset.json"))["labels"][1001] == ["00001/img00001001.png", 1]
        assert len(file.read(names[0])) > 256  # the pixels are not packed inside the PNG either


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_dataset_zip(tmp_path / name, images(), labels=[1, 0, 2, 1, 0])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_classes_become_one_hot_and_vectors_stay(tmp_path: Path) -> None:
    write_dataset_zip(tmp_path / "a.zip", images(3), labels=[2, 0, 2])
    labels = DatasetZip(tmp_path / "a.zip").labels
    assert labels is not None and labels.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]
    write_dataset_zip(tmp_path / "a.zip", images(2), labels=[[0.5, -1.0], [2.0, 3.0]])
    labels = DatasetZip(tmp_path / "a.zip").labels
    assert labels is not None and labels.tolist() == [[0.5, -1.0], [2.0, 3.0]]


def test_an_archive_opened_here_reads_in_another_process(tmp_path: Path) -> None:
    write_dataset_zip(tmp_path / "a.zip", images())
    data = DatasetZip(tmp_path / "a.zip")
    assert torch.equal(pickle.loads(pickle.dumps(data))[3], data[3])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([np.zeros((16, 16), np.uint16)], "uint16"),
        ([np.zeros((16, 8), np.uint8)], "square"),
        ([np.zeros((12, 12), np.uint8)], "power of two"),
        ([np.zeros((16, 16), np.uint8), np.zeros((8, 8), np.uint8)], "one shape"),
        ([np.zeros((16, 16, 4), np.uint8)], "wanted uint8"),
        ([], "no images"),
    ],
)
def test_unusable_images_are_not_written(tmp_path: Path, wrong: list[np.ndarray], match: str) -> None:
    with pytest.raises(MedsegError, match=match):
        write_dataset_zip(tmp_path / "a.zip", wrong)
    assert not list(tmp_path.iterdir())


def test_labels_must_be_those_of_the_images(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="5 images and 2 labels"):
        write_dataset_zip(tmp_path / "a.zip", images(), labels=[0, 1])


BAD_ARCHIVES = {
    "traversal": ({**GOOD, "../../evil.png": png(images(1)[0])}, "leads out"),
    "absolute": ({**GOOD, "/etc/evil.png": png(images(1)[0])}, "leads out"),
    "backslash": ({**GOOD, "..\\evil.png": png(images(1)[0])}, "leads out"),
    "drive": ({**GOOD, "C:/evil.png": png(images(1)[0])}, "leads out"),
    "no images": ({"readme.txt": b"hello"}, "no images"),
    "no picture": ({FIRST: b"this is no picture"}, "no PNG image"),
    "cut picture": ({FIRST: GOOD[FIRST][:-60]}, "damaged"),
    "16 bits": ({FIRST: png(np.zeros((16, 16), np.uint16))}, "16 bits"),
    "16 bits RGB": ({FIRST: raw_png(4, 4, 16, 2, (b"\0" + bytes(24)) * 4)}, "16 bits"),
    "palette": ({FIRST: png(images(1)[0], "P")}, "wanted 8-bit"),
    "alpha": ({FIRST: png(images(1)[0], "RGBA")}, "wanted 8-bit"),
    "not square": ({FIRST: png(images(1, 16, 8)[0])}, "square"),
    "giant": ({FIRST: raw_png(2**20, 2**20, 8, 0, b"\0")}, "power of two from 4 to 4096|damaged"),
    "labels cut": ({**GOOD, "dataset.json": b'{"labels": [['}, "not valid JSON"),
    "labels deep": ({**GOOD, "dataset.json": b"[" * 100_000}, "not valid JSON"),
    "labels odd": ({**GOOD, "dataset.json": b'{"labels": {"a": 1}}'}, "wanted as"),
    "label missing": ({**GOOD, "dataset.json": json.dumps({"labels": [[FIRST, 1]]}).encode()}, "no label for"),
    "labels mixed": ({**GOOD, "dataset.json": json.dumps({"labels": [[FIRST, 1], [SECOND, [1.0]]]}).encode()}, "kinds"),
    "class giant": (
        {**GOOD, "dataset.json": json.dumps({"labels": [[FIRST, 1], [SECOND, 10**9]]}).encode()},
        "classes from",
    ),
    "label NaN": (
        {**GOOD, "dataset.json": f'{{"labels": [["{FIRST}", [NaN]], ["{SECOND}", [1]]]}}'.encode()},
        "finite",
    ),
}


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_bad_archives_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    files, match = BAD_ARCHIVES[name]
    with pytest.raises(MedsegError, match=match) as caught:
        DatasetZip(archive(tmp_path / "bad.zip", files))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def test_images_of_other_sizes_are_refused_when_read(tmp_path: Path) -> None:
    data = DatasetZip(archive(tmp_path / "a.zip", {FIRST: GOOD[FIRST], SECOND: png(images(1, 8, 8)[0])}))
    with pytest.raises(MedsegError, match="one shape"):
        data[1]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.zip", {FIRST: bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(MedsegError, match="unpacks to 50000000 bytes"):
        DatasetZip(bomb)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all"])
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(MedsegError, match="no zip archive"):
        DatasetZip(tmp_path / "a.zip")
    with pytest.raises(MedsegError, match="folder"):
        DatasetZip(tmp_path)
    with pytest.raises(MedsegError, match="does not exist"):
        DatasetZip(tmp_path / "none.zip")


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    write_dataset_zip(tmp_path / "a.zip", images())
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MedsegError, match="cut off"):
        DatasetZip(tmp_path / "a.zip")
