"""Classifiers trained together learn what each would alone, stop on their own, and go on after an interruption."""

import copy

import pytest
import torch
from feature_labels import merge_maps
from one_by_one import fit_pixels

from medseg_gan.errors import MedsegError
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.fit_pixels import PixelOrder, fit_pixels_together

K, SEED = 3, (1, "pixels")


@pytest.fixture(scope="module")
def maps():
    torch.manual_seed(0)
    return merge_maps([torch.randn(2, 6, 4, 4), torch.randn(2, 6, 8, 8)])


@pytest.fixture(scope="module")
def labels(maps):
    found = (maps[1][:, 0] > 0).to(torch.uint8) + (maps[1][:, 1] > 1).to(torch.uint8)
    found[0, 0, :3] = 255  # 125 labelled pixels: the last batch of 31 holds one and is left out
    return found


def fresh(count=3):
    torch.manual_seed(5)
    return {number: PixelClassifier(12, (8, 4), K) for number in range(count)}


@torch.no_grad()
def close(a, b, tolerance=1e-3):
    """Whether two classifiers learnt the same; by the batch, for a bias before batch norm has a gradient of noise."""
    rows = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    a, b = (copy.deepcopy(one).train() for one in (a, b))
    return bool((a(rows) - b(rows)).abs().max() <= tolerance)


@pytest.mark.parametrize(
    ("class_balanced", "precision", "tolerance"), [(False, "fp32", 1e-3), (True, "fp32", 1e-3), (False, "bf16", 0.05)]
)
def test_each_member_learns_what_it_would_alone(maps, labels, class_balanced, precision, tolerance):
    settings = {"lr": 1e-3, "max_epochs": 5, "batch": 31, "early_stop": False}
    settings |= {"class_balanced": class_balanced, "precision": precision}
    together, alone = fresh(), fresh()
    steps = fit_pixels_together(together, maps, labels, seed=SEED, **settings)
    for number, classifier in alone.items():
        assert fit_pixels(classifier, maps, labels, seed=(*SEED, number), **settings) == steps[number] == 5 * 4
        assert close(together[number], classifier, tolerance)
    assert not close(together[0], together[1], tolerance)


def test_bf16_learns_almost_the_same(maps, labels):
    exact, rounded = fresh(), fresh()
    for classifiers, precision in ((exact, "fp32"), (rounded, "bf16")):
        fit_pixels_together(classifiers, maps, labels, seed=SEED, lr=1e-3, max_epochs=5, precision=precision)
    assert all(close(exact[k], rounded[k], 0.05) and not close(exact[k], rounded[k], 1e-5) for k in exact)


def test_members_stop_where_they_would_alone_and_are_left_as_they_were(maps, labels):
    settings = {"lr": 1e-3, "max_epochs": 12, "batch": 16}
    together, alone, ended = fresh(), fresh(), {}
    steps = fit_pixels_together(
        together, maps, labels, seed=SEED, **settings, on_done=lambda k: ended.update({k: copy.deepcopy(together[k])})
    )
    expected = {k: fit_pixels(alone[k], maps, labels, seed=(*SEED, k), **settings) for k in alone}
    assert steps == expected
    assert min(steps.values()) < 12 * 8 == max(steps.values())  # the law has something to tell apart
    for k in alone:
        assert close(together[k], alone[k])
        assert close(together[k], ended[k], 0)


@pytest.mark.parametrize("early_stop", [False, True])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(maps, labels, tmp_path, early_stop, monkeypatch):
    settings = {"seed": SEED, "lr": 1e-3, "max_epochs": 13, "batch": 16, "early_stop": early_stop}
    whole, half = fresh(), fresh()
    steps = fit_pixels_together(whole, maps, labels, **settings)
    asked, epoch = [], PixelOrder.epoch

    def killed(self, seed, number):
        asked.append(number)
        if number == 11:
            raise KeyboardInterrupt
        return epoch(self, seed, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PixelOrder, "epoch", killed)
        fit_pixels_together(half, maps, labels, **settings, unfinished=tmp_path / "half.pt", save_seconds=0)
    done = [k for k, taken in steps.items() if taken <= 11 * 8]
    left = {k: classifier for k, classifier in fresh().items() if k not in done}
    resumed = fit_pixels_together(left, maps, labels, **settings, unfinished=tmp_path / "half.pt")
    assert resumed == {k: steps[k] for k in left}
    assert all(close(left[k], whole[k], 1e-6) for k in left)


def test_shared_batches_are_one_order_for_all(maps, labels):
    same = {k: copy.deepcopy(fresh()[0]) for k in range(2)}
    fit_pixels_together(same, maps, labels, seed=SEED, lr=1e-3, max_epochs=2, shared_batches=True)
    assert close(same[0], same[1], 1e-6)
    own = {k: copy.deepcopy(fresh()[0]) for k in range(2)}
    fit_pixels_together(own, maps, labels, seed=SEED, lr=1e-3, max_epochs=2)
    assert not close(own[0], own[1])


def test_a_trial_ends_at_its_last_step(maps, labels):
    ended = []
    steps = fit_pixels_together(
        fresh(), maps, labels, seed=SEED, lr=1e-3, batch=16, max_steps=9, on_done=lambda k: ended.append(k)
    )
    assert steps == {0: 9, 1: 9, 2: 9} and ended == [0, 1, 2]


def test_balanced_pixels_show_every_class_as_often_and_no_unlabelled_one(labels):
    plain, balanced = PixelOrder(labels), PixelOrder(labels, class_balanced=True)
    assert sorted(plain.epoch(SEED, 0).tolist()) == list(range(125))
    counts = sum(
        torch.bincount(labels.flatten()[balanced.labelled[balanced.epoch(SEED, e).long()]].long(), minlength=K)
        for e in range(20)
    )
    assert len(counts) == K and counts.sum() == 20 * 125
    assert (counts / counts.sum() - 1 / K).abs().max() < 0.04
    assert torch.equal(balanced.epoch(SEED, 3), balanced.epoch(SEED, 3))


def test_a_loss_that_is_not_finite_is_told_with_its_step(maps, labels):
    broken = [maps[0], torch.full_like(maps[1], float("nan"))]
    with pytest.raises(MedsegError, match="the loss is nan at step 0"):
        fit_pixels_together(fresh(), broken, labels, seed=SEED, lr=1e-3, max_epochs=1)
