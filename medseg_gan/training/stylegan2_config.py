"""Settings of a StyleGAN2-ADA training and its published configurations; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from medseg_gan.errors import UsageError, did_you_mean
from medseg_gan.running.recipe import Section
from medseg_gan.training.cadence import steps_of

ConfigName = Literal["auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar"]
Pipe = Literal["blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc", "medical"]
_OBSERVING = {"config", "gpus", "checkpoint_kimg", "sample_kimg", "metric_kimg", "metric_images", "use"}

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


class StyleGAN2Training(Section):
    """All settings of a StyleGAN2-ADA training; a system that trains one has them, or a subclass, as its section.

    Example:
        train_stylegan2(StyleGAN2Training(total_kimg=200, batch_size=8), images, None, folder, seed=0)
    """

    config: Literal["none", ConfigName] = Field(
        "none",
        description="published configuration for the settings that neither recipe, profile nor --set give",
    )
    gpus: PositiveInt = Field(
        1,
        description="processes that torchrun will start, for which `config: auto` chooses the batch",
    )
    total_kimg: NonNegativeFloat = Field(
        25_000.0,
        description="training length, thousands of real images; 0 takes the generator of init_from as it is",
        json_schema_extra={"length": True},
    )
    batch_size: PositiveInt = Field(16, description="images a step, of all processes together")
    batch_gpu: PositiveInt | None = Field(
        None, description="images at a time in a process, gradients add up; none: all at once"
    )
    z_dim: PositiveInt = Field(512, description="size of the latent z")
    w_dim: PositiveInt = Field(512, description="size of the latent w")
    mapping_layers: PositiveInt = Field(2, description="layers of the mapping network")
    channel_base: PositiveInt = Field(16_384, description="channels times resolution")
    channel_max: PositiveInt = Field(512, description="channels at most")
    architecture: Literal["skip", "resnet", "orig"] = Field("skip", description="generator architecture")
    d_architecture: Literal["resnet", "skip", "orig"] = Field("resnet", description="discriminator architecture")
    lr: PositiveFloat = Field(0.0025, description="learning rate of G and D")
    lr_decay_from: float = Field(1.0, gt=0, le=1, description="share of training after which lr falls linearly to zero")
    r1_gamma: NonNegativeFloat = Field(1.0, description="weight of the R1 penalty")
    r1_interval: PositiveInt = Field(16, description="steps between R1 penalties")
    pl_weight: NonNegativeFloat = Field(2.0, description="weight of the path length penalty")
    pl_interval: PositiveInt = Field(4, description="steps between path length penalties")
    style_mixing_prob: float = Field(0.9, ge=0, le=1, description="probability of style mixing")
    ema_kimg: PositiveFloat = Field(5.0, description="half-life of the averaged generator, thousands of images")
    ema_rampup: float | None = Field(0.05, description="half-life at most this share of the images seen; none: no ramp")
    mbstd_group: PositiveInt = Field(4, description="group size of the minibatch standard deviation")
    ada: Literal["ada", "fixed", "off"] = Field(
        "ada", description="adaptive, constant or no discriminator augmentation"
    )
    ada_pipe: Pipe = Field(
        "medical", description="augmentations; `medical` has no mirror, no quarter turns and no negative"
    )
    ada_target: float = Field(0.6, gt=-1, lt=1, description="target of r_t, the mean sign of D on real images")
    ada_kimg: PositiveFloat = Field(500.0, description="thousands of images in which p can go from 0 to 1")
    p_max: float = Field(0.8, gt=0, le=1, description="bound on the augmentation probability p")
    fixed_p: float = Field(0.2, ge=0, le=1, description="p where ada is fixed")
    init_from: str | None = Field(
        None,
        min_length=1,
        description="weights to begin with: network.pkl, .pt of import-weights, G_ema.pt; set ema_rampup to none then",
    )
    freeze_d: NonNegativeInt = Field(
        0,
        description="layers of D, counted from the image, that keep the weights of init_from (Freeze-D)",
    )
    checkpoint_kimg: PositiveFloat = Field(200.0, description="thousands of images between checkpoints")
    sample_kimg: PositiveFloat = Field(50.0, description="thousands of images between sample grids")
    metric_kimg: NonNegativeFloat = Field(
        0.0,
        description="thousands of images between measurements of the Fréchet distance, which keep best.pt; 0: none",
        json_schema_extra={"fingerprint": {"use": "best"}},
    )
    metric_images: int = Field(
        500,
        ge=2,
        description="generated images of a measurement",
        json_schema_extra={"fingerprint": {"use": "best"}},
    )
    use: Literal["latest", "best"] = Field(
        "latest",
        description="weights the later stages use: the last, or those of the least Fréchet distance",
    )

    @model_validator(mode="after")
    def _a_step_fits(self) -> StyleGAN2Training:
        if not self.total_kimg:
            if self.init_from is None:
                raise ValueError("total_kimg 0 takes a trained generator as it is; give init_from")
            if self.use == "best" or self.freeze_d:
                raise ValueError("total_kimg 0 trains nothing; leave freeze_d and use: best out")
        elif self.total_kimg * 1000 < self.batch_size:
            raise ValueError(
                f"total_kimg {self.total_kimg:g} ends before one step of batch_size {self.batch_size}; "
                "raise the one or lower the other"
            )
        return self

    @model_validator(mode="after")
    def _a_batch_is_shared(self) -> StyleGAN2Training:
        if mistake := self.unshared(self.gpus, f"gpus {self.gpus}"):
            raise ValueError(mistake)
        return self

    @model_validator(mode="after")
    def _best_is_measured(self) -> StyleGAN2Training:
        if self.use == "best" and not self.metric_kimg:
            raise ValueError("use: best wants the Fréchet distance measured; give metric_kimg")
        return self

    @model_validator(mode="after")
    def _frozen_layers_have_weights(self) -> StyleGAN2Training:
        if self.freeze_d and self.init_from is None:
            raise ValueError(f"freeze_d {self.freeze_d} would freeze random weights; give init_from, or leave it out")
        return self

    def unshared(self, number: int, processes: str) -> str | None:
        """Why a batch cannot be cut into equal shares, parts and groups; None where it can.

        Args:
            number: of processes that share it.
            processes: what they are called in the answer.
        """
        if self.batch_size % number:
            return f"batch_size {self.batch_size} cannot be shared by {processes}; choose a multiple"
        own = self.batch_size // number
        share = f"batch_size {own} in each of {processes}" if number > 1 else f"batch_size {own}"
        part = self.batch_gpu or own
        if own % part:
            return f"batch_gpu {part} must divide {share}; choose one that does"
        if part % min(self.mbstd_group, part):
            cut = f"batch_gpu {part}" if self.batch_gpu else share
            return f"{cut} is not a multiple of mbstd_group {self.mbstd_group}; choose one that divides it"
        return None

    def steps(self, kimg: float) -> int:
        """Steps in so many thousand images, at least one."""
        return steps_of(kimg, self.batch_size)

    @property
    def iterations(self) -> int:
        """Steps of the whole training."""
        return self.steps(self.total_kimg)

    @property
    def first_p(self) -> float:
        """Augmentation strength at the start; the strength throughout, unless `ada` moves it."""
        return self.fixed_p if self.ada == "fixed" else 0.0

    def identity(self) -> dict[str, Any]:
        """The settings that must not change between two runs of a training: all but those that only observe it."""
        return self.model_dump(exclude=_OBSERVING | (set() if self.lr_decay_from < 1 else {"total_kimg"}))

    def new_length(self, folder: Path) -> str | None:
        """Why a training in `folder` cannot have this length; a longer one goes on, a shorter ends at a checkpoint."""
        if self.lr_decay_from < 1:
            return f"lr_decay_from {self.lr_decay_from:g} makes the learning rate depend on total_kimg"
        if self.use == "best":
            return "use best chooses among measurements, and total_kimg decides when the last is taken"
        kept = sorted(int(path.stem.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*.pt"))
        if not kept:
            return "no checkpoint is left to go on from" if (folder / "G_ema.pt").exists() else None
        images = self.iterations * self.batch_size
        if images > kept[-1] or images in kept:
            return None
        return f"checkpoints exist at {', '.join(f'{number / 1000:g}' for number in kept)} thousand images"


def published_config(name: str, resolution: int, gpus: int = 1) -> dict[str, Any]:
    """Settings of a configuration of StyleGAN2-ADA (Karras et al., 2020b, appendix D and official code).

    Args:
        name: one of `ConfigName`; `auto` goes by the images' size and the number of GPUs.
        resolution: side of the images.
        gpus: processes that share a batch, for `auto`.

    Returns:
        Values for `StyleGAN2Training`.

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
