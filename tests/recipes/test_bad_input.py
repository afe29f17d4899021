"""Bad input through the command line: one clear line, no traceback, nothing lost, and mended it goes on."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from chest import affine, chest, save
from command_line import Command, files, one_line
from dicom_writer import single_frames, write_series
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

from medseg_gan.api import run_recipe
from medseg_gan.labels import SEGTHOR_GT
from medseg_gan.machine.checkpoint import load_checkpoint

PREPARE = ("--until", "prepare")
TINY = ("--set", "train_gan.total_kimg=0.016")
LUNGS = ("--set", "prepare.labels=lungs")
PATIENT = Path("train", "Patient_02")
IMAGE, LABEL = PATIENT / "Patient_02.nii.gz", PATIENT / "GT.nii.gz"


def volume(k: int) -> tuple[np.ndarray, np.ndarray]:
    """A chest of two slices with a ground truth as published, without lungs."""
    hu, truth = chest(64, 2, seed=k)
    truth[truth > SEGTHOR_GT["aorta"]] = 0
    return hu, truth


@pytest.fixture(scope="module")
def segthor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five patients with ground truth and two without."""
    root = tmp_path_factory.mktemp("segthor") / "data"
    for k in range(7):
        name, (hu, truth) = f"Patient_{k:02d}", volume(k)
        if k < 5:
            save(root / "train" / name / f"{name}.nii.gz", hu, affine())
            save(root / "train" / name / "GT.nii.gz", truth, affine())
        else:
            save(root / "test" / f"{name}.nii.gz", hu, affine())
    return root


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients of one series each."""
    root = tmp_path_factory.mktemp("dicom") / "data"
    for k in range(6):
        series = single_frames(chest(64, 4, seed=k)[0], affine(), PatientID=f"P{k}", series=generate_uid())
        write_series(root / f"p{k}", series)
    return root


@pytest.fixture(scope="module")
def waiting(segthor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for a person's masks."""
    run = tmp_path_factory.mktemp("waiting") / "run"
    sets = ["run.threads=1", "train_gan.total_kimg=0.016"]
    run_recipe("segthor_datasetgan", segthor, run, "smoke", sets, until="train_gan", say=lambda line: None)
    with pytest.raises(Exception, match="0 of 4 masks found"):
        run_recipe("segthor_datasetgan", segthor, run, "smoke", sets, until="annotate", say=lambda line: None)
    return run


# Faults of the data: each is made in a copy, told in one line, mended, and the same command goes on.


def shorter_label(data: Path) -> None:
    save(data / LABEL, volume(2)[1][:, :, :1], affine())


def unknown_label(data: Path) -> None:
    truth = volume(2)[1]
    truth[5, 5, 1] = 9
    save(data / LABEL, truth, affine())


def misspelt_label(data: Path) -> None:
    (data / LABEL).rename(data / PATIENT / "gt.nii.gz")


def lost_image(data: Path) -> None:
    (data / IMAGE).unlink()


def truncated(data: Path) -> None:
    content = (data / IMAGE).read_bytes()
    (data / IMAGE).write_bytes(content[: len(content) // 2])


def not_a_number(data: Path) -> None:
    hu = volume(2)[0].astype(np.float32)
    hu[3, 3, 1] = np.nan
    save(data / IMAGE, hu, affine())


def four_axes(data: Path) -> None:
    hu = volume(2)[0]
    nib.save(nib.Nifti1Image(np.stack([hu, hu], axis=3), affine()), data / IMAGE)


def no_voxel_size(data: Path) -> None:
    header = bytearray(gzip.decompress((data / IMAGE).read_bytes()))
    header[80:92], header[252:256], header[280:328] = bytes(12), bytes(4), bytes(48)  # pixdim, q and s codes, affine
    (data / IMAGE).write_bytes(gzip.compress(bytes(header)))


def no_volumes(data: Path) -> None:
    shutil.rmtree(data)
    (data / "papers").mkdir(parents=True)
    (data / "papers" / "readme.txt").write_text("the scans are on the other disk")


def no_lung(data: Path) -> None:
    for k, path in enumerate(sorted(data.rglob("Patient_*.nii.gz"))):
        save(path, np.full((64, 64, 2), 40 + k, np.int16), affine())


def few_patients(data: Path) -> None:
    for name in ("Patient_03", "Patient_04"):
        shutil.rmtree(data / "train" / name)


def same_patient_twice(data: Path) -> None:
    shutil.copy(data / IMAGE, data / "test" / "Patient_77.nii.gz")


SEGTHOR_FAULTS: dict[Callable[[Path], None], tuple[str, ...]] = {
    shorter_label: ("Patient_02: label has shape (64, 64, 1), image (64, 64, 2)", "Check the two files"),
    unknown_label: ("Patient_02: the label has unknown values (9)", "1 esophagus", "renumber"),
    misspelt_label: ("gt.nii.gz looks like ground truth, wanted the name GT.nii.gz; rename",),
    lost_image: ("Patient_02 has GT.nii.gz but no Patient_02.nii.gz; copy the image",),
    truncated: ("Patient_02.nii.gz is truncated; wanted a whole NIfTI file; copy",),
    not_a_number: ("Patient_02.nii.gz has 1 values that are NaN or infinite; wanted HU",),
    four_axes: ("Patient_02.nii.gz has 4 axes (64 x 64 x 2 x 2); wanted one 3-D volume",),
    no_voxel_size: ("Patient_02.nii.gz has a voxel size of zero", "wanted mm; export it again"),
    no_volumes: ("no volumes found, wanted SegTHOR's layout, NIfTI/NRRD/MHA files or DICOM", "check the path"),
    no_lung: ("no slice with lung was found in 7 volumes", "check that they are chest CT in HU"),
    few_patients: ("with labels and usable slices: 3", "wanted at least 4", "Give more patients"),
    same_patient_twice: ("hold the same slices but count as two patients; remove one, or set prepare.patient_pattern",),
}


@pytest.mark.parametrize("fault", SEGTHOR_FAULTS, ids=lambda fault: fault.__name__)
def test_faulty_volumes(fault: Callable[[Path], None], segthor: Path, tmp_path: Path, command: Command) -> None:
    told_and_mended(segthor, fault, SEGTHOR_FAULTS[fault], tmp_path, command)


def two_series(data: Path) -> None:
    other = single_frames(chest(64, 4, seed=9)[0], affine(), SeriesNumber=4, series=generate_uid())
    for k, header in enumerate(other):
        header.save_as(data / "p1" / f"other{k}.dcm", enforce_file_format=True)


def missing_slice(data: Path) -> None:
    sorted((data / "p1").iterdir())[1].unlink()


def undecodable(data: Path) -> None:
    slices = single_frames(chest(64, 4, seed=1)[0], affine(), PatientID="P1")
    for header in slices:
        header.PixelData = encapsulate([b"\xff\x4f\xff\x51no codestream"])
        header["PixelData"].is_undefined_length = True
        header.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.91")
    shutil.rmtree(data / "p1")
    write_series(data / "p1", slices)


def another_modality(data: Path) -> None:
    write_series(data / "p9", single_frames(chest(64, 4, seed=9)[0], affine(), Modality="MR"))


DICOM_FAULTS: dict[Callable[[Path], None], tuple[str, ...]] = {
    two_series: ('p1 holds 2 series: number 3 "lung" (4 files), number 4 "lung" (4 files); wanted one; move each',),
    missing_slice: ("p1 has 1 gap of missing slices", "wanted every slice; copy the series again"),
    undecodable: ("transfer syntax JPEG 2000 Image Compression (1.2.840.10008.1.2.4.91)", "convert the series"),
    another_modality: ("p9 has modality MR; wanted CT; leave this folder out",),
}


@pytest.mark.parametrize("fault", DICOM_FAULTS, ids=lambda fault: fault.__name__)
def test_faulty_series(fault: Callable[[Path], None], dicom: Path, tmp_path: Path, command: Command) -> None:
    told_and_mended(dicom, fault, DICOM_FAULTS[fault], tmp_path, command, *LUNGS)


def told_and_mended(
    good: Path, fault: Callable[[Path], None], parts: tuple[str, ...], folder: Path, command: Command, *words: str
) -> None:
    """A fault leaves nothing but the mark of a beginning; the same command goes on with whole data."""
    data, run = folder / "data", folder / "run"
    shutil.copytree(good, data)
    fault(data)
    one_line(command("--data", data, "--out", run, *PREPARE, *words), 1, *parts)
    assert files(run) == {"lock", "recipe.yaml", "01-prepare/started.json"}
    shutil.rmtree(data)
    shutil.copytree(good, data)
    assert command("--data", data, "--out", run, *PREPARE, *words).code == 0
    assert {"01-prepare/done.json", "01-prepare/images.npy"} <= files(run)


def test_what_looking_into_a_folder_leaves_there_is_not_data(segthor: Path, tmp_path: Path, command: Command) -> None:
    data = tmp_path / "dätä of 日本"
    shutil.copytree(segthor, data)
    words = ("--data", data, "--out", tmp_path / "run (1)", *PREPARE)
    assert command(*words).code == 0
    for junk in (".DS_Store", "train/._Patient_01", "test/._Patient_05.nii.gz", ".snapshot/daily/Patient_00.nii.gz"):
        (data / junk).parent.mkdir(parents=True, exist_ok=True)
        (data / junk).write_bytes(b"junk")
    assert "01-prepare            kept" in command(*words).out
    assert command("--data", data, "--out", tmp_path / "another", *PREPARE).code == 0


def test_labels_without_a_place_are_not_taken_for_images(segthor: Path, tmp_path: Path, command: Command) -> None:
    """SegTHOR one folder too high, and two labels of one image."""
    shutil.copytree(segthor, tmp_path / "data" / "copy")
    ended = command("--data", tmp_path / "data", "--out", tmp_path / "run", *PREPARE)
    one_line(ended, 1, "GT.nii.gz looks like a label but no image has its name; rename or remove it")
    for name in ("scan.nii.gz", "scan_label.nii.gz", "labels/scan.nii.gz"):
        save(tmp_path / "plain" / name, volume(0)[name != "scan.nii.gz"], affine())
    ended = command("--data", tmp_path / "plain", "--out", tmp_path / "run", *PREPARE)
    one_line(ended, 1, "scan_label.nii.gz look like labels of one image; keep one of them")


# Slips on the command line: one line, exit code 2, and nothing is begun.

STAGES = "prepare, train_gan, annotate, train_interpreter, synthesize, train_segmenters, evaluate, report"
SLIPS: dict[str, tuple[list[str], str]] = {
    "value": (["--set", "prepare.size=large"], '--set prepare.size=large: prepare.size is "large", wanted a whole'),
    "no power of two": (["--set", "prepare.size=48"], "48 is not a power of two of at least 16; use 64"),
    "negative": (["--set", "prepare.size=-64"], "-64 is not a power of two of at least 16; use 16"),
    "window": (["--set", "prepare.window=[400, -1000]"], "[400.0, -1000.0] runs downwards; give the lower HU first"),
    "phantom": (["--set", "prepare.phantom.matrix=33"], "prepare.phantom.matrix is 33, wanted a multiple of 2"),
    "choice": (["--set", "prepare.labels=lung"], "prepare.labels is \"lung\", wanted 'paper', 'all', 'segthor' or"),
    "key": (["--set", "train_gan.bacth_size=8"], "train_gan.bacth_size is not a setting; did you mean batch_size?"),
    "section": (["--set", "trian_gan.lr=1"], "trian_gan is not a section; did you mean train_gan?"),
    "no section": (["--set", "total_kimg=3"], "total_kimg is not a section; did you mean train_gan.total_kimg?"),
    "no value": (["--set", "prepare.size"], "--set prepare.size: wanted section.setting=value"),
    "empty set": (["--set", ""], "--set : wanted section.setting=value"),
    "rows": (["--set", "train_segmenters.rows=[synth]"], "rows[0] is \"synth\", wanted 'synthetic', 'real'"),
    "rows twice": (["--set", "train_segmenters.rows=[real, real]"], "rows: real is named twice; keep one"),
    "batches": (["--set", "train_gan.batch_gpu=3"], "batch_gpu 3 must divide batch_size 8"),
    "until": (["--until", "prepar"], "--until prepar: there is no such stage; did you mean prepare?"),
    "rerun": (["--rerun", "gan"], f"--rerun gan: there is no such stage; wanted one of {STAGES}"),
    "order": (["--until", "prepare", "--rerun", "annotate"], "--until prepare comes before --rerun annotate"),
    "missing data": (["--data", "nowhere"], "--data nowhere does not exist; give the folder with your data"),
    "unset variable": (["--data", ""], "--data is empty; name a folder, or leave the option out"),
    "empty out": (["--out", ""], "--out is empty; name a folder, or leave the option out"),
    "stranger's home": (["--data", "~nobody-here/ct"], "--data ~nobody-here/ct: there is no such home folder"),
    "a file as data": (["--data", __file__], "is a file, wanted a folder with volumes"),
    "out inside data": (["--data", ".", "--out", "run"], "--out run lies inside --data .; choose a run folder outside"),
    "out in a file": (["--out", f"{os.devnull}/run"], "/run cannot be written to (Not a directory); choose another"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_on_the_command_line(
    slip: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, line = SLIPS[slip]
    one_line(command(*words), 2, line)
    assert not list(tmp_path.iterdir())


def test_misspelt_recipe_and_profile(command: Command) -> None:
    ended = command(name="segthor_datsetgan")
    one_line(ended, 2, "there is no recipe segthor_datsetgan; did you mean segthor_datasetgan?")
    one_line(command(profile="smokey"), 2, "there is no profile smokey; did you mean smoke?")
    one_line(command(profile=""), 2, "there is no profile ; wanted demo, ")


def test_an_annotator_that_cannot_label_the_data_is_refused_at_once(
    segthor: Path, tmp_path: Path, command: Command
) -> None:
    words = ("--data", segthor, "--out", tmp_path / "run", *PREPARE)
    one_line(command(*words, "--set", "annotate.annotator=segmenter"), 1, "only the phantom has; use person or lungs")
    one_line(command(*words, "--set", "annotate.annotator=lungs"), 1, "labels lungs only, prepare.labels is paper; use")
    assert command(*words).code == 0


# Full disks, second processes, damaged files.


def test_a_disk_that_fills_up_at_any_write(
    segthor: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt gets one file further than the last; the result is that of an undisturbed run."""
    words = ("--data", segthor, *PREPARE, "--out")
    flush, left = os.fsync, [0]

    def full(descriptor: int) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for room in range(20):
        left[0] = room
        ended = command(*words, tmp_path / "run")
        if ended.code == 0:
            break
        one_line(ended, 1, "disk full while writing", "free space and run the same command again")
    assert ended.code == 0 and room > 5
    monkeypatch.undo()
    assert command(*words, tmp_path / "undisturbed").code == 0
    assert files(tmp_path / "run") == files(tmp_path / "undisturbed")
    for name in ("images.npy", "labels.npy", "cases.json", "counts.json"):
        ours, theirs = (tmp_path / run / "01-prepare" / name for run in ("run", "undisturbed"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_disk_full_of_checkpoints(
    segthor: Path, waiting: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch has its own words for a full disk; the training then goes on to the same weights."""
    words = ("--data", segthor, "--out", tmp_path / "run", "--until", "train_gan", *TINY)

    def full(*_: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        one_line(command(*words), 1, "disk full while writing", "checkpoint-", "run the same command again")
    assert command(*words).code == 0
    ours, theirs = (load_checkpoint(run / "02-train_gan/G_ema.pt") for run in (tmp_path / "run", waiting))
    assert all(torch.equal(ours["state_dict"][name], theirs["state_dict"][name]) for name in ours["state_dict"])


def test_two_processes_in_one_run_folder(segthor: Path, tmp_path: Path, command: Command) -> None:
    words = ("--data", segthor, "--out", tmp_path, *PREPARE)
    program = (
        "import fcntl, sys; lock = open(sys.argv[1], 'a+'); fcntl.lockf(lock, fcntl.LOCK_EX); "
        "print('process 7 on here', file=lock, flush=True); print(flush=True); sys.stdin.read()"
    )
    holder = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout and other.stdout.readline()
        ended = command(*words)
        one_line(ended, 1, "another process (process 7 on here) is working in", "wait for it, or use another --out")
        other.stdin.close()
    assert command(*words).code == 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def reverse(path: Path) -> None:
    """Damage that no size tells."""
    path.write_bytes(path.read_bytes()[::-1])


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("02-train_gan/G_ema.pt", cut, "is finished but G_ema.pt has changed in size; make it anew with --rerun train_gan"),
    ("02-train_gan/G_ema.pt", reverse, "train_gan was finished, make it anew with --rerun train_gan"),
    ("01-prepare/cases.json", reverse, "prepare was finished, make it anew with --rerun prepare"),
    ("01-prepare/images.npy", reverse, "prepare was finished, make it anew with --rerun prepare"),
    ("01-prepare/labels.npy", Path.unlink, "is finished but labels.npy is missing; make it anew with --rerun prepare"),
    ("02-train_gan/started.json", cut, "it was cut off or edited, remove it"),
    ("recipe.yaml", lambda path: path.write_text("{"), "remove the file, every run writes it anew"),
]


@pytest.mark.parametrize(("name", "damage", "line"), DAMAGES)
def test_damaged_files_of_finished_stages(
    name: str,
    damage: Callable[[Path], object],
    line: str,
    segthor: Path,
    waiting: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(waiting, run)
    damage(run / name)
    ended = command("--data", segthor, "--out", run, "--until", "annotate", *TINY)
    one_line(ended, 2 if name == "recipe.yaml" else 1, str(run), line)
    assert len(list((run / "03-annotate/person/images").glob("0*.png"))) == 4


def test_a_damaged_stage_is_made_anew_and_a_persons_images_are_the_same(
    segthor: Path, waiting: Path, tmp_path: Path, command: Command
) -> None:
    run = tmp_path / "run"
    shutil.copytree(waiting, run)
    cut(run / "02-train_gan/G_ema.pt")
    assert command("--data", segthor, "--out", run, "--until", "annotate", "--rerun", "train_gan", *TINY).code == 3
    images = "03-annotate/person/images"
    assert files(run / images) == files(waiting / images)
    assert len(list(run.glob(f"replaced/*/{images}"))) == 1


# Annotation by a person.


def test_unfinished_and_wrong_masks(segthor: Path, waiting: Path, tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    shutil.copytree(waiting, run)
    masks = run / "03-annotate/person/masks"
    names = sorted(path.stem for path in (masks.parent / "images").glob("0*.png"))
    words = ("--data", segthor, "--out", run, "--until", "annotate", *TINY)

    def paint(name: str, *shape: int, value: int = 1, ending: str = "png") -> None:
        Image.fromarray(np.full(shape, value, np.uint8)).save(masks / f"{name}.{ending}")

    for name in names[:3]:
        paint(name, 32, 32)
    one_line(command(*words), 3, "3 of 4 masks found; missing 0003.", str(masks.parent), "then run medseg-gan recipe")
    paint(names[3], 16, 32)
    one_line(command(*words), 1, "is 32x16x1", "its image 32x32x1; repaint it at that size")
    paint(names[3], 32, 32, value=77)
    one_line(command(*words), 1, "has the unknown value 77; the label table paper has 0 to 5 (background, heart")
    (masks / f"{names[3]}.png").write_bytes(b"")
    one_line(command(*words), 1, f"{names[3]}.png cannot be read", "save it again as PNG")
    (masks / f"{names[3]}.png").unlink()
    paint("mask", 32, 32)
    one_line(command(*words), 1, "mask.png belongs to no image. Masks carry the name of their image, such as 0000-")
    (masks / "mask.png").unlink()
    (masks.parent / "rejected.txt").write_text("3", encoding="utf-16")
    one_line(command(*words), 1, "rejected.txt is not plain text; wanted a number on each line")
    (masks.parent / "rejected.txt").unlink()
    paint(names[3], 32, 32, ending="PNG")
    ended = command(*words)
    assert (ended.code, ended.err) == (0, []) and files(masks) == {f"{name}.png" for name in names[:3]} | {
        f"{names[3]}.PNG"
    }
