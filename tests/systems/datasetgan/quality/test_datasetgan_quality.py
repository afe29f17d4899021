"""What the quality model sees of a pair, learns from annotated ones, and predicts for others."""

import json
import math

import numpy as np
import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.plausibility import Plausibility
from medseg_gan.evaluation.random_conv import RandomConvExtractor
from medseg_gan.evaluation.realism import Realism
from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.factory import Pairs
from medseg_gan.systems.datasetgan.interpreter.vote import Ballot, image_score
from medseg_gan.systems.datasetgan.quality.model import (
    ERRORS,
    FEATURES,
    MIN_REGRESSION,
    QualityModel,
    Regression,
    Seen,
    class_of,
    errors_of,
    look,
)


def simulated(rng, count, misjudged=1.0):
    """Pairs whose true errors the ensemble misjudges by a factor, and more so the more pieces a map has."""
    doubt = rng.uniform(0.004, 0.08, count)
    values = rng.uniform(0.1, 1, (count, len(FEATURES)))
    values[:, FEATURES.index("doubt")] = doubt
    values[:, FEATURES.index("pieces")] = pieces = rng.integers(0, 4, count)
    wrong = np.clip(misjudged * doubt * 1.5**pieces * rng.lognormal(0, 0.2, count), 0, 1)
    return Seen(values, [[] for _ in values]), {"wrong": wrong, "wrong_foreground": np.clip(3 * wrong, 0, 1)}


def halves(count):
    return np.arange(count) < count // 2


def test_errors_are_shares_of_all_pixels_and_of_foreground_in_either_map():
    labels, truth = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    labels[0, 0, :2], truth[0, 0, 1:3] = 1, 1
    truth[1, 0], labels[1] = 255, 0
    truth[1, 1, 0] = 2
    found = errors_of(labels, truth)
    assert found["wrong"].tolist() == [2 / 16, 1 / 12]
    assert found["wrong_foreground"].tolist() == [2 / 3, 1.0]
    assert errors_of(labels[:1], labels[:1]) == {"wrong": [0.0], "wrong_foreground": [0.0]}


def test_classes_have_the_limits_of_the_source():
    wrong = np.array([0.0, 0.01, 0.0101, 0.2499, 0.25, 1.0])
    assert class_of(wrong).tolist() == ["good", "good", "partial", "partial", "bad", "bad"]


def test_doubt_is_what_the_members_did_not_give_the_label():
    probs = torch.rand(3, 2, 4, 5, 5, generator=torch.Generator().manual_seed(0)).softmax(2)
    ballot = Ballot()
    for member in probs:
        ballot.add(member)
    label = ballot.label("majority")
    doubt = ballot.doubt(label)
    chosen = probs.mean(0).gather(1, label[:, None].long())[:, 0]
    torch.testing.assert_close(doubt.sum(1), (1 - chosen).mean((1, 2)))
    torch.testing.assert_close(doubt[:, 2], ((1 - chosen) * (label == 2)).mean((1, 2)))
    sure = Ballot()
    sure.add(torch.eye(4)[torch.randint(4, (2, 5, 5))].permute(0, 3, 1, 2))
    assert sure.doubt(sure.label("majority")).abs().max() == 0


def test_a_look_at_pairs():
    rng = np.random.default_rng(0)
    table = lookup_table("lungs")
    annotated = np.zeros((4, 16, 16), np.uint8)
    annotated[:, 4:12, 9:14], annotated[:, 4:12, 2:7] = 1, 2
    real = torch.from_numpy(rng.uniform(-1, 1, (4, 1, 16, 16)).astype(np.float32))
    realism = Realism(real, list("abcd"), RandomConvExtractor())
    labels = np.stack([annotated[0], annotated[0][:, ::-1]])
    uncertainty = torch.rand(2, 16, 16)
    doubt = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.0, 0.0]])
    pairs = Pairs(real[:2], torch.from_numpy(labels.copy()), uncertainty, image_score(uncertainty), doubt)
    seen = look(pairs, realism, Plausibility.learned(annotated, table))
    assert seen.values.shape == (2, len(FEATURES)) and np.isfinite(seen.values).all()
    np.testing.assert_allclose(seen.column("doubt"), [0.3, 0.0], rtol=1e-6)
    np.testing.assert_allclose(seen.column("foreground"), 80 / 256)
    np.testing.assert_allclose(seen.column("disagreement"), uncertainty.double().mean((1, 2)))
    assert seen.column("unlike_real").max() < 1e-3 and seen.column("pieces").tolist() == [0, 0]
    assert seen.column("objections").tolist() == [0, 1]
    assert seen.objections == [[], ["left lung not at the patient's left of right lung"]]


@pytest.mark.parametrize("count", [0, 1, MIN_REGRESSION - 1])
def test_few_examples_leave_the_order_of_the_expectation(count):
    seen, errors = simulated(np.random.default_rng(0), count, misjudged=2.0)
    fitted = Regression.fitted(seen.values, seen.expected("wrong"), errors["wrong"])
    new, _ = simulated(np.random.default_rng(1), 30)
    expected = new.expected("wrong")
    predicted = fitted.predict(new.values, expected)
    assert np.array_equal(np.argsort(predicted), np.argsort(expected))
    if not count:
        np.testing.assert_allclose(predicted, expected)


def test_many_examples_teach_the_factor_and_the_features():
    rng = np.random.default_rng(0)
    seen, errors = simulated(rng, 60, misjudged=0.3)
    new, truth = simulated(rng, 300, misjudged=0.3)
    fitted = Regression.fitted(seen.values, seen.expected("wrong"), errors["wrong"])
    off, before = (
        np.median(np.abs(np.log(guess) - np.log(truth["wrong"])))
        for guess in (fitted.predict(new.values, new.expected("wrong")), new.expected("wrong"))
    )
    assert off < 0.3 < 0.6 * before  # the noise alone has a median of 0.13
    assert fitted.weights[FEATURES.index("pieces")] > 0


def test_noise_is_not_taken_for_knowledge():
    rng = np.random.default_rng(3)
    seen, _ = simulated(rng, 50)
    expected = seen.expected("wrong")
    fitted = Regression.fitted(seen.values, expected, expected * rng.lognormal(0, 0.3, 50))
    assert np.abs(fitted.predict(seen.values, expected) / expected - 1).max() < 0.35


def test_the_penalty_is_chosen_by_leaving_one_out():
    from medseg_gan.systems.datasetgan.quality.model import _ridge

    rng = np.random.default_rng(0)
    z = rng.normal(size=(15, 3))
    z -= z.mean(0)
    y = z @ [1.0, -1.0, 0.0] + rng.normal(size=15)
    y -= y.mean()
    left_out = []
    for k in range(15):
        own = np.arange(15) != k
        x = np.c_[z[own], np.ones(14)]
        weights = np.linalg.solve(x.T @ x + np.diag([5.0, 5.0, 5.0, 0.0]), x.T @ y[own])
        left_out.append((y[k] - np.r_[z[k], 1] @ weights) ** 2)
    assert _ridge(z, y, 5.0)[1] == pytest.approx(np.mean(left_out))


def test_predictions_stay_shares_however_strange_a_pair_is():
    seen, errors = simulated(np.random.default_rng(0), 60)
    model = QualityModel.split(seen, errors, halves(60))
    strange = np.array([[0.0] * len(FEATURES), [1.0] * len(FEATURES), [1e6] * len(FEATURES)])
    columns = model.judge(Seen(strange, [[], ["no heart"], ["a", "b"]]))
    for name in ERRORS:
        assert ((columns[f"predicted_{name}"] >= 0) & (columns[f"predicted_{name}"] <= 1)).all()
        assert (columns[f"bound_{name}"] <= 1).all()
    assert columns["objections"].tolist() == ["", "no heart", "a; b"]


@pytest.mark.parametrize("name", ERRORS)
def test_bounds_hold_on_pairs_drawn_like_the_annotated(name):
    held = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        model = QualityModel.split(*simulated(rng, 100), halves(100))
        new, truth = simulated(rng, 50)
        held.append((truth[name] <= model.judge(new)[f"bound_{name}"]).mean())
    assert 0.94 <= np.mean(held) <= 0.995


def test_without_examples_there_is_no_bound():
    model = QualityModel.split(*simulated(np.random.default_rng(0), 30), halves(30))
    assert not model.bounds["wrong"].exists
    seen, errors = simulated(np.random.default_rng(0), 0)
    model = QualityModel.cross_fitted(seen, errors, np.zeros(0))
    new, _ = simulated(np.random.default_rng(1), 5)
    columns = model.judge(new)
    np.testing.assert_allclose(columns["predicted_wrong"], new.expected("wrong"))
    assert columns["bound_wrong"].tolist() == [1.0] * 5


def test_thirty_painted_slices_are_all_used_across_folds():
    seen, errors = simulated(np.random.default_rng(0), 30)
    model = QualityModel.cross_fitted(seen, errors, np.arange(30) % 5)
    assert model.bounds["wrong"].examples == 30 and math.isfinite(model.bounds["wrong"].quantile)
    assert model.regressions["wrong"].examples == 30


def test_a_model_survives_json_and_refuses_other_features():
    seen, errors = simulated(np.random.default_rng(0), 60)
    model = QualityModel.split(seen, errors, halves(60))
    stored = json.loads(json.dumps(model.plain(), allow_nan=False))
    again = QualityModel.from_plain(stored)
    for name, column in model.judge(seen).items():
        np.testing.assert_array_equal(again.judge(seen)[name], column)
    with pytest.raises(MedsegError, match="use --rerun synthesize"):
        QualityModel.from_plain({**stored, "features": ["doubt"]})
    regression = {**stored["regressions"]["wrong"], "weights": ["a"] * len(stored["features"])}
    for spoilt in (
        None,
        [],
        {},
        {**stored, "bounds": {}},
        {**stored, "regressions": []},
        {**stored, "regressions": {**stored["regressions"], "wrong": regression}},
        {**stored, "regressions": {**stored["regressions"], "wrong": {**regression, "weights": [0.0]}}},
    ):
        with pytest.raises(MedsegError, match="use --rerun synthesize"):
            QualityModel.from_plain(spoilt)  # type: ignore[arg-type]
