"""Bad pictures through the command line: one clear line, nothing lost, and mended the same command goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from chest import affine, chest, save
from command_line import Command, Ended, files, one_line
from PIL import Image
from scipy.io import savemat

from medseg_gan.data.phantom.birds import write_birds_phantom

PREPARE = ("--until", "prepare")
BEGUN = {"lock", "recipe.yaml", "01-prepare/started.json"}


@pytest.fixture
def layered(command: Command) -> Callable[..., Ended]:
    """`medseg-gan recipe cub_layered --profile smoke WORDS`."""
    return partial(command, name="cub_layered")


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures in CUB's layout: 16 train, 2 val, 6 test."""
    root = tmp_path_factory.mktemp("birds") / "data"
    write_birds_phantom(root, train=16, val=2, test=6, size=16)
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures with masks in a plain folder, four of them for the test."""
    root = tmp_path_factory.mktemp("plain") / "data"
    rng = np.random.default_rng(0)
    for k in range(20):
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 3 + k % 4 : 11] = 255
        for kind, pixels in (("images", rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{k:02d}.png")
    (root / "splits").mkdir()
    (root / "splits" / "test.txt").write_text("\n".join(f"{k:02d}" for k in range(4)))
    return root


def lost_list(data: Path) -> None:
    (data / "images.txt").unlink()


def half_a_split(data: Path) -> None:
    path = data / "train_val_test_split.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:10]))


def strange_split(data: Path) -> None:
    path = data / "train_val_test_split.txt"
    path.write_text("1 3\n" + "".join(path.read_text().splitlines(keepends=True)[1:]))


def no_segmentations(data: Path) -> None:
    shutil.rmtree(data / "segmentations")


def unmasked_test_picture(data: Path) -> None:
    numbers = dict(line.split() for line in (data / "train_val_test_split.txt").read_text().splitlines())
    names = dict(line.split() for line in (data / "images.txt").read_text().splitlines())
    name = next(names[key] for key, split in numbers.items() if split == "2")
    (data / "segmentations" / name).with_suffix(".png").unlink()


def gap_in_classes(data: Path) -> None:
    lines = (data / "classes.txt").read_text().splitlines()
    (data / "classes.txt").write_text("\n".join(line for line in lines if not line.startswith("5 ")))


def unreadable_picture(data: Path) -> None:
    """A JPEG cut off, under the ending of a PNG as some downloads have it."""
    path = next((data / "images").rglob("*.png"))
    Image.open(path).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:300])


def box_outside(data: Path) -> None:
    lines = (data / "bounding_boxes.txt").read_text().splitlines()
    (data / "bounding_boxes.txt").write_text("\n".join(["1 3 3 40 4", *lines[1:]]))


def no_foreground(data: Path) -> None:
    for path in (data / "segmentations").rglob("*.png"):
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)


def mask_of_another_size(data: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(next((data / "segmentations").rglob("*.png")))


def ct(data: Path) -> None:
    shutil.rmtree(data)
    save(data / "train" / "Patient_01" / "Patient_01.nii.gz", chest(64, 2)[0], affine())


def empty(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


FAULTS: dict[Callable[[Path], None], tuple[str, ...]] = {
    lost_list: ("images.txt does not exist; copy it from the published dataset",),
    half_a_split: ("train_val_test_split.txt has nothing for 14 of the 24 pictures", "same release"),
    strange_split: ("holds split 3, wanted 0 (train), 1 (val) or 2 (test)",),
    no_segmentations: ("has no segmentations/ folder; unpack",),
    unmasked_test_picture: ("1 test pictures have no mask", "copy the masks or take the pictures out of the test"),
    gap_in_classes: ("class ids leave a gap, 5 is missing below 12",),
    unreadable_picture: (".png cannot be read as a JPEG", "copy it again or remove it"),
    box_outside: ("has 16 x 16 pixels, its box x 3, y 3, width 40, height 4 lies outside; correct",),
    no_foreground: ("none of the 24 masks", "has foreground; wanted 255"),
    mask_of_another_size: (".png has 8 x 8 pixels, its picture", "has 16 x 16"),
    ct: ("not laid out as a picture dataset but holds volumes (train/Patient_01/", "prepare.layout=ct"),
    empty: ("is not laid out as a picture dataset",),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faulty_pictures(
    fault: Callable[[Path], None], birds: Path, tmp_path: Path, layered: Callable[..., Ended]
) -> None:
    """A fault leaves nothing but the mark of a beginning (and cut-off arrays); with whole data it goes on."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(birds, data)
    fault(data)
    one_line(layered("--data", data, "--out", run, *PREPARE), 1, *FAULTS[fault])
    left = files(run)
    assert left >= BEGUN and "01-prepare/pictures.json" not in left and "01-prepare/done.json" not in left
    shutil.rmtree(data)
    shutil.copytree(birds, data)
    assert layered("--data", data, "--out", run, *PREPARE).code == 0
    assert {"01-prepare/done.json", "01-prepare/pictures.json"} <= files(run)


def test_a_derived_split_is_told(birds: Path, tmp_path: Path, layered: Callable[..., Ended]) -> None:
    """CUB as published has no split of three; ReDO's file is an extra download."""
    data = tmp_path / "data"
    shutil.copytree(birds, data)
    (data / "train_val_test_split.txt").unlink()
    ended = layered("--data", data, "--out", tmp_path / "run", *PREPARE)
    assert ended.code == 0
    assert any("the split is derived from the picture ids" in line for line in [*ended.out, *ended.err])


def test_a_mat_file_of_another_version(tmp_path: Path, layered: Callable[..., Ended]) -> None:
    data = tmp_path / "dogs"
    (data / "lists").mkdir(parents=True)
    (data / "Images" / "n01-Terrier").mkdir(parents=True)
    for split, count in (("train", 16), ("test", 2)):
        names = [f"n01-Terrier/{split}{k}.png" for k in range(count)]
        for name in names:
            Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(data / "Images" / name)
        savemat(data / "lists" / f"{split}_list.mat", {"file_list": np.array(names, dtype=object).reshape(-1, 1)})
    words = ("--data", data, "--out", tmp_path / "run", *PREPARE)
    good = (data / "lists" / "train_list.mat").read_bytes()
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + bytes(384)
    (data / "lists" / "train_list.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(504))
    one_line(layered(*words), 1, "train_list.mat is a MATLAB file of version 7.3", "save(..., '-v7')")
    (data / "lists" / "train_list.mat").write_bytes(good[:150])
    one_line(layered(*words), 1, "train_list.mat cannot be read as a MATLAB file", "copy it again")


def test_pictures_in_place_of_ct(birds: Path, tmp_path: Path, layered: Callable[..., Ended]) -> None:
    words = ("--data", birds, "--out", tmp_path / "run", *PREPARE, "--set", "prepare.layout=ct")
    one_line(layered(*words), 1, "no volumes found", "check the path")
    assert "01-prepare/done.json" not in files(tmp_path / "run")


@pytest.mark.parametrize("layout", ["dogs", "cars", "apc"])
def test_another_layout_than_the_folders(
    layout: str, birds: Path, tmp_path: Path, layered: Callable[..., Ended]
) -> None:
    words = ("--data", birds, "--out", tmp_path / "run", *PREPARE, "--set", f"prepare.layout={layout}")
    one_line(layered(*words), 1, "is not laid out as a picture dataset; wanted", f"({layout})")


def test_fewer_pictures_than_a_batch(plain: Path, tmp_path: Path, layered: Callable[..., Ended]) -> None:
    """Told before anything is trained; a smaller batch goes on, and the pictures are not prepared again."""
    words = ("--data", plain, "--out", tmp_path / "run", "--until", "train_gan")
    words += ("--set", "train_gan.arms={main: {}}", "--set", "train_gan.objective.rounds=1")
    ended = layered(*words, "--set", "train_gan.batch_size=32")
    one_line(ended, 1, "16 training pictures for batches of 32; give more or lower the batch_size")
    assert not list((tmp_path / "run" / "02-train_gan").rglob("*.pt"))
    before = (tmp_path / "run" / "01-prepare" / "done.json").stat().st_mtime_ns
    ended = layered(*words, "--set", "train_gan.batch_size=8", "--set", "train_gan.objective.kimg=0.04")
    assert ended.code == 0, ended
    assert (tmp_path / "run" / "01-prepare" / "done.json").stat().st_mtime_ns == before


def test_no_test_masks_at_all(plain: Path, tmp_path: Path, layered: Callable[..., Ended]) -> None:
    """Training needs none, but nothing could be scored: told before any work; given masks, the command goes on."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(plain / "images", data / "images")
    ended = layered("--data", data, "--out", run)
    one_line(ended, 1, "no test picture of pictures has a mask, so nothing could be scored; give PNG masks")
    assert not list(run.rglob("done.json"))
    shutil.copytree(plain / "masks", data / "masks")
    assert layered("--data", data, "--out", run, "--until", "prepare").code == 0


@pytest.mark.parametrize("name", ["cub_layered", "segthor_layered"])
def test_weights_that_only_the_end_reads_are_missed_at_the_beginning(
    name: str, tmp_path: Path, command: Callable[..., Ended]
) -> None:
    ended = command("--out", tmp_path / "run", "--set", "evaluate.fid_weights=/nowhere/inception.pt", name=name)
    one_line(ended, 1, "evaluate.fid_weights: /nowhere/inception.pt does not exist; give the path of the file")
    assert files(tmp_path / "run") == {"lock", "recipe.yaml"}
