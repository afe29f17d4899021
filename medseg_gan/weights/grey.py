"""Turn colour networks into grey ones: the same generator in grey, and a discriminator of grey images."""

from __future__ import annotations

import math
from typing import Any

import torch

from medseg_gan.errors import MedsegError
from stylegan2_ada_pytorch import Discriminator, Generator

REC601 = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601: what PIL and most tools make of a colour image; the sum is one, so greys stay as they are."""


def to_grey(network: Any) -> Any:
    """Turn a network of three channels into one of one channel; the given one stays as it is.

    A generator's toRGB layers are linear, so their kernels and biases can be summed: the grey image is
    0.299 R + 0.587 G + 0.114 B of the colour image, as long as no channel reaches the clamp. A discriminator's fromRGB
    kernels are summed and divided by sqrt(3), the change of the equalised scale 1 / sqrt(channels): on a grey image it
    has the activations of the colour network on the same image repeated three times.

    Args:
        network: `Generator` or `Discriminator` with `img_channels` 3.

    Returns:
        A network of the same class with `img_channels` 1, in the same mode.

    Raises:
        MedsegError: the network does not have three channels.
    """
    if network.img_channels != 3:
        raise MedsegError(f"the network has {network.img_channels} channels, wanted 3 to turn into grey")
    assert isinstance(network, (Generator, Discriminator))
    luma = torch.tensor(REC601, dtype=torch.float64)
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("torgb.weight"):  # (3, C, 1, 1)
            tensor = torch.einsum("k,kcyx->cyx", luma.to(tensor.device), tensor.double())[None].to(tensor.dtype)
        elif name.endswith("torgb.bias"):
            tensor = (luma.to(tensor.device) @ tensor.double())[None].to(tensor.dtype)
        elif name.endswith("fromrgb.weight"):  # (C, 3, 1, 1)
            tensor = tensor.double().sum(dim=1, keepdim=True).div(math.sqrt(3)).to(tensor.dtype)
        state[name] = tensor.clone()
    with torch.device("meta"):
        grey = type(network)(**(network.init_kwargs | {"img_channels": 1}))
    grey.load_state_dict(state, assign=True)
    return grey.train(network.training).requires_grad_(any(p.requires_grad for p in network.parameters()))
