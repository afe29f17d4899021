"""Classifying an image tile by tile is classifying the rows of its hypercolumn."""

import pytest
import torch
from feature_labels import merge_maps
from torch import nn

from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.tiles import classify_maps
from medseg_gan.systems.datasetgan.samples.features import upsample_maps

SIZES = {4: 6, 8: 6, 16: 5, 32: 4}
"""Channels of a map by its size."""


def draw_maps(sizes=SIZES, count=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, channels, size, size, generator=generator) for size, channels in sizes.items()]


def trained(depth, hidden, order, seed):
    """A classifier whose batch norms are not the identity; one scale is negative, one nothing."""
    torch.manual_seed(seed)
    classifier = PixelClassifier(depth, hidden, 3, order)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            module.weight.data[:2] = torch.tensor([-1.0, 0.0])
    return classifier.eval()


def by_hypercolumn(classifiers, maps, resolution):
    hypercolumn = upsample_maps(maps, resolution)
    rows = hypercolumn.permute(0, 2, 3, 1).flatten(0, 2)
    with torch.no_grad():
        probs = torch.stack([classifier(rows).softmax(1) for classifier in classifiers])
    return probs.view(len(classifiers), len(maps[0]), resolution, resolution, -1).permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("order", ["linear-bn-relu", "linear-relu-bn"])
@pytest.mark.parametrize("tile", [None, 32, 16, 12, 5])
def test_tiles_equal_the_classifiers_on_the_hypercolumn(order, tile):
    maps = draw_maps()
    classifiers = [trained(21, (8, 5), order, seed) for seed in range(3)]
    probs = classify_maps(classifiers, maps, 32, tile)
    assert probs.shape == (3, 2, 3, 32, 32)
    assert (probs - by_hypercolumn(classifiers, maps, 32)).abs().max() < 1e-5


@pytest.mark.parametrize("hidden", [(7,), (9, 6, 5)])
@pytest.mark.parametrize("sizes", [{4: 6, 8: 6}, {16: 5, 32: 4}, {16: 7}, {4: 5, 16: 3}])
def test_maps_may_all_be_smaller_or_some_larger_than_the_image(hidden, sizes):
    maps = draw_maps(sizes)
    classifiers = [trained(sum(sizes.values()), hidden, "linear-bn-relu", 0)]
    assert (classify_maps(classifiers, maps, 16) - by_hypercolumn(classifiers, maps, 16)).abs().max() < 1e-5


def test_merged_maps_and_half_precision_are_the_same_features():
    maps = [part.half() for part in draw_maps() for _ in range(2)]
    classifiers = [trained(42, (8, 5), "linear-bn-relu", 0)]
    wanted = by_hypercolumn(classifiers, [part.float() for part in maps], 32)
    assert (classify_maps(classifiers, maps, 32) - wanted).abs().max() < 1e-5
    assert (classify_maps(classifiers, merge_maps(maps), 32, 16) - wanted).abs().max() < 1e-5


def test_an_image_does_not_depend_on_the_others():
    maps, classifiers = draw_maps(count=3), [trained(21, (8, 5), "linear-bn-relu", 0)]
    together = classify_maps(classifiers, maps, 32)
    assert torch.equal(classify_maps(classifiers, [part[1:2] for part in maps], 32), together[:, 1:2])


def test_float32_is_kept_where_the_surroundings_ask_for_less():
    maps, classifiers = draw_maps(), [trained(21, (8, 5), "linear-bn-relu", 0)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        probs = classify_maps(classifiers, maps, 32)
    assert torch.equal(probs, classify_maps(classifiers, maps, 32))
