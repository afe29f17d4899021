"""A person annotates: the run waits, goes on with the masks, says who painted, and never loses a mask."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from chest import affine, chest, save
from command_line import Command
from PIL import Image

from medseg_gan.data.slices import SliceStore
from medseg_gan.labels import SEGTHOR_GT, lookup_table

TINY = ("--set", "train_gan.total_kimg=0.016", "--set", "annotate.num_images=3")
SHORT = (*TINY, "--set", "train_segmenters.rows=[synthetic, hybrid, real30, annotated_only]")
BY_PERSON = (*SHORT, "--set", "annotate.annotator=person")


def person(run: Path) -> Path:
    return run / "03-annotate" / "person"


def stems(run: Path) -> list[str]:
    return sorted(path.stem for path in (person(run) / "images").glob("0*.png"))


def masks(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (person(run) / "masks").iterdir()}


def drawing() -> np.ndarray:
    """A mask with every class of the table `paper`, `(32, 32)`."""
    mask = np.zeros((32, 32), np.uint8)
    mask[8:22, 4:13], mask[8:22, 19:28] = 5, 4  # the patient's left is at the right
    mask[10:17, 13:19], mask[18:20, 17:19], mask[17, 15:17] = 1, 2, 3
    return mask


def paint(run: Path, stem: str, ending: str) -> None:
    path = person(run) / "masks" / f"{stem}{ending}"
    if ending == ".png":
        Image.fromarray(lookup_table("paper").colour(drawing())).save(path)
    else:
        grid = nib.load(person(run) / "images" / f"{stem}.nii.gz").affine
        nib.save(nib.Nifti1Image(drawing().T[:, :, None], grid), path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("person") / "a run"


def test_the_run_waits_and_says_where_the_images_are_and_what_to_type(run: Path, command: Command) -> None:
    ended = command("--out", run, *BY_PERSON)
    assert ended.code == 3
    told = ended.err[-1]
    assert told.startswith("0 of 3 masks found; missing 0000, 0001, 0002. Paint them in ")
    assert f"{person(run)} (README.txt says how), then run medseg-gan recipe segthor_datasetgan --out '{run}'" in told
    assert "--profile smoke" in told and "--set annotate.annotator=person" in told
    assert len(stems(run)) == 3
    assert {"README.txt", "labels.txt", "labels.ctbl"} <= {path.name for path in person(run).iterdir()}


def test_masks_are_counted_until_all_are_there(run: Path, command: Command) -> None:
    paint(run, stems(run)[0], ".png")
    ended = command("--out", run, *BY_PERSON)
    assert ended.code == 3 and ended.err[-1].startswith("1 of 3 masks found; missing 0001, 0002.")
    assert ended.out == ["01-prepare            kept", "02-train_gan          kept", "03-annotate           resumed"]


def test_with_all_masks_the_same_command_goes_on_to_the_report(run: Path, command: Command) -> None:
    paint(run, stems(run)[1], ".nii.gz")
    paint(run, stems(run)[2], ".png")
    ended = command("--out", run, *BY_PERSON)
    assert ended.code == 0 and ended.out[-1] == f"report: {run / 'report' / 'index.html'}"
    annotated = SliceStore.open(run / "03-annotate" / "annotated")
    assert all((label == drawing()).all() for label in annotated.labels) and len(annotated) == 3


def test_scores_and_report_say_who_annotated_and_claim_nothing_they_did_not_measure(run: Path) -> None:
    scores = json.loads((run / "07-evaluate" / "scores.json").read_text())
    assert scores["annotator"]["kind"] == "person"
    assert {scores["annotator"][name] for name in ("real_slices", "real_patients")} == {0}
    costs = {row["row"]: row["cost"] for row in scores["rows"]}
    assert costs["synthetic"]["annotated_synthetic"] == 3 and costs["synthetic"]["stand_in_slices"] == 0
    assert all(set(row["scores"]) == {"test_r", "test_g[factory]"} for row in scores["rows"])
    assert set(scores["floors"]) == {"test_r"}
    with (run / "report" / "rows.csv").open() as file:
        assert {row["test"] for row in csv.DictReader(file)} == {"test_r", "test_g[factory]"}
    page = (run / "report" / "index.html").read_text()
    assert "Annotated by a person: 3 generated slices painted by hand." in re.sub(r"\s+", " ", page)


def test_masks_painted_anew_are_told_where_the_stage_is_kept(run: Path, command: Command) -> None:
    path = person(run) / "masks" / f"{stems(run)[0]}.png"
    before, told = path.read_bytes(), f"masks in {person(run)} changed since annotate was finished; --rerun annotate"
    words = ("--out", run, *BY_PERSON, "--until", "annotate")
    Image.fromarray(np.flipud(drawing())).save(path)
    assert command(*words).out[2:4] == ["03-annotate           kept", f"{told} takes them"]
    path.write_bytes(before)
    assert "changed since" not in "".join(command(*words).out)


def test_masks_outlive_a_rerun(run: Path, command: Command) -> None:
    before = masks(run)
    ended = command("--out", run, *BY_PERSON, "--until", "annotate", "--rerun", "annotate")
    assert ended.code == 0 and masks(run) == before
    (aside,) = run.glob("replaced/*/03-annotate/person")
    assert ended.err == [f"annotate: 3 images are those of {aside} and keep the answers given there"]
    assert {path.name: path.read_bytes() for path in (aside / "masks").iterdir()} == before


def test_what_a_person_takes_back_stays_back(run: Path, command: Command) -> None:
    words = ("--out", run, *BY_PERSON, "--until", "annotate", "--set", "annotate.num_images=4")
    ended = command(*words, "--rerun", "annotate")  # the first three images are the same as of three
    assert ended.code == 3 and ended.err[-1].startswith("3 of 4 masks found; missing 0003.")
    (person(run) / "masks" / f"{stems(run)[0]}.png").unlink()
    assert command(*words).err[-1].startswith("2 of 4 masks found; missing 0000, 0003.")
    (person(run) / "masks" / f"{stems(run)[2]}.png").unlink()
    (person(run) / "rejected.txt").write_text("2\n")
    assert command(*words).err[-1].startswith("1 of 3 masks found; missing 0000, 0003.")
    ended = command(*words, "--rerun", "annotate")  # the newest answer counts: image 2 stays rejected
    assert ended.err[-1].startswith("2 of 3 masks found; missing 0003.")
    assert (person(run) / "rejected.txt").read_text() == "0002\n"
    paint(run, stems(run)[3], ".png")
    assert command(*words).err[-1].startswith("3 of 4 masks found; missing 0004.")  # an image in place of the rejected


def test_real_volumes_with_organs_wait_for_a_person(tmp_path: Path, command: Command) -> None:
    for k in range(6):
        hu, truth = chest(64, 2, seed=k)
        truth[truth > SEGTHOR_GT["aorta"]] = 0
        folder = tmp_path / "SegTHOR" / "train" / f"Patient_{k:02d}"
        save(folder / f"{folder.name}.nii.gz", hu, affine())
        save(folder / "GT.nii.gz", truth, affine())
    ended = command("--data", tmp_path / "SegTHOR", "--out", tmp_path / "run", *TINY)
    assert ended.code == 3 and f"--data {tmp_path / 'SegTHOR'}" in ended.err[-1]
    text = "".join(path.read_text() for path in person(tmp_path / "run").glob("*.*"))
    assert "Patient_0" not in text and str(tmp_path) not in text
