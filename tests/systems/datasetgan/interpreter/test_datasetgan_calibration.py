"""Calibration undoes a known distortion, changes no order it must not, and its error is what the definition says."""

import numpy as np
import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.systems.datasetgan.interpreter.calibration import Calibration, CalibrationError, fit_calibration
from medseg_gan.systems.datasetgan.interpreter.vote import Ballot


def honest(pixels=20_000, classes=3):
    """Probabilities and labels drawn from them: calibrated by construction."""
    generator = torch.Generator().manual_seed(0)
    probs = (2 * torch.randn(pixels, classes, generator=generator)).softmax(1)
    return probs, torch.multinomial(probs, 1, generator=generator)[:, 0]


def error(probs, truth):
    counted = CalibrationError(probs.shape[1])
    counted.add(probs.T[None, :, None], truth.numpy()[None, None])
    return counted.result()


def test_the_temperature_of_an_overconfident_labeller_is_found():
    probs, truth = honest()
    sure = (3 * probs.log()).softmax(1)
    found = fit_calibration(sure, truth)
    assert found.scale == pytest.approx([1 / 3] * 3, rel=0.05) and found.bias == (0, 0, 0)
    assert error(found(sure), truth)["given"] < 0.1 * error(sure, truth)["given"]
    assert torch.equal(found(sure).argmax(1), sure.argmax(1))


def test_per_class_scaling_undoes_what_a_temperature_cannot():
    probs, truth = honest()
    skewed = (probs.log() + torch.tensor([1.5, 0.0, -1.0])).softmax(1)
    by_class, common = (fit_calibration(skewed, truth, method) for method in ("per_class", "temperature"))
    assert error(by_class(skewed), truth)["mean_of_classes"] < 0.02
    assert error(common(skewed), truth)["mean_of_classes"] > 0.05


def test_unlabelled_pixels_and_absent_classes_are_left_out():
    probs, truth = honest(4000, 4)
    truth = truth.where(truth < 3, 255)
    found = fit_calibration(probs, truth, "per_class")
    assert np.isfinite(found.scale).all() and np.isfinite(found.bias).all()
    known = truth != 255
    assert fit_calibration(probs[known], truth[known], "per_class") == found
    with pytest.raises(MedsegError, match="no labelled pixel"):
        fit_calibration(probs, torch.full_like(truth, 255))
    with pytest.raises(MedsegError, match="no calibration 'platt'"):
        fit_calibration(probs, truth, "platt")


def test_the_error_is_that_of_the_definition():
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    found = error(probs, torch.tensor([0, 1, 0, 255]))
    assert found["given"] == pytest.approx((abs(1.8 - 1) + abs(0.6 - 1)) / 3)
    assert found["per_class"] == pytest.approx([(0.8 + 0.4) / 3] * 2)


def test_it_is_kept_as_plain_values():
    found = Calibration("per_class", (0.5, 1.0), (0.0, 0.25))
    assert Calibration.from_plain(found.plain()) == found


def test_confidence_is_the_mean_calibrated_probability_of_each_class_given():
    probs = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    calibration = Calibration("temperature", (0.5,) * 3, (0.0,) * 3)
    ballot = Ballot(calibration)
    ballot.add(probs)
    labels = ballot.label("majority")
    labels[0] = labels[0].clamp(max=1)
    found, expected = ballot.confidence(labels), calibration(probs)
    assert found[0, 2].isnan() and found[1, 1] == pytest.approx(float(expected[1, 1][labels[1] == 1].mean()))
    assert torch.equal(ballot.probs(), probs)
