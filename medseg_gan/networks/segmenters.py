"""Segmentation networks by name: DeepLabV3 and FCN (torchvision, ResNet backbones) and U-Net (MONAI)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medseg_gan.errors import MedsegError, did_you_mean
from medseg_gan.machine.device import autocast
from medseg_gan.machine.vision import torchvision

torchvision()  # before MONAI, which looks for it once
from monai.networks.nets import BasicUNet, UNet  # noqa: E402
from monai.networks.nets import ResNet as MonaiResNet  # noqa: E402
from torchvision.models import resnet, segmentation  # noqa: E402
from torchvision.models._utils import IntermediateLayerGetter  # noqa: E402
from torchvision.models.segmentation.deeplabv3 import ASPP  # noqa: E402
from torchvision.models.segmentation.fcn import FCNHead  # noqa: E402

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resnet18_slim(weights: None = None) -> nn.Module:
    """ResNet18 with a quarter of the channels, for small images on a CPU; there are no ImageNet weights for it."""
    return MonaiResNet(
        "basic", [2, 2, 2, 2], [16, 32, 64, 128], spatial_dims=2, n_input_channels=3, conv1_t_stride=2, num_classes=1
    )


BACKBONES: dict[str, Callable[..., Any]] = {
    "resnet18_slim": resnet18_slim,
    "resnet18": resnet.resnet18,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
}

_FEATURES = {"resnet18_slim": 128, "resnet18": 512, "resnet50": 2048, "resnet101": 2048}  # channels after layer4
_STAGE_STRIDES = {16: (2, 2, 1), 8: (2, 1, 1), 4: (1, 1, 1), 2: (1, 1, 1)}  # strides of ResNet's layer2 to layer4


class ImageNetSegmenter(nn.Module):
    """A torchvision segmentation network behind ImageNet's input convention.

    Grey slices are repeated to three channels; values go from [-1, 1] to [0, 1] and are then normalised with
    ImageNet's mean and standard deviation.

    Args:
        network: takes `(B, 3, H, W)` and returns a dictionary with the logits under `out`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Slices `(B, 1 or 3, H, W)` in [-1, 1] to logits `(B, K, H, W)`."""
        image = (image.expand(-1, 3, -1, -1) + 1) / 2
        return self.network((image - self.mean) / self.std)["out"]


def resnet_features(backbone: str, output_stride: int, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """ResNet up to `layer4`, with its resolution held at `output_stride` by dilation (Chen et al., 2017).

    At 8 and 16 the network is torchvision's (`replace_stride_with_dilation`), for ResNet18 too. 4 also takes the
    stride from `layer2`, and 2 leaves out the max-pooling as well: at 64 pixels a trachea is two pixels wide and
    does not survive more.

    Args:
        backbone: a name in `BACKBONES`.
        output_stride: 2, 4, 8 or 16 image pixels per feature.
        state: ImageNet weights in torchvision's names (`fc` is left out); random otherwise.

    Returns:
        Module from `(B, 3, H, W)` to `{"out": (B, 128, 512 or 2048, H / stride, W / stride)}`.

    Raises:
        MedsegError: an unknown name or stride, or weights of another network.
    """
    if backbone not in BACKBONES:
        hint = did_you_mean(backbone, BACKBONES)
        raise MedsegError(f"there is no backbone {backbone!r}, wanted one of {', '.join(BACKBONES)}{hint}")
    if output_stride not in _STAGE_STRIDES:
        raise MedsegError(f"output_stride is {output_stride}, wanted one of {', '.join(map(str, _STAGE_STRIDES))}")
    network = BACKBONES[backbone](weights=None)
    if state is not None:
        try:
            network.load_state_dict({**state, "fc.weight": network.fc.weight, "fc.bias": network.fc.bias})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise MedsegError(f"the backbone weights are not those of torchvision's {backbone} ({reason})") from error
    if output_stride == 2:
        network.maxpool = nn.Identity()
    dilation = 1
    for stage, stride in zip(
        (network.layer2, network.layer3, network.layer4), _STAGE_STRIDES[output_stride], strict=True
    ):
        if stride == 1:
            _hold_resolution(stage, dilation, 2 * dilation)
            dilation *= 2
    return IntermediateLayerGetter(network, {"layer4": "out"})


def _hold_resolution(stage: nn.Module, first: int, rest: int) -> None:
    """Take the stride out of a ResNet stage; its first block keeps the earlier dilation, the others get the next."""
    for index, block in enumerate(stage.children()):
        dilation = first if index == 0 else rest
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (dilation, dilation)


def build_deeplabv3(
    num_classes: int,
    in_channels: int = 1,
    *,
    backbone: str = "resnet101",
    output_stride: int = 8,
    backbone_state: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """DeepLabV3 (Chen et al., 2017) without auxiliary head, as DatasetGAN uses it.

    The rates of the pyramid are the paper's, (6, 12, 18) at stride 16 and twice that at 8. They stay at 4 and 2,
    which are meant for images as much smaller: 12 features are three eighths of 256 pixels at 8, of 64 at 2. The
    pyramid has 256 channels, and half as many as the features where those are fewer.
    """
    _check_channels(in_channels)
    features = resnet_features(backbone, output_stride, backbone_state)
    width = min(256, _FEATURES[backbone] // 2)
    head = nn.Sequential(  # torchvision's DeepLabHead, whose width is fixed
        ASPP(_FEATURES[backbone], (6, 12, 18) if output_stride == 16 else (12, 24, 36), width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, num_classes, 1),
    )
    return ImageNetSegmenter(segmentation.DeepLabV3(features, head))


def build_fcn(
    num_classes: int,
    in_channels: int = 1,
    *,
    backbone: str = "resnet101",
    output_stride: int = 8,
    backbone_state: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """FCN (Long et al., 2015) on dilated ResNet features, as torchvision has it, without auxiliary head."""
    _check_channels(in_channels)
    features = resnet_features(backbone, output_stride, backbone_state)
    return ImageNetSegmenter(segmentation.FCN(features, FCNHead(_FEATURES[backbone], num_classes)))


def build_unet(num_classes: int, in_channels: int = 1, *, width: int = 16) -> nn.Module:
    """U-Net (Ronneberger et al., 2015) of MONAI with five levels, the first of them at full resolution.

    MONAI's usual first stride of 2 is left out: it loses structures of two pixels. With one convolution a level and
    batch norm it reaches at equal CPU time what MONAI's BasicUNet does, in steps of three fifths the cost.

    Args:
        num_classes: K, background included.
        in_channels: C.
        width: channels of the first level, a multiple of 16 (the CPU's bf16 convolutions err on others).
    """
    if width % 16:
        raise MedsegError(
            f"the U-Net's width is {width}, wanted a multiple of 16; use {16 * max(1, round(width / 16))}"
        )
    return UNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=num_classes,
        channels=(width, 2 * width, 2 * width, 4 * width, 4 * width),
        strides=(1, 2, 2, 2),
        norm="batch",
        act="relu",
    )


def build_basic_unet(num_classes: int, in_channels: int = 1, *, width: int = 64) -> nn.Module:
    """U-Net of MONAI with double convolutions, max-pooling and bilinear upsampling: width 1, 2, 4, 8, 8.

    Width 64 is the segmenter of the layered GAN (Yang et al., 2022).
    """
    features = (width, 2 * width, 4 * width, 8 * width, 8 * width, width)
    return BasicUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=num_classes,
        features=features,
        act="relu",
        norm="batch",
        upsample="nontrainable",
    )


def predict_probs(
    network: nn.Module, images: Tensor, *, batch_size: int = 32, device: str = "cpu", precision: str = "fp32"
) -> Tensor:
    """Class probabilities of slices.

    Args:
        network: segmenter, already on `device`; left in evaluation mode.
        images: `(N, C, H, W)` in [-1, 1].
        batch_size: slices at once.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.

    Returns:
        `(N, K, H, W)` float32 on the CPU, sums over K are 1.
    """
    return torch.cat(
        [logits.softmax(dim=1).cpu() for logits in _logits(network, images, batch_size, device, precision)]
    )


def predict_labels(
    network: nn.Module, images: Tensor, *, batch_size: int = 32, device: str = "cpu", precision: str = "fp32"
) -> Tensor:
    """Most probable class of each pixel: `(N, H, W)` uint8 on the CPU; arguments as for `predict_probs`."""
    blocks = _logits(network, images, batch_size, device, precision)
    return torch.cat([logits.argmax(dim=1).to(torch.uint8).cpu() for logits in blocks])


@torch.inference_mode()
def _logits(network: nn.Module, images: Tensor, batch_size: int, device: str, precision: str) -> Iterator[Tensor]:
    network.eval()
    for block in images.split(batch_size):
        with autocast(device, precision):
            logits = network(block.to(device).contiguous(memory_format=torch.channels_last))
        yield logits.float()


SEGMENTERS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv3": build_deeplabv3,
    "fcn": build_fcn,
    "unet": build_unet,
    "basic_unet": build_basic_unet,
}


def build_segmenter(
    name: str,
    num_classes: int,
    in_channels: int = 1,
    *,
    backbone: str = "resnet101",
    output_stride: int = 8,
    width: int = 16,
    backbone_state: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a segmenter by name; its input is `(B, C, H, W)` in [-1, 1], its output logits `(B, K, H, W)`.

    Args:
        name: a name in `SEGMENTERS`.
        num_classes: K, background included.
        in_channels: C, 1 for grey slices.
        backbone: of `deeplabv3` and `fcn`.
        output_stride: of `deeplabv3` and `fcn`; 8 at 256 pixels, 2 at 64.
        width: of `unet` and `basic_unet`.
        backbone_state: ImageNet weights of the backbone; never fetched from anywhere.

    Raises:
        MedsegError: an unknown name, or parts that do not fit.
    """
    if name not in SEGMENTERS:
        hint = did_you_mean(name, SEGMENTERS)
        raise MedsegError(f"there is no segmenter {name!r}, wanted one of {', '.join(SEGMENTERS)}{hint}")
    settings: dict[str, Any] = {"width": width}
    if name in ("deeplabv3", "fcn"):
        settings = {"backbone": backbone, "output_stride": output_stride, "backbone_state": backbone_state}
    return SEGMENTERS[name](num_classes, in_channels, **settings)


def _check_channels(in_channels: int) -> None:
    if in_channels not in (1, 3):
        raise MedsegError(f"ResNet segmenters take 1 or 3 channels, got {in_channels}; use unet")
