"""The labeller is chosen on images it did not learn from; ties go to the simpler, and nothing is done twice."""

import numpy as np
import pytest
from feature_labels import small_source, truth_of

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json
from medseg_gan.systems.datasetgan.interpreter import selection
from medseg_gan.systems.datasetgan.interpreter.choice import choose
from medseg_gan.systems.datasetgan.interpreter.selection import (
    CANDIDATES,
    Held,
    Trial,
    load_selection,
    select_labeller,
)
from medseg_gan.systems.datasetgan.interpreter.settings import InterpreterTraining

K = 3


@pytest.fixture(scope="module")
def source():
    return small_source()


def select(folder, source, names, *, images=6, steps=3, **settings):
    rendered = source.render(range(images))
    held = source.render(range(100, 104))
    how = InterpreterTraining(members=1, image_members=1, steps=steps, pixel_batch=64, preset="datasetgan")
    candidates = {name: CANDIDATES[name] for name in names}
    return select_labeller(
        folder,
        rendered,
        truth_of(rendered),
        Trial(how, candidates, folds=3, calibrate="temperature", max_steps=60, precision="fp32"),
        **{
            "num_classes": K,
            "seed": 1,
            "workers": 1,
            "held_out": Held(source, np.arange(100, 104), truth_of(held).numpy()),
            **settings,
        },
    )


def test_the_best_is_taken_where_it_is_clearly_better():
    folds = {"simple": [0.5, 0.6, 0.5], "good": [0.7, 0.8, 0.75]}
    best, chosen, compared = choose(folds, {"simple": 0.53, "good": 0.75})
    assert (best, chosen) == ("good", "good") and not compared["simple"]["tie"]
    assert compared["simple"]["behind"] == pytest.approx(np.mean([0.2, 0.2, 0.25]))


def test_a_tie_goes_to_the_first():
    folds = {"simple": [0.5, 0.8, 0.7], "good": [0.7, 0.7, 0.68]}
    best, chosen, compared = choose(folds, {"simple": 0.68, "good": 0.69})
    assert (best, chosen) == ("good", "simple") and compared["simple"]["tie"]
    assert choose(dict(reversed(folds.items())), {"simple": 0.68, "good": 0.69})[1] == "good"


def test_a_choice_is_reported_and_kept(tmp_path, source):
    found = select(tmp_path, source, ["image", "whole_image", "joint", "average", "pixels"])
    report = read_json(tmp_path / "selection.json")
    assert (found.labeller, found.loss) == ("features", "pixels")  # labels are a function of a feature, steps few
    assert report["chosen"] == "pixels" and report["sentence"].startswith("labeller pixels: mIoU")
    assert report["images"] == 6 and report["fold_count"] == 3 and report["fold_settings"]["steps"] == 3
    for entry in report["candidates"].values():
        assert len(entry["folds"]) == 3 and 0 <= entry["held_out_mean_of_folds"] <= 1
    assert load_selection(tmp_path) == found and found.calibration is not None
    assert not (tmp_path / "selection").exists()


def test_no_image_is_labelled_by_a_network_that_saw_it(tmp_path, source, monkeypatch):
    seen, train = [], selection.train_interpreter

    def noted(folder, annotated, labels, how, **settings):
        seen.append(annotated.indices.tolist())
        return train(folder, annotated, labels, how, **settings)

    monkeypatch.setattr(selection, "train_interpreter", noted)
    select(tmp_path, source, ["image", "pixels"], steps=1)
    left_out = [sorted(set(range(6)) - set(kept)) for kept in seen]
    assert len(seen) == 6 and all(len(one) == 2 for one in left_out)
    assert sorted(index for one in left_out[::2] for index in one) == list(range(6))


def test_finished_folds_are_kept(tmp_path, source, monkeypatch):
    work = selection.cross_validate_fold
    done = []

    def killed(**job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job["path"])
        work(**job)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(selection, "cross_validate_fold", killed)
        select(tmp_path, source, ["image"], steps=1, held_out=None)
    monkeypatch.setattr(selection, "cross_validate_fold", lambda **job: (done.append(job["path"]), work(**job)))
    found = select(tmp_path, source, ["image"], steps=1, held_out=None)
    assert len(done) == len(set(done)) == 3 and found.labeller == "image"


def test_one_image_is_told_plainly(tmp_path, source):
    with pytest.raises(MedsegError, match="one annotated image cannot be cross-validated"):
        select(tmp_path, source, ["image"], images=1)
