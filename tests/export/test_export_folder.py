"""An exported folder appears whole or not at all, and never in place of another."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.export.folder import new_folder, refuse_existing


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "x") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("content")
        assert not (tmp_path / "deep" / "x").exists()
    assert (tmp_path / "deep" / "x" / "inner" / "file").read_text() == "content"
    assert os.listdir(tmp_path / "deep") == ["x"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with new_folder(tmp_path / "x") as folder:  # an empty folder may be filled
        (folder / "file").write_text("old")
    with pytest.raises(UsageError, match=r"x exists and is not overwritten; remove it, or choose another --out"):
        new_folder(tmp_path / "x").__enter__()
    (tmp_path / "y").write_text("a file")
    with pytest.raises(UsageError, match="y exists"):
        new_folder(tmp_path / "y").__enter__()
    assert (tmp_path / "x" / "file").read_text() == "old" and (tmp_path / "y").read_text() == "a file"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=r"disk full while writing .*x; free space"), new_folder(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "x") as folder:
        (folder / "half").write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_place_where_nothing_can_be_written_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file")
    for below in ("x", "x/y"):
        with pytest.raises(UsageError, match=rf"{below} cannot be made, .*/file is a file; choose another --out"):
            refuse_existing(tmp_path / "file" / below)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
        with pytest.raises(UsageError, match="cannot be written to; choose another --out"):
            refuse_existing(tmp_path / "deep" / "x")
    long = tmp_path / ("x" * 254)  # the temporary name is too long, whatever the number of the process
    with pytest.raises(UsageError, match=r"x cannot be written to \(File name too long\); choose another --out"):
        new_folder(long).__enter__()
    assert os.listdir(tmp_path) == ["file"]
