"""The files of a data folder: hidden ones left out, links followed once, nothing passed over in silence."""

from pathlib import Path

import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.machine.walk import walk_folder


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "b/2", "b/1", "a", ".DS_Store", "b/._1", ".snapshot/daily/a", "b/.cache/x")
    assert [path.relative_to(tmp_path).as_posix() for path in walk_folder(tmp_path)] == ["a", "b/1", "b/2"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "data/a", "elsewhere/b")
    (tmp_path / "data/back").symlink_to(tmp_path / "data")
    (tmp_path / "data/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/broken").symlink_to(tmp_path / "nothing")
    assert [path.name for path in walk_folder(tmp_path / "data")] == ["a", "b"]


def test_a_folder_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=r"nowhere cannot be opened .* change its permissions"):
        list(walk_folder(tmp_path / "nowhere"))
