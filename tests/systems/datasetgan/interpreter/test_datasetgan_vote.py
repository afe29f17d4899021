"""Vote, uncertainty and filter against their definitions on all members at once."""

import math

import numpy as np
import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.systems.datasetgan.interpreter.vote import Ballot, image_score, keep_certain


@pytest.fixture
def probs():
    logits = torch.randn(10, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (3 * logits).softmax(2)  # (members, N, K, H, W)


def count(probs, weights=None):
    ballot = Ballot()
    for k, member in enumerate(probs):
        ballot.add(member, 1.0 if weights is None else weights[k])
    return ballot


def test_the_vote_is_the_mode_and_ties_go_to_the_smallest_class(probs):
    choices = probs.argmax(2).numpy()
    expected = np.apply_along_axis(lambda votes: np.bincount(votes, minlength=6).argmax(), 0, choices)
    np.testing.assert_array_equal(count(probs).label("majority").numpy(), expected)
    tie = torch.eye(6, dtype=torch.float64)[[4, 2, 4, 2]].reshape(4, 1, 6, 1, 1)
    assert count(tie).label("majority").item() == 2


def test_the_probability_rule_is_the_largest_mean(probs):
    assert torch.equal(count(probs).label("probability"), probs.mean(0).argmax(1).to(torch.uint8))


def test_uncertainty_is_the_jensen_shannon_divergence(probs):
    def entropy(p, axis):
        return -(p * p.log()).sum(axis)

    expected = entropy(probs.mean(0), 1) - entropy(probs, 2).mean(0)
    assert (count(probs).uncertainty() - expected).abs().max() < 1e-12


def test_uncertainty_lies_between_agreement_and_total_disagreement(probs):
    assert count(probs[:1].repeat(10, 1, 1, 1, 1)).uncertainty().max() < 1e-12
    apart = torch.eye(6, dtype=torch.float64).reshape(6, 1, 6, 1, 1)
    assert count(apart).uncertainty().item() == pytest.approx(math.log(6))


def test_weights_count_as_repetition(probs):
    weighted = count(probs[:3], [2.0, 1.0, 1.0])
    repeated = count(probs[[0, 0, 1, 2]])
    assert torch.equal(weighted.label("majority"), repeated.label("majority"))
    assert (weighted.uncertainty() - repeated.uncertainty()).abs().max() < 1e-12


def test_the_score_is_the_mean_of_the_most_uncertain_tenth():
    uncertainty = torch.arange(200.0).reshape(2, 10, 10)
    assert image_score(uncertainty).tolist() == [94.5, 194.5]


def test_the_filter_drops_exactly_the_most_uncertain_portion():
    scores = np.random.default_rng(0).random(105)
    kept = keep_certain(scores, 0.1)
    assert len(kept) == 95
    assert set(range(105)) - set(kept) == set(np.argsort(scores)[-10:])
    assert (np.diff(kept) > 0).all()
    assert len(keep_certain(scores, 0.0)) == 105


def test_the_published_quirk_keeps_as_many_but_drops_the_thirty_most_certain():
    scores = np.random.default_rng(0).permutation(np.arange(1000.0))
    kept = keep_certain(scores, 0.1, quirk=True)
    assert sorted(scores[kept]) == list(range(30, 930))


def test_an_impossible_portion_or_rule_is_refused(probs):
    with pytest.raises(MedsegError, match=r"is 1\.0; wanted a number from 0 to below 1"):
        keep_certain(np.zeros(3), 1.0)
    with pytest.raises(MedsegError, match="no vote 'median'"):
        count(probs).label("median")
