"""The published configurations of StyleGAN2-ADA as settings; nothing here imports torch."""

from __future__ import annotations

from typing import Any, Literal, get_args

from medseg_gan.errors import UsageError, did_you_mean

ConfigName = Literal["auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar"]

_COLUMNS = ("batch_size", "mbstd_group", "channel_base", "lr", "r1_gamma", "ema_kimg", "ema_rampup", "mapping_layers")
_ROWS: dict[str, tuple[Any, ...]] = {
    # name      batch mbstd channels    lr  gamma   ema  ramp  map
    "stylegan2": (32, 4, 32_768, 0.0020, 10.00, 10.0, None, 8),
    "paper256": (64, 8, 16_384, 0.0025, 1.000, 20.0, None, 8),
    "paper512": (64, 8, 32_768, 0.0025, 0.500, 20.0, None, 8),
    "paper1024": (32, 4, 32_768, 0.0020, 2.000, 10.0, None, 8),
    "cifar": (64, 32, 32_768, 0.0025, 0.010, 500.0, 0.05, 2),
}
_KIMG = 25_000.0
_FURTHER: dict[str, dict[str, Any]] = {
    "cifar": {"total_kimg": 100_000.0, "pl_weight": 0.0, "style_mixing_prob": 0.0, "d_architecture": "orig"}
}


def published_config(name: str, resolution: int, gpus: int = 1) -> dict[str, Any]:
    """Settings of a configuration of StyleGAN2-ADA (Karras et al., 2020b, appendix D and official code).

    Args:
        name: one of `ConfigName`; `auto` goes by the images' size and the number of GPUs.
        resolution: side of the images.
        gpus: processes that share a batch, for `auto`.

    Returns:
        Values for `train_stylegan2`.

    Raises:
        UsageError: there is no such configuration.
    """
    names = get_args(ConfigName)
    if name not in names:
        meant = did_you_mean(name, names) or f"; wanted one of {', '.join(names)}"
        raise UsageError(f"there is no configuration {name}{meant}")
    row = _auto(resolution, gpus) if name == "auto" else _ROWS[name]
    return dict(zip(_COLUMNS, row, strict=True)) | {"total_kimg": _KIMG} | _FURTHER.get(name, {})


def _auto(resolution: int, gpus: int) -> tuple[Any, ...]:
    batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    channel_base = 32_768 if resolution >= 512 else 16_384
    lr = 0.002 if resolution >= 1024 else 0.0025
    gamma = 0.0002 * resolution**2 / batch
    return batch, max(min(batch // gpus, 4), 1), channel_base, lr, gamma, batch * 10 / 32, 0.05, 2
