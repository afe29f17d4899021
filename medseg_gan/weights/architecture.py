"""The configuration of a StyleGAN2-ADA network from the shapes of its tensors, checked against the stored one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from medseg_gan.weights.pickles import RefusedError

Tensors = Mapping[str, Tensor]

_HARMLESS = {"fp16_channels_last", "fused_modconv_default", "resample_filter"}
"""Settings of speed, and the filter, whose values are read from the tensors."""
_LARGEST = 1 << 30  # of a whole number
_FIXED = {"activation": "lrelu", "kernel_size": 3}
_MAPPING = {"num_layers", "embed_features", "layer_features", "lr_multiplier", "w_avg_beta"}
_SIZES = {"img_resolution", "img_channels", "c_dim"}
_SYNTHESIS = {"channel_base", "channel_max", "num_fp16_res", "architecture", "conv_clamp", "use_noise"}
_DISCRIMINATOR = {"architecture", "channel_base", "channel_max", "num_fp16_res", "conv_clamp", "cmap_dim"}


def generator_shape(tensors: Tensors) -> dict[str, Any]:
    """What the tensors of a generator say about it.

    Args:
        tensors: by their names in NVIDIA's layout, such as `synthesis.b4.conv1.weight`.

    Returns:
        `z_dim`, `c_dim`, `w_dim`, `img_resolution`, `img_channels`, `architecture`, `channels` (by resolution),
        `use_noise`, `w_avg` and those of the mapping network: `num_layers`, `layer_features`, `embed_features`.

    Raises:
        RefusedError: these are not the tensors of such a generator.
    """
    if any(name.startswith("synthesis.input.") for name in tensors):
        raise RefusedError("these are weights of StyleGAN3, whose generator is another one; wanted StyleGAN2")
    resolutions = _resolutions(tensors, r"synthesis\.b(\d+)\.")
    channels = {r: _size(tensors, f"synthesis.b{r}.conv1.weight", 0, 4) for r in resolutions}
    top = resolutions[-1]
    if any(name.startswith("synthesis.") and ".skip." in name for name in tensors):
        architecture = "resnet"
    else:
        architecture = "skip" if "synthesis.b4.torgb.weight" in tensors else "orig"
    mapping = _mapping_shape(tensors)
    z_dim = _size(tensors, "mapping.fc0.weight", 1, 2) - mapping["embed_features"]
    if z_dim < 1:
        raise RefusedError("its mapping network has labels as its only input, wanted a latent z")
    return {
        "z_dim": z_dim,
        "w_dim": _size(tensors, "synthesis.b4.conv1.affine.weight", 1, 2),
        "img_resolution": top,
        "img_channels": _size(tensors, f"synthesis.b{top}.torgb.weight", 0, 4),
        "architecture": architecture,
        "channels": channels,
        "use_noise": "synthesis.b4.conv1.noise_const" in tensors,
        "w_avg": "mapping.w_avg" in tensors,
        **mapping,
    }


def discriminator_shape(tensors: Tensors) -> dict[str, Any]:
    """What the tensors of a discriminator say about it, as `generator_shape`; `cmap_dim` is 0 without labels."""
    resolutions = _resolutions({name: t for name, t in tensors.items() if not name.startswith("b4.")}, r"b(\d+)\.", 8)
    top = resolutions[-1]
    channels = {4: _size(tensors, "b4.conv.weight", 0, 4)}
    channels |= {r: _size(tensors, f"b{r}.conv0.weight", 0, 4) for r in resolutions}
    if f"b{top}.skip.weight" in tensors:
        architecture = "resnet"
    else:
        architecture = "skip" if "b4.fromrgb.weight" in tensors else "orig"
    labels = "mapping.embed.weight" in tensors
    mapping = _mapping_shape(tensors) if labels else {"c_dim": 0}
    spread = _size(tensors, "b4.conv.weight", 1, 4) - channels[4]
    if spread < 0 or (spread and channels[4] % spread):
        raise RefusedError(f"its last convolution has {spread + channels[4]} inputs and {channels[4]} outputs")
    return {
        "img_resolution": top,
        "img_channels": _size(tensors, f"b{top}.fromrgb.weight", 1, 4),
        "architecture": architecture,
        "channels": channels,
        "mbstd_num_channels": spread,
        "cmap_dim": _size(tensors, "b4.out.weight", 0, 2) if labels else 0,
        **mapping,
    }


def generator_kwargs(tensors: Tensors, stored: Mapping[str, Any] | None, conv_clamp: float | None) -> dict[str, Any]:
    """Arguments that build the generator of some tensors.

    Args:
        tensors: by name.
        stored: arguments that the file says it was built with; None: it does not say.
        conv_clamp: bound of the layers' outputs where `stored` does not say.

    Raises:
        RefusedError: tensors and stored arguments contradict each other, or an argument is not known.
    """
    shape = generator_shape(tensors)
    told = _Stored(stored, {*_SIZES, "z_dim", "w_dim", "mapping_kwargs", "synthesis_kwargs"})
    told.agree(shape, ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"))
    synthesis = told.inner("synthesis_kwargs", _SYNTHESIS)
    synthesis.agree(shape, ("architecture", "use_noise"))
    settings: dict[str, Any] = {
        "architecture": shape["architecture"],
        "conv_clamp": synthesis.number("conv_clamp", conv_clamp),
        **channel_rule(shape["channels"], synthesis.whole("channel_base"), synthesis.whole("channel_max")),
        **synthesis.only("num_fp16_res"),
    }
    if not shape["use_noise"]:
        settings["use_noise"] = False
    mapping = _mapping_kwargs(told.inner("mapping_kwargs", _MAPPING), shape, shape["w_dim"])
    if not shape["w_avg"]:
        mapping["w_avg_beta"] = None
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    return {name: shape[name] for name in names} | {"mapping_kwargs": mapping, "synthesis_kwargs": settings}


def discriminator_kwargs(
    tensors: Tensors, stored: Mapping[str, Any] | None, conv_clamp: float | None, mbstd_group_size: int | None
) -> dict[str, Any]:
    """Arguments that build the discriminator of some tensors; as `generator_kwargs`. Nothing stays frozen."""
    shape = discriminator_shape(tensors)
    told = _Stored(stored, {*_SIZES, *_DISCRIMINATOR, "block_kwargs", "mapping_kwargs", "epilogue_kwargs"})
    told.agree(shape, ("c_dim", "img_resolution", "img_channels", "architecture"))
    if shape["c_dim"]:
        told.agree(shape, ("cmap_dim",))
    told.inner("block_kwargs", {"freeze_layers"})
    epilogue = told.inner("epilogue_kwargs", {"mbstd_group_size", "mbstd_num_channels"})
    epilogue.agree(shape, ("mbstd_num_channels",))
    mapping = _mapping_kwargs(told.inner("mapping_kwargs", _MAPPING), shape, shape["cmap_dim"])
    mapping.pop("w_avg_beta", None)
    return {
        **{name: shape[name] for name in ("c_dim", "img_resolution", "img_channels", "architecture")},
        **channel_rule(shape["channels"], told.whole("channel_base"), told.whole("channel_max")),
        **told.only("num_fp16_res"),
        "conv_clamp": told.number("conv_clamp", conv_clamp),
        "cmap_dim": shape["cmap_dim"] or None,
        "mapping_kwargs": mapping if shape["c_dim"] else {},
        "epilogue_kwargs": {
            "mbstd_group_size": epilogue.whole("mbstd_group_size", mbstd_group_size),
            "mbstd_num_channels": shape["mbstd_num_channels"],
        },
    }


def channel_rule(channels: Mapping[int, int], base: int | None, most: int | None) -> dict[str, int]:
    """`channel_base` and `channel_max` of the rule min(base // resolution, max) behind channel counts.

    Args:
        channels: by resolution.
        base: the stored base; None: the smallest that fits.
        most: the stored maximum; None: the largest count.

    Raises:
        RefusedError: the counts follow no such rule, or not the stored one.
    """
    most = max(channels.values()) if most is None else most
    base = max(count * r for r, count in channels.items()) if base is None else base
    implied = {r: min(base // r, most) for r in channels}
    if implied != dict(channels):
        wrong = next(r for r in channels if implied[r] != channels[r])
        raise RefusedError(
            f"it has {channels[wrong]} channels at {wrong} x {wrong}, but channel_base {base} and channel_max {most} "
            f"mean {implied[wrong]}"
        )
    return {"channel_base": base, "channel_max": most}


class _Stored:
    """Arguments that a file says its network was built with; every one is known, and none contradicts the tensors."""

    def __init__(self, values: Mapping[str, Any] | None, known: Iterable[str], where: str = "") -> None:
        self.where = where
        self.values = {name: value for name, value in (values or {}).items() if name not in _HARMLESS}
        for name, wanted in _FIXED.items():
            value = self.values.pop(name, wanted)
            if type(value) is not type(wanted) or value != wanted:
                raise RefusedError(f"its setting {where}{name} is not {wanted}, the only one that is supported")
        unknown = [str(name) for name in self.values if name not in known]
        if unknown:
            raise RefusedError(f"its setting {where}{unknown[0]:.60} is not one of StyleGAN2-ADA's")

    def inner(self, name: str, known: Iterable[str]) -> _Stored:
        values = self.values.get(name)
        if values is not None and not isinstance(values, dict):
            raise RefusedError(f"its setting {self.where}{name} is a {type(values).__name__}, wanted further settings")
        return _Stored(values, known, f"{self.where}{name}.")

    def agree(self, shape: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in names:
            told = self.values.get(name)
            if told is not None and (type(told) is not type(shape[name]) or told != shape[name]):
                shown = told if isinstance(told, (int, str)) else type(told).__name__
                raise RefusedError(f"its settings say {self.where}{name} {shown!s:.40}, its tensors {shape[name]}")

    def number(self, name: str, default: float | None) -> float | None:
        value = self.values.get(name, default)
        if value is not None and (type(value) not in (int, float) or not 0 <= value < float("inf")):
            raise RefusedError(f"its setting {self.where}{name} is a {type(value).__name__}, wanted a number")
        return value

    def whole(self, name: str, default: int | None = None) -> int | None:
        value = self.number(name, default)
        if value is not None and (type(value) is not int or value > _LARGEST):
            raise RefusedError(f"its setting {self.where}{name} is {value!s:.40}, wanted a whole number")
        return value

    def only(self, name: str) -> dict[str, int]:
        """The whole number of that name, if it is there."""
        value = self.whole(name)
        return {} if value is None else {name: value}


def _mapping_kwargs(told: _Stored, shape: Mapping[str, Any], w_dim: int) -> dict[str, Any]:
    if not {"num_layers", "layer_features", "embed_features"} <= shape.keys():
        return {}
    names = ["num_layers", "layer_features"] + (["embed_features"] if shape["c_dim"] else [])
    told.agree(shape, names)
    kwargs = {name: shape[name] for name in names if name == "num_layers" or shape[name] != w_dim}
    for name in ("lr_multiplier", "w_avg_beta"):
        value = told.number(name, None)
        if value is not None:
            kwargs[name] = value
    return kwargs


def _mapping_shape(tensors: Tensors) -> dict[str, int]:
    count = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors)
    labels = "mapping.embed.weight" in tensors
    return {
        "num_layers": count,
        "layer_features": _size(tensors, "mapping.fc0.weight", 0, 2),
        "embed_features": _size(tensors, "mapping.embed.weight", 0, 2) if labels else 0,
        "c_dim": _size(tensors, "mapping.embed.weight", 1, 2) if labels else 0,
    }


def _resolutions(tensors: Tensors, pattern: str, lowest: int = 4) -> list[int]:
    found = sorted({int(match[1]) for name in tensors if (match := re.match(pattern, name)) and len(match[1]) < 6})
    wanted = [lowest << k for k in range(len(found))]
    if not found or found != wanted or found[-1] < 8:
        shown = ", ".join(map(str, found[:12])) or "none"
        raise RefusedError(f"its blocks are those of the resolutions {shown}; wanted {lowest}, {2 * lowest}, ... ")
    return found


def _size(tensors: Tensors, name: str, axis: int, dimensions: int) -> int:
    if name not in tensors:
        raise RefusedError(f"it has no tensor {name}, which every StyleGAN2 of its kind has")
    if tensors[name].ndim != dimensions or tensors[name].numel() == 0:
        raise RefusedError(f"its {name} has shape {tuple(tensors[name].shape)}, wanted {dimensions} axes, none empty")
    return tensors[name].shape[axis]
