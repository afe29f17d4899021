"""The frozen extractor is the same everywhere and takes pictures of every size."""

import hashlib

import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation import random_conv
from medseg_gan.evaluation.random_conv import RandomConvExtractor, frozen_weights, to_uint8


@pytest.fixture(scope="module")
def extractor():
    return RandomConvExtractor()


def test_weights_are_the_pinned_ones(extractor):
    buffers = b"".join(weight.numpy().astype("<f4").tobytes() for weight in extractor.buffers())
    assert hashlib.sha256(buffers).hexdigest() == extractor.weights_sha256 == random_conv.WEIGHTS_SHA256
    assert not list(extractor.parameters())


def test_a_change_of_weights_is_refused(monkeypatch):
    monkeypatch.setattr(random_conv, "WIDTHS", (12, 16, 24, 31))
    with pytest.raises(MedsegError, match="would not be comparable"):
        RandomConvExtractor()


def test_weights_do_not_depend_on_random_state():
    torch.manual_seed(1)
    first = next(frozen_weights())
    torch.manual_seed(2)
    assert (next(frozen_weights()) == first).all()
    assert abs(first[1].sum(axis=(1, 2))).max() < 1e-6  # every second filter responds to edges alone
    assert abs(first[0].sum(axis=(1, 2))).max() > 0.1


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 40), (3, 32, 32), (1, 100, 64), (3, 256, 200)])
def test_any_size_gives_the_same_number_of_features(extractor, shape):
    features = extractor(torch.rand(2, *shape) * 2 - 1)
    assert features.shape == (2, extractor.num_features)
    assert extractor.num_features <= 256
    assert torch.isfinite(features).all()


def test_grey_counts_as_rgb_and_pictures_do_not_see_each_other(extractor):
    grey = torch.rand(5, 1, 32, 32) * 2 - 1
    together = extractor(grey)
    torch.testing.assert_close(extractor(grey.expand(-1, 3, -1, -1)), together)
    torch.testing.assert_close(torch.cat([extractor(one) for one in grey.split(1)]), together)


def test_pictures_are_seen_as_they_would_be_stored(extractor):
    stored = to_uint8(torch.rand(2, 3, 32, 32) * 2.4 - 1.2)
    again = stored.float() / 127.5 - 1
    assert (to_uint8(again) == stored).all()
    torch.testing.assert_close(extractor(again + 0.001), extractor(again), rtol=0, atol=0)
    known = torch.tensor([-9.0, -1, 0, 1, 9]).repeat(16, 4)[None, None]
    assert to_uint8(known)[0, 2, 0, :5].tolist() == [0, 0, 128, 255, 255]


def test_features_do_not_depend_on_autocast(extractor):
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        inside = extractor(images)
    torch.testing.assert_close(inside, extractor(images), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 2, 32, 32), (2, 3, 15, 32)])
def test_other_shapes_are_refused(extractor, shape):
    with pytest.raises(MedsegError, match="wanted"):
        extractor(torch.zeros(shape))


def test_values_that_are_not_finite_are_refused(extractor):
    with pytest.raises(MedsegError, match="not finite"):
        extractor(torch.full((1, 1, 32, 32), torch.nan))
