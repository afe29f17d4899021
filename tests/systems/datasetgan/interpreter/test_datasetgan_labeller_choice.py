"""What a recipe asks for is what is cross-validated: a choice, a calibration alone, or nothing."""

from types import SimpleNamespace

import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.interpreter import selection
from medseg_gan.systems.datasetgan.interpreter.masks import without_ignored
from medseg_gan.systems.datasetgan.interpreter.selection import choose_labeller
from medseg_gan.systems.datasetgan.interpreter.settings import TrainInterpreter
from medseg_gan.systems.plan import plan_recipe

INPUTS = SimpleNamespace(seed=0, precision="fp32", device="cpu")


@pytest.fixture
def asked(monkeypatch):
    calls = []
    monkeypatch.setattr(selection, "select_labeller", lambda *args, **more: calls.append(args[3]))
    return calls


def choose(folder, **settings):
    choose_labeller(folder, None, None, TrainInterpreter(**settings), INPUTS, 3, None)


def test_a_named_labeller_costs_no_cross_validation(tmp_path, asked):
    choose(tmp_path, labeller="average")
    assert asked == []


def test_auto_tries_the_candidates_in_their_order_and_calibrates(tmp_path, asked):
    choose(tmp_path, labeller="auto", candidates=("joint", "image"), steps=50, fold_steps=20, members=10)
    (trial,) = asked
    assert list(trial.candidates) == ["joint", "image"] and trial.calibrate == "per_class"
    assert trial.how.steps == 20 and trial.max_steps == 200 and trial.how.members == 2


def test_a_named_labeller_can_be_calibrated(tmp_path, asked):
    choose(tmp_path, labeller="average", loss="whole_image", calibration="per_class")
    (trial,) = asked
    assert trial.candidates == {"average": {"labeller": "average", "loss": "whole_image"}}
    assert trial.calibrate == "per_class"


def test_ignored_classes_are_unlabelled():
    labels = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    table = lookup_table("paper")
    found = without_ignored(labels, ("aorta",), table)
    assert found.tolist() == [[[0, 1], [255, 255]]] and found.dtype == torch.uint8


def test_a_class_that_is_not_there_cannot_be_ignored():
    with pytest.raises(MedsegError, match=r"ignore names hart, which label table paper does not have.*heart"):
        plan_recipe("segthor_datasetgan", profile="smoke", sets=("train_interpreter.ignore=[hart]",))
