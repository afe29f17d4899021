"""What the tests of whole runs share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import Command, command_of

from medseg_gan.api import run_recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # chest.py, dicom_writer.py


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line, see `command_line.command_of`."""
    return command_of(capfd)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DatasetGAN's smoke profile; tests look at it and change nothing."""
    return run_recipe("segthor_datasetgan", profile="smoke", out=tmp_path_factory.mktemp("smoke") / "run")
