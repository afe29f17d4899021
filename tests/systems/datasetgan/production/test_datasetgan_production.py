"""Synthesis at scale: the same bytes by any number of processes, after a kill, in parts; and one line for mistakes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from finished_run import SPACING, TABLE, WINDOW, finished_run, pairs_of
from PIL import Image
from typer.testing import CliRunner

from medseg_gan.api import open_factory, synthesize_pairs
from medseg_gan.cli import app
from medseg_gan.data.slices import SliceStore, to_grey, to_hu, write_store
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.machine import processes
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.systems.datasetgan.factory import LabelFactory
from medseg_gan.systems.datasetgan.production import shards as pair_shards
from medseg_gan.systems.datasetgan.production import synthesize as production
from medseg_gan.systems.datasetgan.production.files import factory_files
from medseg_gan.systems.datasetgan.production.shards import Shape, cut_shards, make_shard
from medseg_gan.systems.datasetgan.quality.model import CLASSES
from medseg_gan.systems.datasetgan.quality.stage import learn_quality
from medseg_gan.systems.plan import open_run
from medseg_gan.training import pool
from medseg_gan.training.log import Progress
from medseg_gan.training.pool import run_jobs

FIRST = 10_000_000
SCRIPT = Path(__file__).with_name("synthesize_in_two.py")
NUM, SHARD = 56, 8  # as in the script


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("production") / "run")


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by this process in one go."""
    return synthesize_pairs(run, NUM, tmp_path_factory.mktemp("whole") / "out", to="png", shard=SHARD, workers=1)


def hashes(folder: Path) -> dict[str, str]:
    """All files, hidden ones as well, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def call(*words: object) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, ["synthesize", *map(str, words)])
    return result.exit_code, result.output.splitlines()


def test_pictures_are_the_factorys_pairs(run: Path, whole: Path) -> None:
    pairs = open_factory(run, "cpu").label(range(FIRST, FIRST + NUM))
    found = rows(whole)
    assert [int(row["index"]) for row in found] == list(range(FIRST, FIRST + NUM))
    for row, image, label, score in zip(found, pairs.images, pairs.labels, pairs.scores, strict=True):
        np.testing.assert_array_equal(
            np.asarray(Image.open(whole / row["image"])), to_grey(to_hu(image[0].numpy(), WINDOW), WINDOW)
        )
        np.testing.assert_array_equal(np.asarray(Image.open(whole / row["label"])), label.numpy())
        assert float(row["uncertainty"]) == pytest.approx(float(score), rel=1e-6)
        for kind in ("image", "label"):
            assert hashlib.sha256((whole / row[kind]).read_bytes()).hexdigest() == row[f"{kind}_sha256"]


def test_a_seed_of_the_manifest_makes_its_latent(run: Path, whole: Path) -> None:
    z, _ = open_factory(run, "cpu").source.latents(range(FIRST + 9, FIRST + 10))
    generator = torch.Generator().manual_seed(int(rows(whole)[9]["z_seed"]))
    assert torch.equal(torch.randn(z.shape[1], generator=generator), z[0])


def test_the_manifest_says_what_made_the_pairs(run: Path, whole: Path) -> None:
    manifest = read_json(whole / "manifest.json")
    noted = read_json(run / "05-synthesize" / "train" / "sampling.json")
    assert manifest["generator_sha256"] == noted["weights_sha256"]
    assert manifest["interpreter_sha256"] == noted["interpreter_sha256"]
    assert manifest["sampling"] == noted["sampling"] and manifest["synthetic"]
    assert manifest["pairs"] == NUM and sum(manifest["shards"].values()) == NUM
    assert manifest["manifest_sha256"] == hashlib.sha256((whole / "manifest.csv").read_bytes()).hexdigest()
    assert manifest["annotator"]["who"] == "a segmenter (unet)"
    assert not {str(run), run.parent.name} & set((whole / "manifest.json").read_text().split('"'))
    assert "Research only" in (whole / "README.md").read_text()


def test_no_index_is_one_of_the_runs_own(run: Path, whole: Path) -> None:
    own = set(np.load(pairs_of(run).folder / "indices.npy").tolist())
    assert not own & {int(row["index"]) for row in rows(whole)} and max(own) < FIRST


def test_killed_under_torchrun_and_finished_by_two_workers_makes_the_same_bytes(
    run: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT), str(run), str(out)]
    process = subprocess.Popen(
        [sys.executable, *words],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while len(list(out.glob("shard-*.csv"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.csv")}
    assert len(made) >= 2 and not (out / "manifest.json").exists(), "it was to be killed in the middle"
    numbers = {int(name[6:12]) % 2 for name in made}
    assert numbers == {0, 1}, "each process makes every second shard"

    assert call(run, "--num", NUM, "--out", out, "--to", "png", "--shard", SHARD, "--workers", 2)[0] == 0
    assert hashes(out) == hashes(whole)
    assert made.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.csv")}.items()


@pytest.mark.parametrize("to", ["shards", "png", "nifti"])
def test_parts_of_a_job_array_make_the_same_bytes_and_the_last_one_the_manifest(
    run: Path, tmp_path: Path, to: str
) -> None:
    one = synthesize_pairs(run, 10, tmp_path / "one", to=to, shard=4, workers=1)
    parts = tmp_path / "parts"
    common = (run, "--num", 10, "--to", to, "--shard", 4, "--workers", 1, "--out", parts)
    code, told = call(*common, "--part", "2/2")
    assert code == 0 and told == [f"part 2/2 is finished; the part that finishes last writes {parts / 'manifest.csv'}"]
    assert not (parts / "manifest.csv").exists()
    code, told = call(*common, "--part", "1/2")
    assert (code, told) == (0, [f"pairs: {parts / 'manifest.csv'}"])
    assert hashes(parts) == hashes(one)


def test_ranks_of_torchrun_share_the_shards(run: Path, whole: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "gathered", lambda tensor: tensor)
    for rank in (1, 0):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        out = synthesize_pairs(run, NUM, tmp_path / "out", to="png", shard=SHARD, workers=1)
        assert len(list(out.glob("shard-*.csv"))) == (3, 7)[rank == 0]
    assert hashes(out) == hashes(whole)


def test_workers_count_blocks_and_not_shards(run: Path, tmp_path: Path, monkeypatch) -> None:
    """What workers do, done here: starting processes takes longer than the pairs."""
    seen: list[int] = []

    class Kept(Progress):
        def update(self, count: int = 1) -> None:
            super().update(count)
            seen.append(self.done)

    monkeypatch.setattr(pool, "Progress", Kept)
    monkeypatch.setattr(
        production,
        "run_jobs",
        lambda function, jobs, workers, *rest, **words: run_jobs(function, jobs, 1, *rest, **words),
    )
    out = synthesize_pairs(run, 20, tmp_path / "out", to="png", shard=8, workers=2)  # blocks of 4
    assert sorted(set(seen)) == [4, 8, 12, 16, 20] and seen == sorted(seen)
    assert hashes(out) == hashes(synthesize_pairs(run, 20, tmp_path / "one", to="png", shard=8, workers=1))


class Stopped(BaseException):
    """As if the process ended here."""


@pytest.mark.parametrize("to", ["shards", "png"])
@pytest.mark.parametrize("where", ["half a shard", "before the record"])
def test_whatever_an_end_leaves_is_made_anew(run: Path, tmp_path: Path, monkeypatch, to: str, where: str) -> None:
    one = synthesize_pairs(run, 8, tmp_path / "one", to=to, shard=8, workers=1)
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("medseg_gan.export.pair_files.remove", lambda path: None)  # a killed process cleans nothing
        if where == "half a shard":
            made: list[int] = []
            label = LabelFactory.label

            def stop(factory: LabelFactory, part: range) -> object:
                made.append(part.start)
                if len(made) == 2:
                    raise Stopped
                return label(factory, part)

            patched.setattr(LabelFactory, "label", stop)
        else:

            def no_record(path: Path) -> None:
                raise Stopped

            patched.setattr(pair_shards, "atomic_path", no_record)
        with pytest.raises(Stopped):
            synthesize_pairs(run, 8, out, to=to, shard=8, workers=1)
    assert not list(out.glob("shard-*.csv")) and not (out / "manifest.json").exists()
    assert len(list(out.iterdir())) > 1, "something was left"
    synthesize_pairs(run, 8, out, to=to, shard=8, workers=1)
    assert hashes(out) == hashes(one)


def test_shards_that_are_there_are_kept_and_a_lost_one_is_made_again(run: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "shard-000003")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    synthesize_pairs(run, NUM, out, to="png", shard=SHARD, workers=1)
    assert hashes(out) == hashes(whole)
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    synthesize_pairs(run, NUM, out, to="png", shard=SHARD, workers=1)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*")}, "nothing is left to do"


def cut(path: Path, to: int = -1) -> None:
    path.write_bytes(path.read_bytes()[:to])


def flip(path: Path, at: int) -> None:
    """Change one byte; the size stays."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def flip_in_tar(ending: str, at: int) -> Callable[[Path], None]:
    """A change of one byte of the last file of that ending in a tar, counted from where its content begins."""

    def spoil(out: Path) -> None:
        with tarfile.open(out / "shard-000001.tar") as shard:
            place = [entry.offset_data for entry in shard if entry.name.endswith(ending)][-1]
        flip(out / "shard-000001.tar", place + at)

    return spoil


DAMAGES = {
    "tar's image": ("shards", flip_in_tar(".image.npy", 200), "another content of generated-0010000007.image.npy"),
    "tar's label": ("shards", flip_in_tar(".label.png", 40), "another content of generated-0010000007.label.png"),
    "tar's json": ("shards", flip_in_tar(".json", 0), "another content of generated-0010000007.json"),
    "tar's spacing": (
        "shards",
        lambda out: flip(out / "shard-000001.tar", (out / "shard-000001.tar").read_bytes().rindex(b'_mm": [') + 7),
        "another content of generated-0010000007.json",
    ),
    "tar's name": ("shards", flip_in_tar(".label.png", -505), "another content of"),
    "picture changed": (
        "png",
        lambda out: flip(max((out / "shard-000001" / "labels").iterdir()), 40),
        "another content of shard-000001/labels/generated-0010000007.png",
    ),
    "volume changed": (
        "nifti",
        lambda out: flip(min((out / "shard-000001" / "images").iterdir()), 100),
        "another content of shard-000001/images/generated-0010000004.nii.gz",
    ),
    "tar cut": ("shards", lambda out: cut(out / "shard-000001.tar", -512), "has 9728 bytes instead of"),
    "tar empty": ("shards", lambda out: cut(out / "shard-000001.tar", 0), "has 0 bytes instead of"),
    "picture lost": ("png", lambda out: next((out / "shard-000001" / "labels").iterdir()).unlink(), "lacks shard-0000"),
    "picture cut": ("png", lambda out: cut(next((out / "shard-000001" / "images").iterdir())), "has another size of"),
    "volume lost": ("nifti", lambda out: next((out / "shard-000001" / "images").iterdir()).unlink(), "lacks shard-0"),
    "folder lost": ("png", lambda out: shutil.rmtree(out / "shard-000001"), "is missing"),
    "record cut": ("png", lambda out: cut(out / "shard-000001.csv", -20), "cut off or edited"),
    "record's end cut": ("png", lambda out: cut(out / "shard-000001.csv"), "cut off or edited"),
    "record's first line": ("png", lambda out: cut(out / "shard-000001.csv", 30), "cut off or edited"),
    "record empty": ("png", lambda out: cut(out / "shard-000001.csv", 0), "cut off or edited"),
    "record's last pair": (
        "png",
        lambda out: cut(out / "shard-000001.csv", (out / "shard-000001.csv").read_bytes()[:-1].rindex(b"\n") + 1),
        "of other pairs",
    ),
    "record lost": ("png", lambda out: (out / "shard-000001.csv").unlink(), "lacks its record, shard-000001.csv"),
    "tar's record lost": ("shards", lambda out: (out / "shard-000001.csv").unlink(), "its record, shard-000001.csv"),
    "no bytes": ("png", lambda out: (out / "shard-000001.csv").write_bytes(b"\xff\x00"), "cut off or edited"),
}


@pytest.fixture(scope="module")
def small(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("small")
    return {to: synthesize_pairs(run, 8, folder / to, to=to, shard=4, workers=1) for to in ("shards", "png", "nifti")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_made_anew_and_told(run: Path, small: dict[str, Path], tmp_path: Path, damage: str) -> None:
    to, spoil, part = DAMAGES[damage]
    out = tmp_path / "out"
    shutil.copytree(small[to], out)
    if damage == "tar cut":
        part = f"has {(out / 'shard-000001.tar').stat().st_size - 512} bytes instead of"
    spoil(out)
    assert hashes(out) != hashes(small[to])
    before = {path: path.stat().st_mtime_ns for path in out.glob("shard-000000*")}
    words = (run, "--num", 8, "--to", to, "--shard", 4, "--workers", 1, "--out", out)
    code, told = call(*words)
    said = [line for line in told if "making it again" in line]
    assert code == 0 and len(said) == 1 and said[0].startswith("synthesize: shard 1 ") and part in said[0], told
    assert hashes(out) == hashes(small[to])
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert call(*words) == (0, [f"pairs: {out / 'manifest.csv'}"])


@pytest.mark.parametrize("name", ["manifest.json", "manifest.csv"])
@pytest.mark.parametrize("content", ["{", "[]", "{}", ""])
def test_a_damaged_manifest_is_written_anew(
    run: Path, small: dict[str, Path], tmp_path: Path, name: str, content: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(small["png"], out)
    (out / name).write_text(content)
    code, told = call(run, "--num", 8, "--to", "png", "--shard", 4, "--workers", 1, "--out", out)
    assert code == 0 and any("written anew" in line for line in told)
    assert hashes(out) == hashes(small["png"])


def test_damaged_settings_are_one_line(run: Path, small: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(small["png"], tmp_path / "out")
    for content in ("{", "[]"):
        (tmp_path / "out" / "settings.json").write_text(content)
        with pytest.raises(MedsegError, match="another --out"):
            synthesize_pairs(run, 8, tmp_path / "out", to="png", shard=4, workers=1)


def test_a_shard_of_no_whole_blocks_is_told(run: Path, tmp_path: Path) -> None:
    code, told = call(run, "--num", 8, "--shard", 7, "--workers", 1, "--out", tmp_path / "out")
    assert code == 0
    assert "synthesize: --shard 7: images are rendered 4 at a time, so a shard holds 4 pairs" in told
    assert read_json(tmp_path / "out" / "manifest.json")["shards"] == {"shard-000000.tar": 4, "shard-000001.tar": 4}


def test_a_shard_that_another_process_makes_is_left_to_it(run: Path, tmp_path: Path) -> None:
    """A record lock belongs to a process, so that another one has to hold it."""
    lock = tmp_path / ".shard-000000.tar.lock"
    hold = f"import fcntl; f = open({str(lock)!r}, 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline()
    factory, shape = open_factory(run, "cpu"), Shape("shards", WINDOW, SPACING)
    shard = cut_shards(0, 4, 4, 4)[0]
    assert not make_shard(tmp_path, shard, factory, shape)
    other.communicate(b"\n")
    assert make_shard(tmp_path, shard, factory, shape)
    assert not make_shard(tmp_path, shard, factory, shape), "it is there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-000000.csv", "shard-000000.tar"]


def test_cuts_lie_at_the_same_places_whatever_is_asked_for() -> None:
    every = {shard.number: set(shard.indices) for shard in cut_shards(0, 100, 6, 20)}
    assert all(min(part) % 6 == 0 for number, part in every.items() if number)  # whole blocks but at the ends
    for start, num in ((0, 1), (7, 30), (18, 18), (95, 5)):
        parts = cut_shards(start, num, 6, 20)
        assert [index for part in parts for index in part.indices] == list(range(FIRST + start, FIRST + start + num))
        assert all(set(part.indices) <= every[part.number] for part in parts)


def test_samples_of_a_tar_are_read_by_webdataset_and_nifti_has_the_geometry(run: Path, tmp_path: Path) -> None:
    pairs = open_factory(run, "cpu").label(range(FIRST, FIRST + 4))
    hu = to_hu(pairs.images[:, 0].numpy(), WINDOW)
    folder = synthesize_pairs(run, 4, tmp_path / "tar", workers=1)
    with tarfile.open(folder / "shard-000000.tar") as shard:
        members = shard.getmembers()
        files = {entry.name: shard.extractfile(entry).read() for entry in members}  # type: ignore[union-attr]
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in members} == {(0, 0, 0, "")}
    for k, row in enumerate(rows(folder)):
        np.testing.assert_array_equal(np.load(io.BytesIO(files[row["image"]])), hu[k])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(files[row["label"]]))), pairs.labels[k].numpy())
        facts = json.loads(files[f"{row['name']}.json"])
        assert facts["z_seed"] == int(row["z_seed"]) and facts["synthetic"] and facts["spacing_mm"] == list(SPACING)
    folder = synthesize_pairs(run, 4, tmp_path / "nifti", to="nifti", workers=1)
    for k, row in enumerate(rows(folder)):
        image, label = (nibabel.load(folder / row[kind]) for kind in ("image", "label"))
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, hu[k])
        np.testing.assert_array_equal(np.asarray(label.dataobj).T, pairs.labels[k].numpy())
        assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.header.get_zooms()[:2], [SPACING[1], SPACING[0]])


@pytest.fixture(scope="module")
def judged(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with quality control: what the ensemble itself expects, and rules learned from its first pairs."""
    other = tmp_path_factory.mktemp("judged") / "run"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("synthesized"))
    pairs, annotation = pairs_of(other), other / "03-annotate"
    write_store(annotation / "annotated", pairs.images, pairs.labels, pairs.records, WINDOW, TABLE)
    store = SliceStore.open(other / "01-prepare")
    never = {"annotated": None, "refit": None}
    learn_quality(other / "05-synthesize", open_factory(run, "cpu"), store, annotation, folds=0, seed=0, **never)
    return other


def test_predicted_quality_stands_in_the_manifest_and_chooses_what_is_kept(judged: Path, tmp_path: Path) -> None:
    folder = synthesize_pairs(judged, 12, tmp_path / "all", shard=4, workers=1)
    found, manifest = rows(folder), read_json(folder / "manifest.json")
    judge = factory_files(open_run(judged)).open_judge()
    assert judge is not None
    factory = open_factory(judged, "cpu")
    told = [judge(factory.label(range(FIRST + start, FIRST + start + 4))) for start in (0, 4, 8)]
    assert [row["class"] for row in found] == np.concatenate([part["class"] for part in told]).tolist()
    predicted = np.concatenate([part["predicted_wrong"] for part in told])
    np.testing.assert_allclose([float(row["predicted_wrong"]) for row in found], predicted, rtol=1e-5)
    counts = Counter(row["class"] for row in found)
    assert manifest["predicted_quality"] == counts and manifest["left_out"] == 0 and manifest["quality_sha256"]
    some = next(iter(counts))
    kept = synthesize_pairs(judged, 12, tmp_path / "some", shard=4, workers=1, keep=some)
    assert rows(kept) == [row for row in found if row["class"] == some]
    assert read_json(kept / "manifest.json")["left_out"] == 12 - counts[some]
    left_out = {name: count for name, count in counts.items() if name != some}
    assert read_json(kept / "manifest.json").get("predicted_of_left_out", {}) == left_out


def test_what_was_kept_is_told_and_nothing_at_all_is_an_error(judged: Path, tmp_path: Path) -> None:
    found = rows(synthesize_pairs(judged, 12, tmp_path / "all", shard=4, workers=1))
    counts = Counter(row["class"] for row in found)
    every = ", ".join(f"{name} {counts[name]}" for name in CLASSES if counts[name])
    some = next(iter(counts))
    words = (judged, "--num", 12, "--shard", 4, "--workers", 1, "--out")
    for _ in range(2):  # made, and there already
        code, told = call(*words, tmp_path / "some", "--keep", some)
        assert code == 0 and f"synthesize: {counts[some]} of 12 pairs kept (predicted: {every})" in told
    none = next(name for name in CLASSES if name not in counts)
    best = next(name for name in CLASSES if counts[name])
    better = ",".join(name for name in CLASSES if name in (none, best))
    for _ in range(2):
        code, told = call(*words, tmp_path / "none", "--keep", none)
        assert code == 1 and f"0 of 12 pairs kept, predicted {every}; use --keep {better}" in told[-1]
    empty = tmp_path / "none"
    manifest = read_json(empty / "manifest.json")
    assert rows(empty) == [] and manifest["left_out"] == 12 and "uncertainty_nats" not in manifest
    assert "uncertainty" not in (empty / "README.md").read_text()
    code, told = call(*words, tmp_path / "parts", "--keep", none, "--part", "1/3")
    assert code == 0 and any(line.startswith("synthesize: so far 0 of 4 pairs kept") for line in told)


def test_lost_quality_is_told_and_damaged_quality_is_one_line(judged: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(judged, other)
    noted, model = other / "05-synthesize" / "train" / "sampling.json", other / "05-synthesize" / "quality.json"
    write_json(noted, read_json(noted) | {"judged": True})
    words = (other, "--num", 4, "--workers", 1, "--out", tmp_path / "out")
    for content in ("{}", "[]", "{", '{"model": {}}'):
        model.write_text(content)
        code, told = call(*words)
        assert code == 1 and len(told) == 1 and "quality.json" in told[0] and "--rerun synthesize" in told[0], told
    model.unlink()
    code, told = call(*words)
    lost = [line for line in told if "this run has no quality.json: pairs carry no prediction" in line]
    assert code == 0 and len(lost) == 1 and "--rerun synthesize" in lost[0]


def test_quality_that_does_not_exist_is_refused(run: Path, judged: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="does not have; use --rerun synthesize"):
        synthesize_pairs(run, 4, tmp_path / "out", keep="good")
    with pytest.raises(UsageError, match="--keep god: wanted some of good,partial,bad; did you mean good"):
        synthesize_pairs(judged, 4, tmp_path / "out", keep="god,bad")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("--num", 0), 2, "--num 0: wanted 1 or more"),
        (("--num", 5, "--start", -1), 2, "--start -1: wanted 0 or more"),
        (("--num", 5, "--shard", 0), 2, "--shard 0: wanted 1 or more"),
        (("--num", 5, "--shard", 1001, "--to", "png"), 2, "at most 1000"),
        (("--num", 5, "--workers", -1), 2, "--workers -1"),
        (("--num", 5, "--part", "3/2"), 2, "--part 3/2: wanted I/N"),
        (("--num", 5, "--part", "0/2"), 2, "--part 0/2: wanted I/N"),
        (("--num", 5, "--part", "half"), 2, "--part half: wanted I/N"),
        (("--num", 5, "--to", "jpeg"), 2, "jpeg"),
        (("--num", 5, "--start", 10**10), 2, "--start 10000000000 on: a run has 9990000000 pairs to make"),
        (("--num", 10**20 - 1), 2, "--num 99999999999999999999 from --start 0 on: a run has 9990000000 pairs to make"),
        (("--num", 5, "--out", ""), 2, "--out is empty"),
    ],
)
def test_a_mistake_is_one_line(run: Path, tmp_path: Path, monkeypatch, words: tuple, code: int, part: str) -> None:
    monkeypatch.chdir(tmp_path)
    ended, told = call(run, *words)
    assert ended == code and len(told) == 1 and part in told[0] and "Error:" not in told[0], told
    assert not list(tmp_path.iterdir())
    assert not (run / "synthesized").exists()


def test_folders_of_others_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    for out, part in (
        (run / "05-synthesize" / "more", "lies in the folder of the stage synthesize"),
        (tmp_path, "holds something else"),
        (tmp_path / "note.txt", "is a file"),
        (run, "holds something else"),
    ):
        with pytest.raises(UsageError, match=part):
            synthesize_pairs(run, 4, out, workers=1)
    with pytest.raises(UsageError, match=r"jpeg.*wanted one of shards, png, nifti"):
        synthesize_pairs(run, 4, tmp_path / "x", to="jpeg")


def test_other_settings_are_refused_with_what_changed(run: Path, whole: Path) -> None:
    before = hashes(whole)
    with pytest.raises(MedsegError, match=r"num: 56 -> 60\); use another --out with --start 56 --num 4 for the pairs"):
        synthesize_pairs(run, 60, whole, to="png", shard=SHARD, workers=1)
    for fewer_or_otherwise in ({"num": 20}, {"num": 60, "start": 8}):  # there is no rest to ask for
        with pytest.raises(MedsegError, match=r"num: 56 -> .*; use another --out$"):
            synthesize_pairs(run, out=whole, to="png", shard=SHARD, workers=1, **fewer_or_otherwise)
    with pytest.raises(MedsegError, match=r'format: "png" -> "nifti"'):
        synthesize_pairs(run, NUM, whole, to="nifti", shard=SHARD, workers=1)
    assert hashes(whole) == before


def test_the_rest_of_a_larger_number_is_what_the_hint_asks_for(run: Path, tmp_path: Path) -> None:
    words = (run, "--to", "png", "--shard", 8, "--workers", 1, "--out")
    call(*words, tmp_path / "some", "--start", 4, "--num", 4)
    code, (told,) = call(*words, tmp_path / "some", "--start", 4, "--num", 12)
    hint = told.partition("use another --out with ")[2].partition(" for ")[0]
    assert (code, hint) == (1, "--start 8 --num 8")
    call(*words, tmp_path / "rest", *hint.split())
    call(*words, tmp_path / "all", "--start", 4, "--num", 12)
    assert rows(tmp_path / "some") + rows(tmp_path / "rest") == rows(tmp_path / "all")


def test_a_run_with_other_weights_or_unfinished_stages_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("synthesized"))
    noted = other / "05-synthesize" / "train" / "sampling.json"
    write_json(noted, read_json(noted) | {"weights_sha256": "0" * 64})
    with pytest.raises(MedsegError, match=r"other weights .* --rerun synthesize"):
        synthesize_pairs(other, 4, workers=1)
    (other / "04-train_interpreter" / "done.json").unlink()
    with pytest.raises(MedsegError, match="train_interpreter is not finished"):
        open_factory(other)
    assert not (other / "synthesized").exists()
    with pytest.raises(UsageError, match="not a run folder"):
        open_factory(tmp_path)


def test_a_full_disk_is_one_line(run: Path, tmp_path: Path, monkeypatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MedsegError, match=r"disk full while writing .*shard-000000; free space and run the same"):
        synthesize_pairs(run, 4, tmp_path / "out", to="png", workers=1)
    assert not list((tmp_path / "out").glob("*shard*.part")) and not list((tmp_path / "out").glob("shard*"))
