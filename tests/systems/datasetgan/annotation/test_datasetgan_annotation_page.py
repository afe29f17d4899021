"""The annotation page of a run: thirty slices from pre-labels teach an interpreter; wrong runs are told in a line."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_run import SIZE, SPACING, TABLE, WINDOW, finished_run
from typer.testing import CliRunner

from medseg_gan.annotate.answers import read_masks
from medseg_gan.annotate.files import export_images
from medseg_gan.cli import app
from medseg_gan.data.slices import to_hu
from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import write_json
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.systems.datasetgan.annotation.page import LUNG_RULE, Quick, build_guide, lung_rule, next_command
from medseg_gan.systems.datasetgan.interpreter.model import load_interpreter
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Sampling
from medseg_gan.systems.plan import open_run
from medseg_gan.training.stylegan2 import load_generator

COUNT = 30


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def waiting(finished: Path, tmp_path: Path) -> Path:
    """A run whose stage annotate has exported its images and waits."""
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("0[3-9]-*"))
    settings = open_run(run).recipe.settings
    source = ImageSource(
        FeatureExtractor(load_generator(run / "02-train_gan" / "G_ema.pt")),
        Sampling(
            seed=mix_seed(settings.run.seed, "latents"),
            psi=settings.annotate.truncation_psi,
            precision=open_run(run).precision(),
        ),
        "cpu",
    )
    images = to_hu(source.render(range(COUNT)).images[:, 0].numpy(), WINDOW)
    export_images(run / "03-annotate" / "person", images, window=WINDOW, spacing=SPACING, table=TABLE)
    return run


def by_brightness(image: np.ndarray) -> np.ndarray:
    """A rule for noise: thirds of the grey values are background, heart and aorta."""
    return np.digitize(image, np.quantile(image, (1 / 3, 2 / 3))).astype(np.uint8)


def test_thirty_slices_saved_from_pre_labels_through_the_page_give_an_interpreter(waiting: Path) -> None:
    page_module = pytest.importorskip("medseg_gan.annotate.page", reason="gradio is not installed")
    guide = build_guide(open_run(waiting), "cpu", Quick(members=1, image_members=1, steps=4))
    guide.rules["brightness"] = by_brightness
    page = page_module.Page(guide, "go on")
    page.build("test")
    level, width = sum(WINDOW) / 2, WINDOW[1] - WINDOW[0]

    update = page.first(level, width)
    for k in range(COUNT):
        session, editor = update[page.session], update[page.editor]
        assert session.opened.state == "to do"
        update = page.pre_label(session, editor, "brightness", level, width)
        update = page.save_and_next(update[page.session], update[page.editor], level, width)
        assert f"{k:04d} is saved" in update[page.said]
    assert "All images are answered. Go on with: go on" in update[page.said]
    assert "30 of 30 painted" in update[page.progress] and "Dice 0.9 or more" in update[page.times]
    labels = read_masks(guide.work.folder, TABLE).labels
    np.testing.assert_array_equal(labels[7], by_brightness(guide.work.open(guide.work.names[7]).image))

    page.train()
    guide.wait()
    assert guide.said == f"interpreter 1: ready, from {COUNT} painted images"
    assert load_interpreter(guide.work.folder / "interpreter-1").labellers == ("features", "image", "average")
    assert guide.pre_label(guide.work.names[0], "interpreter 1").shape == (SIZE, SIZE)
    assert len(guide.scores()) == COUNT and min(guide.scores().values()) >= 0
    assert guide.kinds == ["interpreter 1", LUNG_RULE, "brightness"]
    assert "interpreter 1" in str(page.tick(update[page.session])[page.kind].choices)


def test_another_generator_is_refused_for_training(waiting: Path) -> None:
    guide = build_guide(open_run(waiting), "cpu", Quick(members=1, image_members=1, steps=2))
    recipe = waiting / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 5"))
    other = build_guide(open_run(waiting), "cpu", Quick(members=1, image_members=1, steps=2))
    for name in guide.work.names[:3]:
        opened = guide.work.open(name)
        guide.work.save(opened, by_brightness(opened.image), seconds=1.0)
    other.start()
    other.wait()
    assert "does not draw the images of" in other.said and other.current is None


def test_the_lung_rule_speaks_the_ids_of_any_table() -> None:
    hu = np.full((64, 64), -1000, np.int16)
    hu[8:56, 4:60] = 40
    hu[16:48, 10:26], hu[16:48, 38:54] = -850, -850
    found = {}
    for name in ("paper", "lungs"):
        label = lung_rule(lookup_table(name), 5.0)(hu)
        assert label is not None
        found[name] = label
        assert label[30, 45] == lookup_table(name).id_of("left_lung")  # the patient's left is at the right
        assert label[30, 18] == lookup_table(name).id_of("right_lung")
    assert ((found["paper"] > 0) == (found["lungs"] > 0)).all()
    assert lung_rule(lookup_table("paper"), 5.0)(np.full((64, 64), 40, np.int16)) is None


def one_line(run: Path, *words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["annotate", str(run), "--no-browser", *words])
    opening, *lines = [line for line in ended.output.splitlines() if line.strip()]
    assert opening == f"annotate: opening the page for {run} ..." and len(lines) == 1, ended.output
    return ended.exit_code, lines[0]


def test_runs_that_do_not_wait_for_a_person_are_told_in_a_line(waiting: Path, finished: Path, tmp_path: Path) -> None:
    code, line = one_line(tmp_path)
    assert code == 2 and "is not a run folder" in line
    code, line = one_line(finished)
    assert code == 1 and "was annotated by a segmenter (unet); for a person to paint" in line
    shutil.rmtree(waiting / "03-annotate")
    code, line = one_line(waiting)
    assert code == 1 and "has exported no images yet; medseg-gan recipe segthor_datasetgan --out" in line
    assert "--profile smoke" in line and "--set prepare.size=16" in line
    (waiting / "02-train_gan" / "done.json").unlink()
    code, line = one_line(waiting)
    assert code == 1 and "has no finished GAN yet" in line


def test_a_finished_annotation_is_said_and_is_no_error(waiting: Path) -> None:
    write_json(waiting / "03-annotate" / "done.json", {})
    write_json(waiting / "03-annotate" / "annotator.json", {"kind": "person", "who": "", "sampled": 31})
    code, line = one_line(waiting)
    assert code == 0 and "is finished: 31 images were answered" in line and next_command(open_run(waiting)) in line


def test_other_versions_foreign_masks_and_a_taken_port_are_told_before_anything_opens(waiting: Path) -> None:
    manifest = waiting / "03-annotate" / "person" / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"version": 1', '"version": 7'))
    code, line = one_line(waiting)
    assert code == 1 and "is of another version of medseg-gan (its format is 7" in line
    manifest.write_text(whole)
    (foreign := manifest.parent / "masks" / "0000-ffffffff.png").write_bytes(b"")
    code, line = one_line(waiting)
    assert code == 1 and "was painted on another image than 0000-" in line
    foreign.unlink()
    recipe = waiting / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text + "younger: {setting: 1}\n")
    code, line = one_line(waiting)
    assert code == 2 and "younger" in line
    recipe.write_text(text)
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = one_line(waiting, "--port", str(port))
    assert code == 1 and f"port {port} is in use" in line and "--port" in line


def test_without_gradio_the_extra_is_named(waiting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("page", "server"):
        monkeypatch.delitem(sys.modules, f"medseg_gan.annotate.{name}", raising=False)
    code, line = one_line(waiting)
    assert code == 1 and "needs the package gradio, which is not installed; pip install 'medseg-gan[annotate]'" in line


def test_no_generator_no_interpreter(waiting: Path) -> None:
    (waiting / "02-train_gan" / "G_ema.pt").unlink()
    with pytest.raises(MedsegError, match="no generator to train"):
        build_guide(open_run(waiting)).start()
