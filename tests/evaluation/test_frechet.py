"""The distance has the closed form, and rises with every way pictures can be worse."""

import ignite.metrics.metric as ignite_metric
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from scipy import ndimage
from shapes_pictures import pictures

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.frechet import (
    FrechetDistance,
    describe,
    extractor_for,
    feature_statistics,
    frechet_distance,
    half_floor,
)

COUNT = 600


@pytest.fixture(scope="module")
def extractor():
    return extractor_for(None)


@pytest.fixture(scope="module")
def real():
    return pictures(COUNT, seed=0)


@pytest.fixture(scope="module")
def fresh():
    return pictures(COUNT, seed=1)


@pytest.fixture(scope="module")
def distance(extractor, real):
    statistics = feature_statistics(real, extractor)

    def measure(images):
        metric = FrechetDistance(extractor, statistics)
        for batch in images.split(100):
            metric.update(batch)
        return metric.compute()

    return measure


def random_covariance(rng, size, rank):
    half = rng.standard_normal((size, rank))
    return half @ half.T


def test_gaussians_of_known_distance():
    rng = np.random.default_rng(0)
    mean, rotation = rng.standard_normal(6), np.linalg.qr(rng.standard_normal((6, 6)))[0]
    a, b = rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6)
    # Covariances that commute: sum over axes of (sqrt a - sqrt b)^2.
    expected = 6 * 0.25 + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    first, second = (rotation @ np.diag(values) @ rotation.T for values in (a, b))
    assert frechet_distance(mean, first, mean + 0.5, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rank", [3, 8, 40])
def test_distance_agrees_with_the_matrix_root_and_is_symmetric(rank):
    rng = np.random.default_rng(rank)
    first, second = random_covariance(rng, 8, rank), random_covariance(rng, 8, 40)
    # tr (S1 S2)^½ is the sum of the roots of the eigenvalues of S1 S2.
    root = np.sqrt(np.linalg.eigvals(first @ second).astype(complex)).real.sum()
    expected = np.trace(first) + np.trace(second) - 2 * root
    zero = np.zeros(8)
    assert frechet_distance(zero, first, zero, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(zero, second, zero, first) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(zero, first, zero, first) == pytest.approx(0, abs=1e-10)


def test_a_set_is_at_distance_zero_from_itself(distance, real):
    assert distance(real) == pytest.approx(0, abs=1e-6)


def test_batches_do_not_matter(extractor, real, fresh):
    whole, parts = (feature_statistics(real, extractor, size) for size in (COUNT, 7))
    np.testing.assert_allclose(parts.covariance, whole.covariance, atol=1e-6)
    found = []
    for size in (COUNT, 17):
        metric = FrechetDistance(extractor, whole)
        for batch in fresh.split(size):
            metric.update(batch)
        found.append(metric.compute())
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    other = feature_statistics(fresh, extractor)
    direct = frechet_distance(whole.mean, whole.covariance, other.mean, other.covariance)
    assert found[0] == pytest.approx(direct, rel=1e-5)


def blurred(images, sigma):
    return torch.from_numpy(ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma)))


def noisy(images, sd):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + sd * noise).clamp(-1, 1)


WORSE = {  # from the mildest on
    "blur": [lambda x, s=s: blurred(x, s) for s in (0.5, 0.8, 1.2, 2)],
    "noise": [lambda x, s=s: noisy(x, s) for s in (0.08, 0.12, 0.25)],
    "dropped modes": [lambda x, k=k: pictures(COUNT, 1, kinds=k) for k in ((0, 1, 2), (0, 1), (0,))],
    "deformation": [lambda x, s=s: pictures(COUNT, 1, warp=s) for s in (0.05, 0.08, 0.12)],
}


@pytest.mark.parametrize("kind", WORSE)
def test_distance_rises_with_strength(distance, fresh, kind):
    found = [distance(fresh), *(distance(make(fresh)) for make in WORSE[kind])]
    assert found == sorted(found)
    assert found[1] > 1.3 * found[0]
    assert found[-1] > 3 * found[0]


def test_half_floor_lies_far_below_what_is_visibly_worse(extractor, distance, fresh, real):
    floor = half_floor(real, extractor, seed=0)
    assert floor == half_floor(real, extractor, seed=0) != half_floor(real, extractor, seed=1)
    assert distance(fresh) < floor  # halves have half the pictures
    for steps in WORSE.values():
        assert floor < 0.5 * distance(steps[-1](fresh))


def test_the_metric_runs_in_an_engine_and_forgets(extractor, real, fresh):
    metric = FrechetDistance(extractor, feature_statistics(real, extractor), output_transform=lambda out: out["fake"])
    engine = Engine(lambda _, batch: {"fake": batch})
    metric.attach(engine, "frechet")
    first = engine.run(fresh[:200].split(50)).metrics["frechet"]
    assert metric.describe()["n_fake"] == 200
    assert engine.run(fresh[:200].split(50)).metrics["frechet"] == first


def test_processes_add_up(extractor, real, fresh, monkeypatch):
    statistics = feature_statistics(real, extractor)
    whole, here, there = (FrechetDistance(extractor, statistics) for _ in range(3))
    whole.update(fresh)
    here.update(fresh[:150])
    there.update(fresh[150:])

    def all_reduce(value, **_):  # Ignite hands over clones
        if isinstance(value, int):
            return value + there._count
        return value + (there._total if value.ndim == 1 else there._outer)

    monkeypatch.setattr(ignite_metric.idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(ignite_metric.idist, "all_reduce", all_reduce)
    assert here.describe()["n_fake"] == COUNT
    assert here.compute() == pytest.approx(FrechetDistance.compute.__wrapped__(whole), rel=1e-6)


def test_random_features_are_never_called_fid(extractor):
    assert describe(extractor, 100, 200) == {
        "name": "frechet_distance[random-conv-v1]",
        "extractor": "random-conv-v1",
        "weights_sha256": extractor.weights_sha256,
        "n_real": 100,
        "n_fake": 200,
        "comparable_to_published_fid": False,
    }


def test_what_cannot_be_compared_is_refused(extractor, real):
    statistics = feature_statistics(real[:10], extractor)
    with pytest.raises(MedsegError, match="wanted one size"):
        FrechetDistance(extractor, statistics).update(torch.zeros(2, 1, 64, 64))
    other = type(statistics)(statistics.mean, statistics.covariance, 10, (32, 32), "0" * 64)
    with pytest.raises(MedsegError, match="compute the statistics again"):
        FrechetDistance(extractor, other)
    for few in (real[:0], real[:1]):
        with pytest.raises(MedsegError, match="wanted at least 2"):
            feature_statistics(few, extractor)
    with pytest.raises(MedsegError, match="wanted at least 2"):
        half_floor(real[:3], extractor)
    metric = FrechetDistance(extractor, statistics)
    metric.update(real[:1])
    with pytest.raises(NotComputableError, match="at least two"):
        metric.compute()
