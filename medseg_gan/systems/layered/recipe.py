"""Settings of the improved layered GAN (Yang et al., 2022): one section per stage, in running order."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from medseg_gan.running.recipe import ImageSize, Section, SystemRecipe, Window
from medseg_gan.training.arms import Arms
from medseg_gan.training.cadence import steps_of

_OBSERVING = {"arms", "seeds", "restarts", "watch_from", "checkpoint_kimg", "sample_kimg", "workers"}


class Phantom(Section):
    """Procedural pictures in the layout of a real data set, used when no data folder is given."""

    kind: Literal["birds", "shelf"] = Field("birds", description="figures in CUB's layout, or objects in APC's")
    train: PositiveInt = Field(6000, description="pictures to train on (birds)")
    val: PositiveInt = Field(300, description="pictures kept aside (birds)")
    test: PositiveInt = Field(400, description="pictures to test on (birds)")
    size: PositiveInt = Field(64, description="pixels a side of the written pictures")
    objects: PositiveInt = Field(10, description="objects (shelf)")
    scenes: PositiveInt = Field(30, description="scenes of each object (shelf)")
    frames: PositiveInt = Field(5, description="pictures of a scene (shelf)")


class Thorax(Section):
    """The built-in thorax phantom, used with layout ct when no data folder is given."""

    gan_patients: PositiveInt = Field(60, description="patients without ground truth")
    labelled_patients: PositiveInt = Field(24, description="patients with ground truth")
    slices_per_patient: PositiveInt = Field(24, description="slices a patient, spread over the lungs")
    matrix: int = Field(128, ge=32, multiple_of=2, description="pixels a side of the written volumes")


class Prepare(Section):
    """Pictures, or slices of volumes, to one store of images and masks."""

    layout: Literal["auto", "cub", "dogs", "cars", "apc", "folder", "ct"] = Field(
        "auto", description="how the data folder is organised; ct: volumes, as segthor_datasetgan reads them"
    )
    size: ImageSize = Field(128, description="pixels a side, a power of two")
    window: Window = Field((-1000.0, 400.0), description="ct: HU mapped to -1 and 1")
    foreground: Literal["lungs", "body"] = Field("lungs", description="ct: what counts as foreground in the test")
    patient_pattern: str | None = Field(None, description="ct: first group of this pattern is a file's patient")
    mask_weights: str | None = Field(
        None, description="dogs, cars: local file of torchvision's Mask R-CNN weights, for pseudo ground truth"
    )
    workers: int = Field(0, ge=0, description="processes (0: one per core)", json_schema_extra={"fingerprint": False})
    min_test_patients: PositiveInt = Field(5, description="ct: test patients, at least")
    phantom: Phantom = Phantom()
    thorax: Thorax = Thorax()


class Network(Section):
    """Sizes of the GAN's networks; the defaults are the paper's."""

    z_dim: PositiveInt = Field(100, description="size of the public code z")
    base: PositiveInt = Field(64, description="g, channels of the generators at the image's size")
    widest: PositiveInt = Field(16, description="channels at 4 x 4, times g")
    blocks: NonNegativeInt = Field(2, description="residual blocks of a stage")
    smallest: PositiveInt = Field(1, description="channels of a stage at least; small CPUs want 16")
    d_first: PositiveInt = Field(64, description="channels after the discriminator's first halving")
    pi_first: PositiveInt = Field(32, description="channels after the mask encoder's first halving")
    d_norm: Literal["sn", "sn_bn"] = Field("sn", description="spectral norm, or with batch norm in the trunk as well")


class Objective(Section):
    """What a training optimises: all that an arm of a comparison may change."""

    prior: Literal["categorical", "gaussian"] = Field("categorical", description="law of the private code c")
    c_dim: PositiveInt = Field(200, description="classes of c, or its components")
    group: PositiveInt = Field(10, description="classes of c with one parent c_sup (categorical)")
    gamma_mi: NonNegativeFloat = Field(1.0, description="weight of mutual information")
    pi_share: NonNegativeFloat = Field(1.0, description="weight of I(mask, c_sup) relative to I(image, c)")
    gamma_b: NonNegativeFloat = Field(2.0, description="weight of the masks' binarisation")
    gamma_bg: NonNegativeFloat = Field(2.0, description="weight of foreground in the background, from round 2 on")
    size_weight: NonNegativeFloat = Field(0.0, description="weight of PerturbGAN's mask size loss; 0: off")
    ramp_mi: float = Field(0.1, ge=0, le=1, description="share of round 1 over which gamma_mi rises from 0")
    ramp_b: float = Field(0.1, ge=0, le=1, description="share of round 1 over which gamma_b rises from 0")
    shift: float = Field(0.125, ge=0, lt=1, description="perturbation: translation at most, share of the side")
    degrees: float = Field(15.0, ge=0, le=180, description="perturbation: rotation at most")
    shrink: float = Field(-0.2, le=0, description="perturbation: scale down to 2 to this power")
    contrast: tuple[float, float] | None = Field(None, description="range of the background's contrast factor")
    mask_bias: float = Field(0.0, description="of the masks' logits at the start; below 0 masks begin small")
    rounds: PositiveInt = Field(5, description="rounds K of alternate training; 1: no alternation")
    kimg: PositiveFloat = Field(2000.0, description="thousand real images a round")

    @model_validator(mode="after")
    def _groups_divide(self) -> Objective:
        if self.prior == "categorical" and self.c_dim % self.group:
            raise ValueError(f"c_dim {self.c_dim} is not a multiple of group {self.group}")
        return self


class TrainGan(Arms):
    """The layered GAN and its segmenter F, trained in turns (Algorithm 1)."""

    objective: Objective = Objective()
    network: Network = Network()
    batch_size: int = Field(32, ge=2, description="images a step; batch norm wants two")
    lr: PositiveFloat = Field(2e-4, description="learning rate of G")
    lr_d: PositiveFloat = Field(2e-4, description="learning rate of D with the encoders")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of an averaged generator to sample from; 0: none")
    reuse_fakes: bool = Field(False, description="one generated batch a step for both networks, a quarter less work")
    crop: float = Field(0.8, gt=0, le=1, description="smallest side of the random square crop of real images")
    segmenter: Literal["unet", "basic_unet"] = Field("basic_unet", description="F; basic_unet of width 64: the paper's")
    segmenter_width: PositiveInt = Field(64, multiple_of=16, description="channels of F's first level")
    segmenter_steps: PositiveInt = Field(2000, description="steps of F at the end of each round")
    segmenter_lr: PositiveFloat = Field(1e-3, description="learning rate of F")
    restarts: NonNegativeInt = Field(
        3,
        description="new beginnings of each training after a trivial solution, at most",
    )
    watch_from: float = Field(0.5, ge=0, le=1, description="share of round 1 from which the watchdog judges")
    checkpoint_kimg: PositiveFloat = Field(100.0, description="thousand images between checkpoints")
    sample_kimg: PositiveFloat = Field(50.0, description="thousand images between sample sheets")
    workers: int = Field(0, ge=0, description="processes (0: one per core)", json_schema_extra={"fingerprint": False})

    def steps(self, kimg: float) -> int:
        """GAN iterations in so many thousand images."""
        return steps_of(kimg, self.batch_size)

    @property
    def gan_steps(self) -> int:
        """GAN iterations of a round."""
        return self.steps(self.objective.kimg)

    @property
    def round_steps(self) -> int:
        """Iterations of a round, the segmenter's included."""
        return self.gan_steps + self.segmenter_steps

    @property
    def iterations(self) -> int:
        """Iterations of the whole training."""
        return self.objective.rounds * self.round_steps

    def place(self, iteration: int) -> tuple[int, int]:
        """Round and step inside it, both from 0, of the iteration counted from 1."""
        return divmod(iteration - 1, self.round_steps)

    def gan_done(self, iteration: int) -> int:
        """GAN iterations among the first so many."""
        whole, rest = divmod(iteration, self.round_steps)
        return whole * self.gan_steps + min(rest, self.gan_steps)

    def identity(self) -> dict[str, Any]:
        """The settings that must not change between two runs of a training, those of objective and network beside."""
        settings = self.model_dump(exclude=_OBSERVING)
        return {**settings.pop("objective"), **settings.pop("network"), **settings}


class Synthesize(Section):
    """Image–mask pairs of each trained generator."""

    num_pairs: PositiveInt = Field(50_000, description="pairs of each generator")
    val_share: float = Field(0.1, gt=0, lt=1, description="last share of them, on which the segmenter's step is picked")
    block_size: PositiveInt = Field(50, description="images rendered together; part of what makes bits reproducible")


class TrainSegmenters(Section):
    """The final U-Net, from scratch on the synthetic pairs, and the supervised ceiling."""

    name: Literal["unet", "basic_unet"] = Field("basic_unet", description="network")
    width: PositiveInt = Field(64, multiple_of=16, description="channels of its first level")
    steps: PositiveInt = Field(12_000, description="optimiser steps, of the ceiling too")
    batch_size: int = Field(32, ge=2, description="images a step; batch norm wants two")
    lr: PositiveFloat = Field(1e-3, description="learning rate, lowered to a fifth after two thirds")
    checkpoints: PositiveInt = Field(4, description="checkpoints among which synthetic validation pairs pick")
    supervised: bool = Field(True, description="train the ceiling on real masks as well")
    workers: int = Field(0, ge=0, description="processes (0: one per core)", json_schema_extra={"fingerprint": False})


class Evaluate(Section):
    """Masks on the real test pictures, and generated pictures against real ones."""

    fid_weights: str | None = Field(None, description="local file of the published Inception weights, for FID")
    num_fake: PositiveInt = Field(10_000, description="generated pictures behind each distance")
    grabcut: bool = Field(True, description="score GrabCut from a centred rectangle as a floor")
    bootstrap: PositiveInt = Field(2000, description="resamples of test pictures behind each interval")


class Report(Section):
    """The page people read."""

    pictures: PositiveInt = Field(16, description="pictures in each grid")


class LayeredRecipe(SystemRecipe):
    """The recipe of the layered GAN: its fields are its stages in running order."""

    prepare: Prepare = Prepare()
    train_gan: TrainGan = TrainGan()
    synthesize: Synthesize = Synthesize()
    train_segmenters: TrainSegmenters = TrainSegmenters()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
