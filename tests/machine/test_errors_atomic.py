"""Errors carry their exit codes; files appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from medseg_gan.errors import MedsegError, UsageError, WaitingForPerson, did_you_mean
from medseg_gan.machine.atomic import (
    atomic_path,
    open_no_link,
    read_json,
    save_png,
    write_array,
    write_json,
    write_text,
)


def test_exit_codes():
    assert [kind.exit_code for kind in (MedsegError, UsageError, WaitingForPerson)] == [1, 2, 3]


def test_did_you_mean_offers_the_nearest_or_nothing():
    assert did_you_mean("bacth_size", ["lr", "batch_size"]) == "; did you mean batch_size?"
    assert did_you_mean("zzz", ["lr", "batch_size"]) == ""
    assert did_you_mean("zzz", []) == ""


def test_what_is_written_is_read(tmp_path):
    write_json(tmp_path / "deep" / "x.json", {"a": [1, 2.5, None, "ü"]})
    assert read_json(tmp_path / "deep" / "x.json") == {"a": [1, 2.5, None, "ü"]}
    write_text(tmp_path / "x.txt", "ü\n")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "ü\n"
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    write_array(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), array)
    for image in (array.astype(np.uint8), np.zeros((2, 3, 3), np.uint8)):
        save_png(tmp_path / "x.png", image)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), image)
    assert sorted(os.listdir(tmp_path)) == ["deep", "x.npy", "x.png", "x.txt"]  # nothing temporary is left


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "x", "old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("half of the n")
        raise ZeroDivisionError
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_the_new_file_is_not_seen_before_it_is_whole(tmp_path):
    with atomic_path(tmp_path / "x.png") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "x.png").exists()
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
    assert (tmp_path / "x.png").read_text() == "new"


def test_full_disk_is_one_line_and_other_failures_stay_what_they_are(tmp_path):
    with pytest.raises(MedsegError, match=r"disk full while writing .*x; free space"), atomic_path(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), atomic_path(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_disk_that_is_really_full(tmp_path):
    with pytest.raises(MedsegError, match="disk full"), atomic_path(tmp_path / "x") as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_text("a")
    with pytest.raises(MedsegError, match="disk full"), atomic_path(tmp_path / "x.npy") as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        np.save(temporary, np.zeros(10_000))


def test_json_that_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    (tmp_path / "x.json").write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(MedsegError, match="is not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(MedsegError, match="does not exist; run the stage that makes it"):
        read_json(tmp_path / "y.json")


def test_no_write_goes_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    folder = tmp_path / "ours"
    folder.mkdir()
    for name in ("x.json", f".{os.getpid()}-x.json"):  # the file itself, and the temporary name of this process
        (folder / name).symlink_to(victim)
    write_json(folder / "x.json", 1)
    assert not (folder / "x.json").is_symlink() and read_json(folder / "x.json") == 1
    assert victim.read_text() == "theirs" and os.listdir(folder) == ["x.json"]


def test_a_file_written_in_place_is_never_a_link(tmp_path):
    (tmp_path / "victim").write_text("theirs")
    for target in ("victim", "not-there"):
        (tmp_path / f"lock-{target}").symlink_to(tmp_path / target)
        with pytest.raises(MedsegError, match="is a link, which is not followed when writing"):
            open_no_link(tmp_path / f"lock-{target}")
    assert (tmp_path / "victim").read_text() == "theirs" and not (tmp_path / "not-there").exists()
    for expected in ("", "kept"):
        with open_no_link(tmp_path / "lock") as lock:
            assert (lock.seek(0), lock.read()) == (0, expected)
            lock.write("kept"[len(expected) :])
