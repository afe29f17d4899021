"""The command line: one line per error, exit codes, and plans without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from toy_system import RECIPE, TOY
from typer.testing import CliRunner

from medseg_gan import __version__
from medseg_gan.cli import app
from medseg_gan.systems import SYSTEMS


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    monkeypatch.setitem(SYSTEMS, "toy", TOY)
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(RECIPE)


def call(*words):
    return CliRunner().invoke(app, list(words))


def test_a_recipe_runs_and_its_report_is_rebuilt():
    result = call("recipe", "toy.yaml", "--out", "run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "report: run/report/index.html"
    assert "02-train  kept" in call("recipe", "toy.yaml", "--out", "run").stdout
    result = call("report", "run")
    assert result.exit_code == 0 and "report    started" in result.stdout


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        ("person", 3, "paint the masks, then run the same command"),
        ("error", 1, "error: numbers.json: found 3, wanted 4"),
        ("bug", 1, "error: ZeroDivisionError: division by zero; run with --debug for the traceback"),
        ("full disk", 1, "error: disk full while writing state.json; free space and run the same command again"),
        ("interrupt", 130, "interrupted; the same command continues"),
    ],
)
def test_every_end_is_one_line_and_an_exit_code(end, code, line):
    result = call("recipe", "toy.yaml", "--out", "run", "--set", f"train.end={end}")
    assert (result.exit_code, result.stderr) == (code, line + "\n")


def test_annotate_says_a_line_before_its_long_imports(monkeypatch):
    monkeypatch.setitem(sys.modules, "medseg_gan.api", None)  # what comes after the line ends here
    result = call("annotate", "run")
    assert result.exit_code == 1 and result.stdout == "annotate: opening the page for run ...\n"


def test_interrupted_rerun_goes_on_without_rerun():
    call("recipe", "toy.yaml", "--out", "run")
    words = ["recipe", "toy.yaml", "--out", "run", "--set", "train.end=interrupt"]
    assert call(*words, "--rerun", "train").stderr == "interrupted; the same command without --rerun continues\n"
    assert call("recipe", "toy.yaml", "--out", "run").exit_code == 0


def test_all_mistakes_are_told_one_per_line():
    result = call("recipe", "toy.yaml", "--set", "train.lr=fast", "--set", "make.size=48")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: --set make.size=48: make.size: 48 is not a power of two",
        'error: --set train.lr=fast: train.lr is "fast", wanted a number',
    ]


@pytest.mark.parametrize("words", [["--debug", "recipe", "toy.yaml"], ["recipe", "toy.yaml", "--debug"]])
def test_debug_is_accepted_anywhere_and_shows_the_error_itself(words):
    result = call(*words, "--set", "train.lr=fast")
    assert type(result.exception).__name__ == "UsageError"


@pytest.mark.parametrize(
    "words", [["recip"], ["recipe"], ["recipe", "toy.yaml", "--sett", "x"], ["recipe", "toy.yaml", "--device", "tpu"]]
)
def test_words_that_are_no_command(words):
    result = call(*words)
    assert result.exit_code == 2 and "Traceback" not in result.output


def test_dry_run_shows_the_plan_and_writes_nothing():
    result = call("recipe", "toy.yaml", "--dry-run", "--out", "run", "--set", "train.lr=0.5")
    assert result.exit_code == 0
    assert '2. train: new, run/02-train\n   steps 4, lr 0.5, part.name "small", part.width 3\n' in result.stdout
    assert "   expected: 4 steps\n" in result.stdout
    assert not Path("run").exists()


def test_dry_run_tells_what_would_be_refused():
    call("recipe", "toy.yaml", "--out", "run")
    result = call("recipe", "toy.yaml", "--out", "run", "--dry-run", "--set", "train.lr=0.5")
    assert "1. make: kept, it is finished, run/01-make" in result.stdout
    assert result.exit_code == 1, "as the run itself would end"
    assert result.stderr.startswith("error: train: settings changed since run/02-train was made (lr: 0.001")
    assert len(result.stderr.splitlines()) == 1


SLOW = (
    "profile paper was taken, as none was named (expected hours: not stated; on a CPU far more); for a quicker run "
    "name --profile demo (expected hours: not stated)"
)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_slow_profile_nobody_named_is_told_before_a_cpu_begins(more):
    Path("data").mkdir()
    words = ["recipe", "toy.yaml", "--data", "data", "--device", "cpu", *more]
    lines = call(*words, "--out", "run").stdout.splitlines()
    assert lines.count(SLOW) == 1 and lines.index(SLOW) < next(k for k, line in enumerate(lines) if "make" in line)
    for profile in ("paper", "demo"):
        result = call(*words, "--out", profile, "--profile", profile)
        assert result.exit_code == 0 and "was taken" not in result.stdout


def test_a_slow_profile_is_told_where_a_gpu_may_be_missing_and_work_is_left():
    Path("data").mkdir()
    words = ["recipe", "toy.yaml", "--data", "data", "--out", "run"]
    assert SLOW in call(*words, "--dry-run").stdout, "a plan does not look for a GPU"
    assert "was taken" not in call(*words, "--dry-run", "--device", "cuda").stdout
    assert "was taken" not in call("recipe", "toy.yaml", "--out", "phantom", "--dry-run").stdout
    assert call(*words, "--device", "cpu").exit_code == 0
    for more in (["--device", "cpu"], ["--device", "cpu", "--dry-run"]):
        assert "was taken" not in call(*words, *more).stdout, "all is done"


def test_a_slow_profile_is_told_with_the_hours_of_the_recipe():
    Path("data").mkdir()
    assert (
        "profile paper was taken, as none was named (expected hours: days of a GPU; on a CPU far more); for a quicker "
        "run name --profile demo (expected hours: 0.2 to 0.6 on 2 CPU cores)\n"
    ) in call("recipe", "segthor_datasetgan", "--data", "data", "--dry-run").stdout


def test_recipes_and_version():
    assert "segthor_datasetgan" in call("recipes").stdout
    assert call("--version").stdout == f"{__version__}\n"


def test_help_lists_and_plans_without_torch(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import toy_system
from medseg_gan.cli import app
from medseg_gan.systems import SYSTEMS
SYSTEMS["toy"] = toy_system.TOY
for words in (["--help"], ["recipe", "--help"], ["recipes"], ["recipe", "toy.yaml", "--dry-run"]):
    try:
        app(words)
    except SystemExit as end:
        assert not end.code, (words, end.code)
import medseg_gan.systems.datasetgan.recipe
heavy = {{"torch", "monai", "ignite", "torchvision", "scipy", "matplotlib", "SimpleITK"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "medseg_gan", "recipe", "segthor_datasetgan", "--dry-run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before anything is written
        assert process.stderr.read() == "" and process.wait() == 1


def test_the_module_is_the_command(tmp_path):
    done = subprocess.run([sys.executable, "-m", "medseg_gan", "recipe", "nothing"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: there is no recipe nothing; `medseg-gan recipes` lists them\n")


def test_python_names_are_offered_without_importing_them():
    import medseg_gan

    assert "run_recipe" in dir(medseg_gan)
    assert callable(medseg_gan.run_recipe)
    with pytest.raises(AttributeError, match="has no attribute nothing"):
        _ = medseg_gan.nothing


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recipe", "x", "--foo"], "no such option: --foo"),
        (["recipe", "x", "--device", "tpu"], "invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["recip"], "no such command 'recip'. Did you mean 'recipe'"),
        (["recipe"], "missing argument 'name'"),
        (["recipe", "x", "--out"], "option '--out' requires an argument"),
    ],
)
def test_what_typer_finds_wrong_is_one_line(words, told, capfd):
    with pytest.raises(SystemExit) as ended:
        app(words)
    lines = capfd.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {told}")
    assert lines[0].endswith("--help`")


def test_the_command_alone_shows_help(capfd):
    with pytest.raises(SystemExit) as ended:
        app([])
    assert ended.value.code in (0, 2)
    shown = capfd.readouterr()
    assert "Usage" in shown.out + shown.err


def test_every_help_text_is_a_sentence():
    commands = typer.main.get_command(app).commands.values()
    helps = {f"{command.name} {option.name}": option.help for command in commands for option in command.params}
    helps |= {command.name: command.help for command in commands}
    assert len(helps) > 50
    assert not {name: text for name, text in helps.items() if not re.fullmatch(r"[A-Z]\w*:? .+\.", text or "")}
