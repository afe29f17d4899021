"""Checkpoints in the layout of rosinality's stylegan2-pytorch (`g_ema`, `g`, `d`, `latent_avg`), by renaming.

Both layouts are equalised: they store weights of unit variance and scale them in use. The scales agree everywhere, so
no number changes; only names and shapes do:

    style.{1+k}                              mapping.fc{k}                     1 / (100 sqrt(inputs)) in both
    latent_avg                               mapping.w_avg                     measured here when the file has none
    input.input (1, C, 4, 4)                 synthesis.b4.const (C, 4, 4)
    conv1, convs.{2j}, convs.{2j+1}          b4.conv1, b{8 2^j}.conv0, b{8 2^j}.conv1
      .conv.weight (1, O, I, 3, 3)             .weight (O, I, 3, 3)            see below
      .conv.modulation.weight, .bias           .affine.weight, .bias           1 / sqrt(inputs) in both
      .noise.weight (1,), .activate.bias       .noise_strength (), .bias
    noises.noise_{n} (1, 1, r, r)            .noise_const (r, r)               in the order of the layers
    to_rgb1, to_rgbs.{j}                     b4.torgb, b{8 2^j}.torgb          1 / sqrt(C), there on the weight, here
      .conv.weight (1, 3, C, 1, 1)             .weight (3, C, 1, 1)            on the style: the same product
    D: convs.0.0.weight, convs.0.1.bias      b{R}.fromrgb                      1 / sqrt(inputs) in both
       convs.{1+j}.conv1.0, .1               b{R / 2^j}.conv0                  and so in all convolutions of D
       convs.{1+j}.conv2.1, .2               b{R / 2^j}.conv1
       convs.{1+j}.skip.1                    b{R / 2^j}.skip                   (a + b) / sqrt 2 in both
       final_conv.0, .1                      b4.conv
       final_linear.0, final_linear.1        b4.fc, b4.out

The one factor that differs is inside the modulated convolutions: there the weight is scaled by 1 / sqrt(9 I) before it
is demodulated, here it is not. Demodulation divides it out again, all but its 1e-8, which so weighs 9 I times as much:
a relative 1e-8 of the output, below the precision of fp32. Keeping the numbers keeps what Adam's rate means for them.
Blur kernels are buffers there; they are checked to be [1, 3, 3, 1]. There is no clamp and there are no labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medseg_gan.machine.seeding import torch_generator
from medseg_gan.weights.assembly import Network, build_discriminator, build_generator
from medseg_gan.weights.pickles import RefusedError
from stylegan2_ada_pytorch import Discriminator, Generator
from stylegan2_ada_pytorch.resample import setup_filter

NAMES = {"g_ema": "G_ema", "g": "G", "d": "D"}
LATENTS = 10_000  # behind a measured mean w


def is_rosinality(saved: Mapping[str, Any]) -> bool:
    """Whether a loaded file has this layout: a whole checkpoint, or a generator's state alone."""
    return any(isinstance(saved.get(name), dict) for name in NAMES) or "style.1.weight" in saved


def convert_rosinality(saved: Mapping[str, Any]) -> dict[str, Network]:
    """Build the networks of a loaded checkpoint.

    Args:
        saved: `{"g_ema": ..., "g": ..., "d": ..., "latent_avg": ...}`, each optional, or a generator's state alone.

    Returns:
        Those of `G`, `D`, `G_ema` that are there.

    Raises:
        RefusedError: tensors are missing, left over or misshapen.
    """
    if "style.1.weight" in saved:
        saved = {"g_ema": saved}
    networks: dict[str, Network] = {}
    for theirs, ours in NAMES.items():
        state = saved.get(theirs)
        if state is None:
            continue
        try:
            tensors = _checked(state)
            networks[ours] = _discriminator(tensors) if ours == "D" else _generator(tensors, saved.get("latent_avg"))
        except RefusedError as error:
            raise RefusedError(f"{theirs}: {error}") from error
        except (RuntimeError, IndexError, TypeError) as error:
            raise RefusedError(f"{theirs}: its tensors do not have the shapes of that layout") from error
    return {name: networks[name] for name in ("G", "D", "G_ema") if name in networks}


class _Tensors(dict[str, Tensor]):
    """Tensors by their old names; whatever was not asked for at the end is left over."""

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        if name not in self:
            raise RefusedError(f"it lacks {name}, which the layout of stylegan2-pytorch has")
        tensor = self.pop(name)
        if shape is None:
            return tensor
        try:
            return tensor.reshape(shape)
        except RuntimeError as error:
            raise RefusedError(f"its {name} has shape {tuple(tensor.shape)}, wanted {shape}") from error


def _generator(t: _Tensors, latent_avg: Any) -> Generator:
    new: dict[str, Tensor] = {}
    layers = sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in t)
    for k in range(layers):
        for part in ("weight", "bias"):
            new[f"mapping.fc{k}.{part}"] = t.take(f"style.{k + 1}.{part}")
    const = t.take("input.input")
    new["synthesis.b4.const"] = const.reshape(const.shape[1:])
    blocks = sum(bool(re.fullmatch(r"to_rgbs\.\d+\.conv\.weight", name)) for name in t)
    places = [("conv1", 4, "conv1")]
    for j in range(blocks):
        places += [(f"convs.{2 * j}", 8 << j, "conv0"), (f"convs.{2 * j + 1}", 8 << j, "conv1")]
    for number, (theirs, resolution, layer) in enumerate(places):
        name = f"synthesis.b{resolution}.{layer}"
        new |= _modulated(t, theirs, name)
        new[f"{name}.noise_strength"] = t.take(f"{theirs}.noise.weight", ())
        new[f"{name}.bias"] = t.take(f"{theirs}.activate.bias", (-1,))
        new[f"{name}.noise_const"] = t.take(f"noises.noise_{number}", (resolution, resolution))
        new[f"{name}.resample_filter"] = setup_filter()
    for j in range(blocks + 1):
        theirs, name = (
            ("to_rgb1", "synthesis.b4.torgb") if j == 0 else (f"to_rgbs.{j - 1}", f"synthesis.b{4 << j}.torgb")
        )
        new |= _modulated(t, theirs, name)
        new[f"{name}.bias"] = t.take(f"{theirs}.bias", (-1,))
        new[f"synthesis.b{4 << j}.resample_filter"] = setup_filter()
    _nothing_left(t)
    w_dim = new["synthesis.b4.torgb.affine.weight"].shape[-1]
    if latent_avg is not None and (not isinstance(latent_avg, Tensor) or latent_avg.numel() != w_dim):
        raise RefusedError(f"latent_avg is not a vector of {w_dim} numbers")
    new["mapping.w_avg"] = torch.zeros(w_dim) if latent_avg is None else latent_avg.reshape(w_dim)
    G = build_generator(new, conv_clamp=None)
    if latent_avg is None:
        G.mapping.w_avg.copy_(_mean_w(G))
    return G


def _modulated(t: _Tensors, theirs: str, name: str) -> dict[str, Tensor]:
    """A modulated convolution's weight and the dense layer of its style."""
    weight = t.take(f"{theirs}.conv.weight")
    if weight.ndim != 5 or weight.shape[0] != 1:
        raise RefusedError(f"its {theirs}.conv.weight has shape {tuple(weight.shape)}, wanted (1, O, I, k, k)")
    parts = {part: t.take(f"{theirs}.conv.modulation.{part}") for part in ("weight", "bias")}
    return {f"{name}.weight": weight[0]} | {f"{name}.affine.{part}": tensor for part, tensor in parts.items()}


def _discriminator(t: _Tensors) -> Discriminator:
    blocks = sum(bool(re.fullmatch(r"convs\.\d+\.skip\.\d+\.weight", name)) for name in t)
    layers = [("convs.0.0", "convs.0.1", f"b{4 << blocks}.fromrgb")]
    for j in range(blocks):
        theirs, name = f"convs.{j + 1}", f"b{4 << (blocks - j)}"
        layers += [
            (f"{theirs}.conv1.0", f"{theirs}.conv1.1", f"{name}.conv0"),
            (f"{theirs}.conv2.1", f"{theirs}.conv2.2", f"{name}.conv1"),
            (f"{theirs}.skip.1", "", f"{name}.skip"),
        ]
    layers.append(("final_conv.0", "final_conv.1", "b4.conv"))
    new: dict[str, Tensor] = {}
    for weight, bias, name in layers:
        new[f"{name}.weight"] = t.take(f"{weight}.weight")
        new[f"{name}.resample_filter"] = setup_filter()
        if bias:
            new[f"{name}.bias"] = t.take(f"{bias}.bias", (-1,))
    for j in range(blocks):
        new[f"b{8 << j}.resample_filter"] = setup_filter()
    for theirs, name in (("final_linear.0", "b4.fc"), ("final_linear.1", "b4.out")):
        for part in ("weight", "bias"):
            new[f"{name}.{part}"] = t.take(f"{theirs}.{part}")
    _nothing_left(t)
    return build_discriminator(new, conv_clamp=None)


def _checked(state: Any) -> _Tensors:
    """Tensors by name, without the blur kernels, which are checked."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RefusedError("it is not a dictionary of tensors")
    tensors = _Tensors()
    for name, tensor in state.items():
        if not re.search(r"(^|\.)kernel$", str(name)):
            tensors[str(name)] = tensor
        elif tensor.shape != (4, 4) or not torch.allclose(tensor / tensor.sum(), setup_filter(), atol=1e-5):
            raise RefusedError(f"its {name} is not the filter [1, 3, 3, 1], the only one that is supported")
    return tensors


def _nothing_left(t: _Tensors) -> None:
    if t:
        raise RefusedError(f"it has {min(t):.80} besides what the layout of stylegan2-pytorch has")


@torch.no_grad()
def _mean_w(G: Generator) -> Tensor:
    """Mean of w over fixed draws of z, which the layout's training code does not keep."""
    z = torch.randn(LATENTS, G.z_dim, generator=torch_generator("rosinality", "w_avg"))
    return G.mapping(z)[:, 0].mean(dim=0)
