"""Saving is whole or not at all, two windows never overwrite each other, and no stroke is lost."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
from annotation_example import SIZE, TABLE, scribble, work_of
from PIL import Image

from medseg_gan.annotate.answers import offer_earlier_masks, read_masks
from medseg_gan.annotate.work import AnnotationWork, Overtaken
from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import read_json, write_json


@pytest.fixture
def work(tmp_path):
    return work_of(tmp_path / "person")


def states(work):
    return [item.state for item in work.items()]


def test_what_is_saved_is_what_the_recipe_reads(work):
    for k, name in enumerate(work.names):
        opened = work.open(name)
        assert opened.state == "to do" and not opened.label.any()
        now = work.save(opened, scribble(k), seconds=1.0)
        assert now.state == "painted" and work.open(name).stamp == now.stamp
        np.testing.assert_array_equal(work.open(name).label, scribble(k))
    painted = read_masks(work.folder, TABLE)
    np.testing.assert_array_equal(painted.labels, np.stack([scribble(k) for k in range(4)]))


def test_saving_again_needs_no_reopening(work):
    now = work.save(work.open(work.names[0]), scribble(0), seconds=1.0)
    work.save(now, scribble(1), seconds=1.0)
    np.testing.assert_array_equal(work.open(work.names[0]).label, scribble(1))
    assert work.kept(work.names[0]) == []


def test_the_second_of_two_windows_is_told_and_both_masks_stay(work):
    name = work.names[0]
    first, second = work.open(name), work.open(name)
    work.save(first, scribble(1), seconds=1.0)
    with pytest.raises(Overtaken, match=rf"0000 was answered in another window.*kept/{name}-001.png"):
        work.save(second, scribble(2), seconds=1.0)
    np.testing.assert_array_equal(work.open(name).label, scribble(1))
    np.testing.assert_array_equal(work.read_kept(work.kept(name)[0]), scribble(2))
    work.save(second, scribble(2), seconds=1.0, over=True)
    np.testing.assert_array_equal(work.open(name).label, scribble(2))
    assert [work.read_kept(path).tolist() for path in work.kept(name)] == [scribble(2).tolist(), scribble(1).tolist()]
    with pytest.raises(Overtaken):
        work.reject(second, seconds=1.0)
    assert states(work)[0] == "painted"


def test_a_file_from_another_program_counts_as_another_window(work):
    opened = work.open(work.names[0])
    Image.fromarray(scribble(3)).save(work.folder / "masks" / f"{work.names[0]}.png")
    with pytest.raises(Overtaken):
        work.save(opened, scribble(0), seconds=1.0)


def test_rejecting_keeps_the_mask_and_can_be_taken_back(work):
    name = work.names[1]
    now = work.save(work.open(name), scribble(), seconds=1.0)
    now = work.reject(now, seconds=1.0)
    assert states(work) == ["to do", "rejected", "to do", "to do"]
    np.testing.assert_array_equal(work.read_kept(work.kept(name)[0]), scribble())
    assert work.take_back(now).state == "to do" and set(states(work)) == {"to do"}
    now = work.reject(work.open(name), seconds=1.0)
    work.save(now, scribble(), seconds=1.0)  # painting takes a rejection back too
    assert states(work)[1] == "painted" and (work.folder / "rejected.txt").read_text() == ""


def test_blank_masks_and_wrong_ids_are_refused(work):
    opened = work.open(work.names[0])
    with pytest.raises(MedsegError, match="nothing is painted in 0000"):
        work.save(opened, np.zeros(SIZE, np.uint8), seconds=1.0)
    with pytest.raises(MedsegError, match="ids up to 9; wanted 32x24 and 0 to 5"):
        work.save(opened, np.full(SIZE, 9, np.uint8), seconds=1.0)
    with pytest.raises(MedsegError, match="the mask of 0000 is 24x32"):
        work.save(opened, scribble().T, seconds=1.0)
    assert not list((work.folder / "masks").iterdir())


def test_masks_in_other_files_are_left_alone(work):
    name = work.names[0]
    path = work.folder / "masks" / f"{name}.PNG"
    Image.fromarray(scribble()).save(path, format="PNG")
    (item, *_) = work.items()
    assert item.state == "painted" and item.note == f"painted in masks/{name}.PNG"
    with pytest.raises(MedsegError, match=r"painted in masks/.*PNG, which the page leaves alone"):
        work.save(work.open(name), scribble(1), seconds=1.0)


def test_a_mask_that_cannot_be_read_is_said_and_kept_when_painted_over(work):
    name = work.names[0]
    (work.folder / "masks" / f"{name}.png").write_bytes(b"half a picture")
    assert "cannot be read" in work.items()[0].note and states(work)[0] == "to do"
    work.save(work.open(name), scribble(), seconds=1.0)
    assert work.kept(name)[0].read_bytes() == b"half a picture" and states(work)[0] == "painted"


def test_a_mask_of_another_run_is_told(work):
    Image.fromarray(scribble()).save(work.folder / "masks" / "0000-ffffffff.png")
    with pytest.raises(MedsegError, match="was painted on another image"):
        work.items()


def test_a_full_disk_changes_nothing_and_says_so(work, monkeypatch):
    name = work.names[0]
    now = work.save(work.open(name), scribble(0), seconds=1.0)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("medseg_gan.machine.atomic.os.fsync", full)
        with pytest.raises(MedsegError, match=r"disk full while writing .*strokes stay in the editor; free space"):
            work.save(now, scribble(1), seconds=1.0)
    np.testing.assert_array_equal(work.open(name).label, scribble(0))
    work.save(now, scribble(1), seconds=1.0)
    np.testing.assert_array_equal(work.open(name).label, scribble(1))
    assert not [path for path in work.folder.rglob(".*png")]


def test_seconds_and_the_dice_of_the_pre_label_are_noted(work):
    mask = scribble()
    work.save(work.open(work.names[0]), mask, seconds=12.5, began="interpreter 1", pre_label=mask)
    line = json.loads((work.folder / "times.jsonl").read_text())
    assert line["image"] == work.names[0] and line["seconds"] == 12.5 and line["began"] == "interpreter 1"
    assert line["dice"] == 1.0 and set(line["dice_per_class"]) == set(TABLE.classes[1:])


def test_the_same_kept_strokes_are_written_once(work):
    name = work.names[0]
    assert work.keep(name, scribble()) == work.keep(name, scribble())
    layer = np.zeros((*SIZE, 4), np.uint8)
    assert work.keep_layer(name, layer) != work.keep_layer(name, layer)
    assert len(work.kept(name)) == 1


def test_other_labels_are_refused(work):
    with pytest.raises(MedsegError, match="was exported for the classes"):
        AnnotationWork(work.folder, lookup_table("lungs"))


@pytest.mark.parametrize("kind", ["images", "stacks", "images of a stack"])
def test_a_name_that_leads_out_of_the_folder_is_refused_before_anything_is_saved(work, kind):
    name, path = "../../escaped", work.folder / "manifest.json"
    opened, manifest = work.open(work.names[0]), read_json(path)
    if kind == "images of a stack":
        manifest["stacks"][0]["images"][0] = name
    else:
        manifest[kind][0]["name"] = name
    write_json(path, manifest)
    calls = [
        lambda: AnnotationWork(work.folder, TABLE),
        lambda: work.save(replace(opened, name=name), scribble(), seconds=1.0),
        lambda: work.open(name),
        lambda: read_masks(work.folder, TABLE),
        lambda: offer_earlier_masks(work.folder, work.folder),
    ]
    for call in calls:
        with pytest.raises(MedsegError, match=r"manifest\.json holds the name '\.\./\.\./escaped'") as told:
            call()
        assert "\n" not in str(told.value)
    assert not list(work.folder.parent.parent.rglob("escaped*"))


@pytest.mark.parametrize("name", [".page-lock", "times.jsonl", "masks", "kept"])
def test_no_link_leads_the_page_out_of_its_folder(work, tmp_path, name):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("theirs")
    opened = work.open(work.names[0])
    own = work.folder / name
    if own.is_dir():
        own.rmdir()
    own.unlink(missing_ok=True)
    own.symlink_to(theirs if name in ("masks", "kept") else theirs / "file")
    with pytest.raises(MedsegError, match=f"{name} is a link"):
        AnnotationWork(work.folder, TABLE).save(opened, scribble(), seconds=1.0)
    assert [path.name for path in theirs.iterdir()] == ["file"] and (theirs / "file").read_text() == "theirs"
