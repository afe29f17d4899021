"""Real pictures lie nearest to themselves; a new patient is one unit away, noise and blur are further."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.random_conv import RandomConvExtractor
from medseg_gan.evaluation.realism import Realism


@pytest.fixture(scope="module")
def extractor():
    return RandomConvExtractor()


def pictures(seed, count):
    """Soft discs of varied size and place, 32 x 32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    shapes = [
        np.clip(rng.uniform(5, 11) - np.hypot(y - rng.uniform(12, 20), x - rng.uniform(12, 20)), -1, 1)
        for _ in range(count)
    ]
    return torch.from_numpy(np.stack(shapes)[:, None]).float()


@pytest.fixture(scope="module")
def realism(extractor):
    return Realism(pictures(0, 60), [f"p{k // 2}" for k in range(60)], extractor)


def test_a_real_picture_is_no_distance_away(realism):
    assert realism.distances(pictures(0, 60)).max() < 1e-3


def test_new_pictures_of_the_same_kind_are_about_one_unit_away(realism):
    assert 0.7 < np.median(realism.distances(pictures(1, 60))) < 1.4


def test_distances_do_not_depend_on_the_batch(realism, extractor):
    small = Realism(pictures(0, 60), [f"p{k // 2}" for k in range(60)], extractor, batch_size=7)
    np.testing.assert_allclose(small.distances(pictures(1, 20)), realism.distances(pictures(1, 20)), rtol=1e-4)


@pytest.mark.parametrize("harm", ["noise", "blur"])
def test_harmed_pictures_are_further_away(realism, harm):
    clean = pictures(1, 30)
    noise = 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    harmed = (clean + noise).clamp(-1, 1) if harm == "noise" else F.avg_pool2d(clean, 7, 1, 3)
    assert np.median(realism.distances(harmed)) > 1.2 * np.median(realism.distances(clean))


def test_pictures_of_one_patient_are_no_neighbours(extractor):
    real = pictures(0, 20)
    doubled = torch.cat([real, real])
    names = [f"p{k}" for k in range(20)] * 2
    apart = Realism(doubled, names, extractor).distances(pictures(1, 5))
    np.testing.assert_allclose(apart, Realism(real, names[:20], extractor).distances(pictures(1, 5)), rtol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_a_single_patient_counts_as_single_pictures(extractor, count):
    assert np.isfinite(Realism(pictures(0, count), ["p"] * count, extractor).distances(pictures(1, 4))).all()


def test_names_are_needed_for_every_picture(extractor):
    for real, names in ((pictures(0, 2), ["a"]), (pictures(0, 1)[:0], [])):
        with pytest.raises(MedsegError, match="wanted at least one, each named"):
            Realism(real, names, extractor)
