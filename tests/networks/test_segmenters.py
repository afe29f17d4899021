"""Segmentation networks: shapes, resolution, ImageNet convention, bf16 against fp32."""

import pytest
import torch
from torch.nn import functional

from medseg_gan.errors import MedsegError
from medseg_gan.machine.vision import torchvision
from medseg_gan.networks.segmenters import (
    BACKBONES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageNetSegmenter,
    build_segmenter,
    predict_labels,
    predict_probs,
    resnet_features,
)

SMALL = {
    "unet": {"width": 16},
    "basic_unet": {"width": 16},
    "deeplabv3": {"backbone": "resnet18_slim", "output_stride": 2},
    "fcn": {"backbone": "resnet18", "output_stride": 4},
}


@pytest.mark.parametrize("name", SMALL)
def test_logits_have_the_size_of_the_image(name):
    network = build_segmenter(name, 6, **SMALL[name]).eval()
    assert network(torch.zeros(2, 1, 32, 48)).shape == (2, 6, 32, 48)


@pytest.mark.parametrize("output_stride", [2, 4, 8, 16])
@pytest.mark.parametrize(("backbone", "channels"), [("resnet18_slim", 128), ("resnet18", 512)])
def test_features_have_the_asked_stride(backbone, channels, output_stride):
    features = resnet_features(backbone, output_stride)(torch.zeros(2, 3, 32, 32))["out"]
    assert features.shape == (2, channels, 32 // output_stride, 32 // output_stride)


def test_deeplabv3_has_torchvisions_parts():
    theirs = torchvision().models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=6)
    ours = build_segmenter("deeplabv3", 6, backbone="resnet50").network
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(ours.eval()(image)["out"], theirs.eval()(image)["out"])


@pytest.mark.parametrize(("output_stride", "replaced"), [(8, [False, True, True]), (16, [False, False, True])])
def test_held_resolution_is_torchvisions(output_stride, replaced):
    theirs = BACKBONES["resnet50"](weights=None, replace_stride_with_dilation=replaced).eval()
    ours = resnet_features("resnet50", output_stride, theirs.state_dict()).eval()
    image = torch.randn(1, 3, 32, 32)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
    assert torch.equal(ours(image)["out"], expected)


def test_grey_slices_meet_imagenets_input_convention():
    seen = []
    network = ImageNetSegmenter(lambda image: seen.append(image) or {"out": image})
    network(torch.linspace(-1, 1, 8).reshape(1, 1, 2, 4))
    undone = seen[0] * torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1) + torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1)
    torch.testing.assert_close(undone, torch.linspace(0, 1, 8).reshape(1, 1, 2, 4).expand(1, 3, 2, 4))


@pytest.mark.parametrize("name", SMALL)
def test_bf16_channels_last_gradients_point_where_fp32_ones_do(name):
    """Guards against torch's silent errors with dilated bf16 convolutions on the CPU."""
    torch.manual_seed(0)
    network = build_segmenter(name, 4, **SMALL[name]).to(memory_format=torch.channels_last)
    image, label = torch.randn(4, 1, 24, 24), torch.randint(0, 4, (4, 24, 24))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def gradient(layout, enabled):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = network(image.contiguous(memory_format=layout))
        functional.cross_entropy(logits.float(), label).backward()
        return {key: weight.grad.flatten().clone() for key, weight in network.named_parameters() if weight.ndim == 4}

    exact = gradient(torch.contiguous_format, False)
    rounded = gradient(torch.channels_last, True)
    for key, value in exact.items():  # rounding alone leaves 0.88 in 20 layers of ResNet, in NCHW as well
        assert torch.cosine_similarity(value, rounded[key], dim=0) > 0.75, key


def test_predictions_do_not_depend_on_the_block_size():
    torch.manual_seed(0)
    network, images = build_segmenter("unet", 3), torch.randn(5, 1, 16, 16)
    probs = predict_probs(network, images, batch_size=5)
    torch.testing.assert_close(predict_probs(network, images, batch_size=2), probs)
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(5, 16, 16))
    assert torch.equal(predict_labels(network, images, batch_size=5), probs.argmax(dim=1).to(torch.uint8))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "unnet"}, "did you mean unet"),
        ({"name": "unet", "width": 12}, "multiple of 16; use 16"),
        ({"name": "fcn", "backbone": "resnet-50"}, "did you mean resnet50"),
        ({"name": "deeplabv3", "output_stride": 3}, "output_stride is 3"),
        ({"name": "deeplabv3", "in_channels": 2}, "1 or 3 channels"),
        ({"name": "fcn", "backbone": "resnet18", "backbone_state": {"conv1.weight": torch.zeros(1)}}, "resnet18"),
    ],
)
def test_wrong_parts_are_refused(arguments, said):
    with pytest.raises(MedsegError, match=said):
        build_segmenter(**{"num_classes": 3, **arguments})


def test_basic_unet_has_the_papers_widths_and_skips_of_one_resolution():
    network = build_segmenter("basic_unet", 2, in_channels=3, width=64)
    maxima = [network.conv_0, network.down_1, network.down_2, network.down_3, network.down_4]
    widths, sizes, image = [], [], torch.randn(1, 3, 64, 64)
    for level in maxima:
        image = level(image)
        widths.append(image.shape[1])
        sizes.append(image.shape[2])
    assert widths == [64, 128, 256, 512, 512] and sizes == [64, 32, 16, 8, 4]
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    assert not any(isinstance(layer, torch.nn.ConvTranspose2d) for layer in network.modules())
