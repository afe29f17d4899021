"""The nearest slice is the one that brute force finds, in whatever blocks, and of another patient where asked."""

import numpy as np
import pytest
import torch
from shapes_pictures import pictures

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.nearest import FeatureMeasure, PixelMeasure, Searched, SliceSet
from medseg_gan.evaluation.random_conv import RandomConvExtractor

MEASURES = [PixelMeasure(), FeatureMeasure()]
EXTRACTOR = RandomConvExtractor()


def people(count: int, slices: int = 3) -> list[str]:
    return [f"patient-{k // slices:03d}" for k in range(count)]


@pytest.fixture(scope="module")
def keys():
    return pictures(30, seed=0)


@pytest.fixture(scope="module")
def queries():
    return pictures(17, seed=1)


def pixel_distance(query: np.ndarray, key: np.ndarray) -> float:
    """By the definition, pixel by pixel, for pictures of 32 x 32: boxes of 2 x 2, every second pixel, shifts of 1."""

    def box(picture):
        return (picture[:-1, :-1] + picture[1:, :-1] + picture[:-1, 1:] + picture[1:, 1:]) / 4

    kept = box(key)[1:30:2, 1:30:2]
    shifted = (box(query)[row : row + 29 : 2, column : column + 29 : 2] for row in range(3) for column in range(3))
    best = max(np.corrcoef(part.ravel(), kept.ravel())[0, 1] for part in shifted)
    return np.sqrt(2 - 2 * best)


def feature_distance(query: np.ndarray, key: np.ndarray) -> float:
    both = EXTRACTOR(torch.from_numpy(np.stack([query, key]))[:, None]).double()
    return float((both[0] - both[1]).norm())


@pytest.mark.parametrize(("measure", "by_hand"), zip(MEASURES, (pixel_distance, feature_distance), strict=True))
def test_distances_are_those_of_brute_force(measure, by_hand, keys, queries):
    patients = people(len(keys))
    found = Searched(SliceSet.of(keys, patients), measure).nearest(SliceSet.of(queries[:5], ["q"] * 5))
    table = np.array([[by_hand(query, key) for key in keys[:, 0].numpy()] for query in queries[:5, 0].numpy()])
    np.testing.assert_array_equal(found.position, table.argmin(axis=1))
    np.testing.assert_allclose(found.distance, table.min(axis=1), atol=2e-3)
    np.testing.assert_allclose(found.by_patient, table.reshape(5, -1, 3).min(axis=2), atol=2e-3)
    first, second = np.sort(found.by_patient, axis=1)[:, :2].T
    np.testing.assert_allclose(found.ratio, first / second, rtol=1e-6)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_blocks_do_not_change_the_result(measure, keys, queries):
    sets = SliceSet.of(keys, people(len(keys))), SliceSet.of(queries, people(len(queries)))
    whole, parts = (Searched(sets[0], measure, block=block).nearest(sets[1]) for block in (64, 7))
    np.testing.assert_array_equal(whole.position, parts.position)
    np.testing.assert_allclose(whole.by_patient, parts.by_patient, atol=1e-3)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_only_other_patients_count_where_asked(measure, keys):
    patients = people(len(keys))
    slices = SliceSet.of(keys, patients)
    searched = Searched(slices, measure)
    assert searched.nearest(slices).position.tolist() == list(range(len(keys)))
    others = searched.nearest(slices, others_only=True)
    assert all(patients[found] != patients[k] for k, found in enumerate(others.position))
    assert (np.isinf(others.by_patient).sum(axis=1) == 1).all()
    one_patient = SliceSet.of(keys, ["only"] * len(keys))
    alone = Searched(one_patient, measure)
    assert np.isinf(alone.nearest(one_patient, others_only=True).distance).all()
    assert (alone.nearest(one_patient).ratio == 0).all()


@pytest.mark.parametrize("size", [16, 32, 48, 64, 128, 200])
def test_pixels_see_neither_small_shifts_nor_contrast(size):
    wide = pictures(6, seed=2, size=size + 16)
    reach = max(1, size // 32)
    here, moved = (wide[:, :, at : at + size, at : at + size] for at in (8, 8 + reach))
    measure = PixelMeasure()
    found = Searched(SliceSet.of(here, people(6, 1)), measure).nearest(SliceSet.of(0.5 * moved + 0.1, ["q"] * 6))
    assert found.position.tolist() == list(range(6))
    assert found.distance.max() < (0.02 if size <= 64 else 0.1)  # above, shifts end between pixels of the grid
    far = wide[:, :, 0:size, 0:size]
    assert Searched(SliceSet.of(here, people(6, 1)), measure).nearest(SliceSet.of(far, ["q"] * 6)).distance.min() > 0.1


def test_a_slice_of_one_grey_is_nobodys_neighbour(keys):
    found = Searched(SliceSet.of(keys, people(len(keys))), PixelMeasure()).nearest(
        SliceSet.of(torch.full((1, 1, 32, 32), -1.0), ["q"])
    )
    assert found.distance[0] == pytest.approx(1, abs=1e-3)


def test_slices_are_loaded_a_block_at_a_time(keys):
    asked = []

    def load(rows):
        asked.append(len(rows))
        return keys[torch.from_numpy(rows)]

    slices = SliceSet(load, np.arange(len(keys)), people(len(keys)))
    Searched(slices, PixelMeasure(), block=8).nearest(slices.take(np.array([3, 5])))
    assert max(asked) == 8


def test_bad_sets_are_told_in_one_line(keys):
    with pytest.raises(MedsegError, match="30 slices with 2 patients"):
        SliceSet.of(keys, ["a", "b"])
    with pytest.raises(MedsegError, match="no training slice"):
        Searched(SliceSet.of(keys[:0], []), PixelMeasure())
    searched = Searched(SliceSet.of(keys, people(len(keys))), PixelMeasure())
    with pytest.raises(MedsegError, match=r"slices of shape \(1, 64, 64\) are compared with \(1, 32, 32\)"):
        searched.nearest(SliceSet.of(pictures(2, seed=0, size=64), ["a", "b"]))
    with pytest.raises(MedsegError, match="not finite"):
        searched.nearest(SliceSet.of(torch.full((1, 1, 32, 32), torch.nan), ["a"]))
    with pytest.raises(MedsegError, match="at least 16"):
        Searched(SliceSet.of(torch.zeros(1, 1, 8, 8), ["a"]), PixelMeasure())
