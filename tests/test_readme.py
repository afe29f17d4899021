"""The README's commands exist and mean something."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medseg_gan.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("medseg-gan ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes are only planned; a data folder of the reader's is stood in for by an empty one."""
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path) if word.startswith("~/") else word for word in shlex.split(command)[1:]]
    if words[0] == "recipe":
        words += ["--dry-run", "--out", "run"]
        if "--data" in words:
            (tmp_path / "data").mkdir()
            words[words.index("--data") + 1] = "data"
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make (\w+)", README, re.M))))
def test_make_target_exists(target: str) -> None:
    plan = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", README))))
def test_linked_file_exists(link: str) -> None:
    assert (ROOT / link).exists()
