"""What the tests of whole runs share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import Command, command_of

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # chest.py, dicom_writer.py


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line, see `command_line.command_of`."""
    return command_of(capfd)
