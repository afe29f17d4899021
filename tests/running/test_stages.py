"""Runs: finished stages are kept, unfinished ones go on, changed ones are refused, nothing is deleted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_system
from pydantic import Field
from toy_system import RECIPE, STAGES, TOY

from medseg_gan.api import rebuild_report, run_recipe
from medseg_gan.errors import MedsegError, UsageError, WaitingForPerson
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.running.recipe import Section
from medseg_gan.running.record import data_manifest, finished_files, result_settings
from medseg_gan.systems import SYSTEMS
from medseg_gan.systems.plan import plan_recipe

TOY_CLI = [sys.executable, str(Path(__file__).parents[1] / "toy_system.py"), "recipe"]


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """A toy recipe in the working folder."""
    monkeypatch.setitem(SYSTEMS, "toy", TOY)
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(RECIPE)
    return "./toy.yaml"


def run(*sets, **options):
    """Run the toy and return the lines it says."""
    lines: list[str] = []
    run_recipe("./toy.yaml", out=options.pop("out", "run"), sets=sets, say=lines.append, **options)
    return lines


def statuses(*sets, **options):
    return [step.status for step in plan_recipe("./toy.yaml", out="run", sets=sets, **options).steps()]


def test_a_run_leaves_its_stages_and_how_they_were_made():
    assert [line.split()[1] for line in run()] == ["started", "done"] * 3
    assert sorted(os.listdir("run")) == ["01-make", "02-train", "lock", "recipe.yaml", "report"]
    done = read_json("run/02-train/done.json")
    assert done["device"] == "cpu" and done["precision"] == "fp32" and done["attempts"] == 1
    assert done["peak_mb"] > 10 and done["versions"]["torch"] and done["processor"]
    assert "profile: demo" in Path("run/recipe.yaml").read_text()


def test_the_same_command_again_keeps_everything():
    run()
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*.json")}
    assert [line.split()[1] for line in run()] == ["kept"] * 3
    assert before == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*.json")}


def test_an_interrupted_stage_goes_on_where_it_stopped():
    with pytest.raises(KeyboardInterrupt):
        run("train.end=interrupt", "train.pause=0.02")
    assert len(read_json("run/02-train/state.json")) == 3
    Path("run/02-train/.123-state.json").write_text("left by a killed process")
    assert statuses() == ["kept", "resume", "new"]
    assert [line.split()[1] for line in run()] == ["kept", "resumed", "done", "started", "done"]
    run(out="uninterrupted")
    assert read_json("run/02-train/state.json") == read_json("uninterrupted/02-train/state.json")
    done = read_json("run/02-train/done.json")
    assert done["attempts"] == 2 and done["total_seconds"] >= done["seconds"] + 0.05
    assert not Path("run/02-train/.123-state.json").exists()


def test_changed_settings_are_refused_with_what_changed():
    run()
    with pytest.raises(MedsegError) as caught:
        run("train.lr=0.002", "train.part.width=5")
    assert str(caught.value) == (
        "train: settings changed since run/02-train was made (lr: 0.001 -> 0.002, part.width: 3 -> 5). "
        "Use --rerun train or another --out, or keep it with --set train.lr=0.001 --set train.part.width=3."
    )
    assert [line.split()[1] for line in run()] == ["kept"] * 3  # a refusal changes nothing


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("run.seed=1", r"make: .*\(run.seed: 0 -> 1\)"),
        ("run.precision=bf16", r"\(run.precision: \"fp32\" -> \"bf16\"\)"),
    ],
)
def test_seed_and_precision_belong_to_the_result(override, change):
    run()
    with pytest.raises(MedsegError, match=change):
        run(override)


def test_settings_that_cannot_change_the_result_are_free():
    run()
    assert statuses("make.workers=8", "train.pause=0.1", "run.threads=1") == ["kept"] * 3


def test_automatic_precision_is_decided_once():
    run("run.precision=bf16")
    assert statuses("run.precision=auto") == ["kept"] * 3


def test_a_change_upstream_is_said_where_it_was_made():
    run()
    assert statuses("make.size=64", "train.lr=0.5") == ["refuse"] * 3
    with pytest.raises(MedsegError, match=r"make: settings changed .*\(size: 32 -> 64\)"):
        run("make.size=64", "train.lr=0.5")


def test_needs_decide_what_is_upstream():
    plan = plan_recipe("./toy.yaml", out="run")
    assert [list(step.record["upstream"]) for step in plan.steps()] == [[], ["make"], ["train"]]


def test_rerun_moves_the_stage_and_later_ones_and_deletes_nothing():
    run()
    old = Path("run/02-train/state.json").read_text()
    assert statuses("train.lr=0.5", rerun="train") == ["kept", "rerun", "rerun"]
    run("train.lr=0.5", rerun="train")
    (aside,) = Path("run/replaced").iterdir()
    assert sorted(os.listdir(aside)) == ["02-train", "report"]
    assert (aside / "02-train/state.json").read_text() == old != Path("run/02-train/state.json").read_text()
    run("train.lr=0.5", rerun="report")
    assert len(list(Path("run/replaced").iterdir())) == 2


def test_until_stops_early():
    assert len(run(until="make")) == 2
    assert sorted(os.listdir("run")) == ["01-make", "lock", "recipe.yaml"]
    assert statuses(until="make") == ["kept", "later", "later"]
    assert len(run()) == 5


@pytest.mark.parametrize("option", ["until", "rerun"])
def test_unknown_stage(option):
    with pytest.raises(UsageError, match=f"--{option} tran: there is no such stage; did you mean train"):
        run(**{option: "tran"})


def test_rerun_after_until_is_refused():
    with pytest.raises(UsageError, match="comes before"):
        run(rerun="train", until="make")


@pytest.mark.parametrize(
    ("end", "kind", "text"),
    [
        ("full disk", MedsegError, "disk full while writing state.json; free space and run the same command again"),
        ("person", WaitingForPerson, "paint the masks"),
        ("error", MedsegError, "found 3, wanted 4"),
        ("bug", ZeroDivisionError, "division"),
    ],
)
def test_a_stage_that_fails_can_go_on(end, kind, text):
    with pytest.raises(kind, match=text):
        run(f"train.end={end}")
    assert statuses() == ["kept", "resume", "new"]
    assert run()[-1].startswith("report")


def test_report_is_rebuilt_from_the_run_alone():
    data = Path("data")
    data.mkdir()
    (data / "a").write_text("1")
    run("train.lr=0.5", data="data", profile="demo")
    (data / "a").unlink()
    rebuild_report("run", say=lambda line: None)
    assert len(list(Path("run/replaced").glob("*/report/index.html"))) == 1
    assert Path("run/report/index.html").is_file()


def test_report_of_an_unfinished_run_or_of_no_run():
    run(until="make")
    with pytest.raises(MedsegError, match="train is not finished"):
        rebuild_report("run")
    with pytest.raises(UsageError, match="is not a run folder"):
        rebuild_report("nowhere")


def test_changed_data_are_refused():
    data = Path("data/train/Doe^John")
    data.mkdir(parents=True)
    (data / "volume").write_text("one")
    options = {"data": "data", "profile": "demo"}
    run(**options)
    assert statuses(**options) == ["kept"] * 3
    (data / "another").write_text("two")
    with pytest.raises(MedsegError, match=r"make: .*data: 1 files .* -> 2 files"):
        run(**options)
    with pytest.raises(MedsegError, match="-> the built-in phantom"):
        run()
    written = [path.read_text() for path in Path("run").rglob("*") if path.is_file()]
    assert not any("Doe" in text for text in written)  # names of data files identify people


def test_data_manifest_sees_content_and_survives_circular_links(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_text("1")
    (data / "loop").symlink_to(data)
    (data / "broken").symlink_to(tmp_path / "nothing")
    first = data_manifest(data)
    assert (first["files"], first["bytes"]) == (1, 1)
    (data / "a").write_text("2 longer")
    assert data_manifest(data)["sha256"] != first["sha256"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data": "nowhere"}, "--data nowhere does not exist"),
        ({"data": "toy.yaml"}, "--data toy.yaml is a file, wanted a folder"),
        ({"data": "."}, "--out run lies inside --data ."),
        ({"out": "toy.yaml"}, "--out toy.yaml is a file"),
        ({"out": "."}, "--out . is not empty and not a run folder"),
        ({"profile": "dmo"}, "there is no profile dmo; did you mean demo"),
    ],
)
def test_folders_and_profiles_that_cannot_be(options, text):
    with pytest.raises(UsageError) as caught:
        run(**options)
    assert text in str(caught.value)


def test_a_run_folder_belongs_to_one_recipe():
    run()
    Path("toy.yaml").write_text(RECIPE.replace("recipe: toy", "recipe: toy2"))
    with pytest.raises(UsageError, match="holds a run of the recipe toy, not of toy2"):
        run()


def test_default_folder_and_profiles():
    Path("data").mkdir()
    assert plan_recipe("./toy.yaml").run == Path("runs/toy-demo")
    assert plan_recipe("./toy.yaml", data="data").run == Path("runs/toy-paper")


def test_fingerprint_leaves_out_marked_settings_of_inner_sections_too():
    class Inner(Section):
        workers: int = Field(1, json_schema_extra={"fingerprint": False})
        width: int = 2

    class Outer(Section):
        inner: Inner = Inner()

    assert result_settings(Outer()) == {"inner": {"width": 2}}


class Lasting(toy_system.Train):
    """The toy's training, whose steps are a length; above 8 it says why not."""

    steps: int = Field(4, json_schema_extra={"length": True})

    def new_length(self, folder: Path) -> str | None:
        return "8 steps are enough" if self.steps > 8 else None


class LastingRecipe(toy_system.ToyRecipe):
    train: Lasting


def test_a_longer_training_goes_on_and_what_came_of_the_shorter_is_refused(monkeypatch):
    monkeypatch.setattr("toy_system.ToyRecipe", LastingRecipe)
    run()
    before = read_json("run/02-train/state.json")
    assert statuses("train.steps=6") == ["kept", "resume", "refuse"]
    with pytest.raises(MedsegError, match=r"report: .*\(train was made with other settings\)\. Use --rerun report"):
        run("train.steps=6")
    assert read_json("run/02-train/state.json") == before  # a refusal changes nothing
    run("train.steps=6", rerun="report")
    assert read_json("run/02-train/state.json")[:4] == before and len(read_json("run/02-train/state.json")) == 6
    assert statuses("train.steps=6") == ["kept"] * 3
    with pytest.raises(MedsegError, match=r"train: .*\(steps: 6 -> 9, 8 steps are enough\)"):
        run("train.steps=9")
    assert statuses("train.steps=7", "train.lr=0.5")[1] == "refuse"  # not the length alone


def test_a_longer_training_that_is_killed_is_not_taken_for_a_finished_one(monkeypatch):
    monkeypatch.setattr("toy_system.ToyRecipe", LastingRecipe)
    run(until="train")
    monkeypatch.setattr("toy_system.train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run("train.steps=6", until="train")
    assert statuses("train.steps=6")[1] == "resume" == statuses()[1] and not Path("run/02-train/done.json").exists()


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path):
    Path("run").mkdir()
    other = tmp_path / "letter.txt"
    other.write_text("dear reader")
    Path("run/lock").symlink_to(other)
    with pytest.raises(MedsegError, match=r"run/lock is a link"):
        run()
    assert other.read_text() == "dear reader" and sorted(os.listdir("run")) == ["lock"]


def test_kill_and_a_second_process(tmp_path):
    command = [*TOY_CLI, "toy.yaml", "--out", "run", "--set", "train.steps=12", "--set", "train.pause=0.3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        state = Path("run/02-train/state.json")
        for _ in range(600):
            if state.is_file():
                break
            time.sleep(0.05)
        with pytest.raises(MedsegError, match=rf"another process \(process {first.pid} on .* is working in run"):
            run("train.steps=12")
    finally:
        first.kill()
        first.wait()
    assert 1 <= len(read_json(state)) < 12
    assert [line.split()[1] for line in run("train.steps=12")] == ["kept", "resumed", "done", "started", "done"]
    run("train.steps=12", out="uninterrupted")
    assert state.read_bytes() == Path("uninterrupted/02-train/state.json").read_bytes()


def test_processes_of_torchrun_share_the_stage_marked_so_and_the_first_does_the_rest():
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *TOY_CLI[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for said in (["started", "done"] * 3, ["kept"] * 3):
        command = [sys.executable, *words, "toy.yaml", "--out", "run", "--device", "cpu"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert result.returncode == 0, result.stderr
        assert [line.split()[1] for line in result.stdout.splitlines()] == [*said, "run/report/index.html"]
    names = [path.name for path in sorted(Path("run").rglob("process-*"))]
    assert names == ["process-0.txt", "process-1.txt"]
    assert read_json("run/02-train/done.json")["processes"] == 2
    assert "processes" not in read_json("run/01-make/done.json")
    assert [line.split()[1] for line in run()] == ["kept"] * 3


def test_a_setting_that_only_observes_counts_where_another_makes_it_matter():
    class Observing(Section):
        every: int = Field(0, json_schema_extra={"fingerprint": {"use": "best"}})
        use: str = "latest"

    assert result_settings(Observing(every=3)) == {"use": "latest"}
    assert result_settings(Observing(every=3, use="best")) == {"every": 3, "use": "best"}


def test_a_finished_stage_whose_files_are_gone_is_not_kept():
    run()
    assert read_json("run/02-train/done.json")["files"].keys() == {"state.json"}
    Path("run/02-train/state.json").unlink()
    assert statuses() == ["kept", "refuse", "kept"]
    told = "^run/02-train is finished but state.json is missing; make it anew with --rerun train$"
    with pytest.raises(MedsegError, match=told):
        run()
    with pytest.raises(MedsegError, match=told):
        rebuild_report("run")
    assert [line.split()[1] for line in run(rerun="train")[1:]] == ["kept", "started", "done", "started", "done"]
    rebuild_report("run", say=lambda line: None)
    assert statuses() == ["kept"] * 3


def test_a_run_of_an_earlier_version_is_refused_and_can_be_made_anew():
    run()
    record = read_json("run/01-make/started.json")
    write_json("run/01-make/started.json", {**record, "version": None, "fingerprint": "0" * 64})
    told = (
        "^run/01-make was made by an earlier version of medseg-gan, and this version does not continue such runs. "
        "Use --rerun make or another --out.$"
    )
    with pytest.raises(MedsegError, match=told):
        run()
    run(rerun="make")
    assert statuses() == ["kept"] * 3


def test_a_default_is_part_of_the_result_like_any_other_value():
    """A default that a later version changes must not keep what was made with the old one."""

    class Old(Section):
        width: int = 2

    class New(Section):
        width: int = 3

    assert result_settings(Old()) == {"width": 2} != result_settings(New())
    assert result_settings(New(width=2)) == result_settings(Old())


@pytest.fixture
def reading(monkeypatch):
    """The toy's report also shows a setting of the stage `make`, as `Size`, and refuses numbers from 100 on."""

    def check(config, inputs):
        toy_system.looked.append(sorted(inputs.folders))
        if inputs.section(toy_system.Size).size >= 100:
            raise MedsegError(f"make.size {inputs.section(toy_system.Size).size} is too many to report")

    monkeypatch.setattr("toy_system.looked", [], raising=False)
    monkeypatch.setattr("toy_system.look", check, raising=False)
    changed = {"reads": (toy_system.Size,), "check": "toy_system:look"}
    stages = tuple(replace(stage, **changed) if stage.name == "report" else stage for stage in STAGES)
    monkeypatch.setattr("toy_system.STAGES", stages)


def test_settings_that_a_stage_reads_arrive_typed_and_others_do_not(reading):
    plan = plan_recipe("./toy.yaml", out="run")
    inputs = plan.inputs("cpu", plan.stages[-1])
    assert type(inputs.section(toy_system.Size)) is toy_system.Size and inputs.section(toy_system.Size).size == 32
    with pytest.raises(AssertionError, match="a stage that reads Train names it in its `reads`"):
        inputs.section(toy_system.Train)
    with pytest.raises(AssertionError):
        inputs.section(toy_system.Make)  # only what it names of it
    assert plan.inputs("cpu").section(toy_system.Train).steps == 4  # what is made from a run reads everything


def test_a_changed_setting_that_a_stage_reads_is_refused_with_its_name(reading):
    run()
    step = plan_recipe("./toy.yaml", out="run", sets=["make.size=64"]).steps()[-1]
    assert step.record["reads"] == {"make": {"size": 64}} and step.status == "refuse"
    assert str(step.refusal) == (
        "report: settings changed since run/report was made (make.size: 32 -> 64). "
        "Use --rerun report or another --out, or keep it with --set make.size=32."
    )
    assert statuses("make.kind=odd")[-1] == "refuse"  # upstream, not by reading
    assert plan_recipe("./toy.yaml", out="run", sets=["make.kind=odd"]).steps()[-1].record["reads"] == {
        "make": {"size": 32}
    }


def test_what_a_later_stage_refuses_is_told_before_any_stage_runs(reading):
    with pytest.raises(MedsegError, match=r"make\.size 128 is too many to report"):
        run("make.size=128")
    assert sorted(os.listdir("run")) == ["lock", "recipe.yaml"]
    run()
    assert toy_system.looked == [[], [], [], ["train"]]  # it sees what is finished by then
    assert [line.split()[1] for line in run()] == ["kept"] * 3 and len(toy_system.looked) == 4


def test_a_cut_off_file_of_a_finished_stage_is_noticed():
    run()
    os.truncate("run/02-train/state.json", 1)
    with pytest.raises(
        MedsegError, match=r"^run/02-train is finished but state\.json has changed in size; make it anew"
    ):
        run()


def test_a_refusal_says_how_to_keep_what_there_is():
    run()
    with pytest.raises(MedsegError) as refused:
        run("train.steps=5")
    kept = str(refused.value).partition("or keep it with --set ")[2].removesuffix(".")
    assert kept.startswith("train.steps=")
    assert [line.split()[1] for line in run(kept)] == ["kept"] * 3


def test_what_a_rerun_moves_is_told():
    run()
    first, *_ = run(rerun="train")
    assert re.fullmatch(r"moved to run/replaced/\S+: 02-train, report", first)


def test_marks_hidden_files_folders_and_checkpoints_may_go(tmp_path):
    folder = tmp_path / "01-make"
    (folder / "samples").mkdir(parents=True)
    for name in ("started.json", "done.json", ".5-x", "checkpoint-3.pt", "G_ema.pt"):
        (folder / name).write_text("")
    assert finished_files(folder) == {"G_ema.pt": 0}
    for number, name in enumerate(
        (
            "unet/real-0/w.pt",
            "unet/checkpoint-3.pt",
            "unet/.5-w.pt",
            ".cache/x",
            "a/tensorboard/x",
            "samples/x",
            "a/person/x",
        )
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x" * (number + 2))
    assert finished_files(folder, ("person",)) == {"G_ema.pt": 0, "unet/real-0/w.pt": 2}
    assert finished_files(folder).keys() == {"G_ema.pt", "unet/real-0/w.pt", "a/person/x"}


@pytest.fixture
def with_folders(monkeypatch):
    """The toy's training leaves files in subfolders; of `person` it says that they are free."""

    def train(config, folder, inputs):
        toy_train(config, folder, inputs)
        for name in ("a/one.npy", "a/deep/two.npy", "b/three.npy", "person/masks/0000.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("12345")

    toy_train = toy_system.train
    monkeypatch.setattr("toy_system.train", train)
    stages = tuple(replace(stage, free=("person",)) if stage.name == "train" else stage for stage in STAGES)
    monkeypatch.setattr("toy_system.STAGES", stages)
    run()
    return Path("run/02-train")


def test_lost_and_changed_files_of_subfolders_are_noticed(with_folders):
    (with_folders / "a" / "new.txt").write_text("more is no loss")
    assert statuses() == ["kept"] * 3
    (with_folders / "b" / "three.npy").write_text("1234")
    (with_folders / "a" / "deep" / "two.npy").write_text("")
    told = (
        r"^run/02-train is finished but a/deep/two\.npy and 1 more files have changed in size; "
        "make it anew with --rerun train$"
    )
    with pytest.raises(MedsegError, match=told):
        run()
    shutil.rmtree(with_folders / "a" / "deep")
    with pytest.raises(MedsegError, match=r"^run/02-train is finished but a/deep/two\.npy is missing; make it anew"):
        run()
    assert statuses() == ["kept", "refuse", "kept"]
    with pytest.raises(MedsegError, match=r"a/deep/two\.npy is missing"):
        rebuild_report("run")
    assert run(rerun="train")[-1].startswith("report") and statuses() == ["kept"] * 3


def test_folders_where_a_person_works_may_change(with_folders):
    assert "person/masks/0000.png" not in read_json(with_folders / "done.json")["files"]
    shutil.rmtree(with_folders / "person")
    assert statuses() == ["kept"] * 3


def test_a_kept_stage_says_what_there_is_to_notice(monkeypatch):
    run()
    stages = tuple(replace(stage, notice="toy_system:seen" if stage.name == "train" else None) for stage in STAGES)
    monkeypatch.setattr("toy_system.STAGES", stages)
    monkeypatch.setattr("toy_system.seen", lambda folder: f"{folder} was looked at", raising=False)
    assert run()[1:3] == ["02-train  kept", "run/02-train was looked at"]
    monkeypatch.setattr("toy_system.seen", lambda folder: None)
    assert len(run()) == 3
