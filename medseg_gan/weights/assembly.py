"""Build networks from foreign tensors; check every name, shape and value before taking memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medseg_gan.weights.architecture import discriminator_kwargs, generator_kwargs
from medseg_gan.weights.pickles import RefusedError
from stylegan2_ada_pytorch import Discriminator, Generator
from stylegan2_ada_pytorch.resample import setup_filter

Network = Generator | Discriminator

PUBLISHED_CLAMP = 256.0
"""Bound of the layers' outputs in all published configurations of StyleGAN2-ADA."""
PUBLISHED_GROUP = 4  # images whose spread the discriminator sees


def build_generator(
    tensors: Mapping[str, Tensor], stored: Mapping[str, Any] | None = None, conv_clamp: float | None = PUBLISHED_CLAMP
) -> Generator:
    """The generator of some tensors, in evaluation mode and without gradients.

    Args:
        tensors: by their names in NVIDIA's layout.
        stored: arguments that the file says it was built with; None: all is inferred from the shapes.
        conv_clamp: bound of the layers' outputs where `stored` does not say; tensors do not tell it.

    Raises:
        RefusedError: tensors are missing, left over, of another shape, not finite, or contradict `stored`.
    """
    kwargs = generator_kwargs(tensors, stored, conv_clamp)
    return _assemble(Generator, kwargs, tensors)  # type: ignore[return-value]


def build_discriminator(
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Any] | None = None,
    conv_clamp: float | None = PUBLISHED_CLAMP,
    mbstd_group_size: int | None = PUBLISHED_GROUP,
) -> Discriminator:
    """The discriminator of some tensors; as `build_generator`. Layers that were frozen are trainable again."""
    kwargs = discriminator_kwargs(tensors, stored, conv_clamp, mbstd_group_size)
    return _assemble(Discriminator, kwargs, tensors)  # type: ignore[return-value]


def _assemble(kind: type[Network], kwargs: dict[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    try:
        with torch.device("meta"):  # sizes without memory, and no draw from anyone's random stream
            network = kind(**kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RefusedError(f"its settings build no network ({' '.join(str(error).split())[:120]})") from error
    wanted = network.state_dict()
    _check_names(wanted, tensors)
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise RefusedError(f"its {name} has shape {tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}")
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise RefusedError(f"its {name} holds values that are not finite numbers")
        if name.endswith("resample_filter") and not torch.allclose(tensor.float(), setup_filter(), atol=1e-5):
            raise RefusedError(f"its {name} is not the filter [1, 3, 3, 1], the only one that is supported")
    copies = {name: tensor.detach().to(torch.float32).contiguous().clone() for name, tensor in tensors.items()}
    network.load_state_dict(copies, assign=True)
    return network.eval().requires_grad_(False)


def _check_names(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    for text, names in (("lacks", missing), ("has besides what is known", extra)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise RefusedError(f"it {text} {names[0]:.80}{more}; it is another network than StyleGAN2-ADA's")
