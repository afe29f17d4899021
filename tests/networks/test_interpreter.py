"""The pixel classifier is the paper's network, and may start from its own first layer."""

import pytest
import torch
from torch import nn

from medseg_gan.networks.interpreter import PixelClassifier


@pytest.mark.parametrize(
    ("hidden", "depth", "parameters"),
    [((256, 128), 4992, 1_311_878), ((2496, 256, 128), 4992, 13_135_430)],
)
def test_sizes_are_those_of_the_source(hidden, depth, parameters):
    classifier = PixelClassifier(depth, hidden, num_classes=6)
    linear = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)]
    assert sum(parameter.numel() for layer in linear for parameter in layer.parameters()) == parameters


@pytest.mark.parametrize("order", ["linear-bn-relu", "linear-relu-bn"])
def test_whole_images_equal_their_pixels(order):
    torch.manual_seed(0)
    classifier = PixelClassifier(7, (5, 4), 3, order).double().eval()
    image = torch.randn(2, 7, 6, 4, dtype=torch.float64)
    hidden = torch.einsum("ndyx,hd->nhyx", image, classifier.first.weight)
    logits = classifier.classify(hidden + classifier.first.bias[:, None, None])
    assert logits.shape == (2, 3, 6, 4)
    assert (logits[1, :, 2, 3] - classifier(image[1:, :, 2, 3])[0]).abs().max() < 1e-12


def test_order_and_initialisation_are_as_named():
    relu_first = [type(layer).__name__ for layer in PixelClassifier(7, (5,), 3, "linear-relu-bn", "normal").rest]
    assert relu_first == ["ReLU", "BatchNorm1d", "Linear"]
    torch.manual_seed(0)
    assert PixelClassifier(2000, (64,), 3, init="normal").first.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert PixelClassifier(2000, (64,), 3).first.weight.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.05)
