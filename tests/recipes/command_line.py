"""The command line in this process, with all that a terminal would show of it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from medseg_gan.cli import app

HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # by Python's default filters

PROGRESS = re.compile(r".+: \d+(/\d+)? \w+( \(|, )|prepare: pool \w+: ")
"""What a stage says while it works: a line per half minute on a slow machine, and what `prepare` kept."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, lines on stdout, lines on stderr."""

    code: int
    out: list[str]
    err: list[str]


Command = Callable[..., Ended]


def command_of(capfd: pytest.CaptureFixture[str]) -> Command:
    """`medseg-gan recipe segthor_datasetgan --profile smoke WORDS`, as a user sees it end.

    One thread, for a busy machine's sake. What C libraries print counts, and so do warnings.
    """

    def call(*words: str | os.PathLike[str], name: str = "segthor_datasetgan", profile: str = "smoke") -> Ended:
        line = ["recipe", name, "--profile", profile, "--set", "run.threads=1", *map(os.fspath, words)]
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as caught, pytest.raises(SystemExit) as ended:
            warnings.simplefilter("default")
            app(line)
        shown = capfd.readouterr()
        told = [f"warning: {one.message}" for one in caught if not issubclass(one.category, HIDDEN)]
        lines = [line for line in shown.err.splitlines() if not PROGRESS.match(line)]
        return Ended(int(ended.value.code or 0), shown.out.splitlines(), lines + told)

    return call


def one_line(ended: Ended, code: int, *parts: str) -> None:
    """The command ended with this code and said these things in a single line of stderr."""
    assert ended.code == code, ended
    assert len(ended.err) == 1, ended.err
    for part in parts:
        assert part in ended.err[0]
    assert "Traceback" not in ended.err[0] and "--debug" not in ended.err[0]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
