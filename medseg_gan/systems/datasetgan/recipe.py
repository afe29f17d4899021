"""Settings of DatasetGAN on StyleGAN2-ADA (Zhang et al., 2021; Fan, 2022): one section per stage, in running order."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from medseg_gan.errors import did_you_mean
from medseg_gan.labels import lookup_table
from medseg_gan.running.recipe import Distinct, ImageSize, Section, SystemRecipe, Window
from medseg_gan.systems.datasetgan.interpreter.settings import TrainInterpreter
from medseg_gan.systems.datasetgan.rows import TEACHERS, Row
from medseg_gan.training.stylegan2_config import ConfigName, StyleGAN2Training, published_config

SegmenterName = Literal["deeplabv3", "fcn", "unet"]


class Phantom(Section):
    """The built-in thorax phantom, used when no data folder is given."""

    gan_patients: PositiveInt = Field(60, description="patients without ground truth, for the GAN")
    labelled_patients: PositiveInt = Field(
        22, description="patients with ground truth, for the labelled and test pools"
    )
    test_patients: PositiveInt | None = Field(
        None,
        description="of these, for the test; none: as test_share says",
    )
    annotator_patients: PositiveInt = Field(
        12, description="patients who train the stand-in annotator and nothing else"
    )
    slices_per_patient: PositiveInt = Field(24, description="slices a patient, spread over the lungs")
    annotator_slices: PositiveInt = Field(16, description="slices of each patient of the annotator's cohort")
    matrix: int = Field(128, ge=32, multiple_of=2, description="pixels a side of the written volumes")


class Prepare(Section):
    """Volumes to slices: orientation, lungs, crop, size, pools of patients."""

    layout: Literal["auto", "segthor", "folder", "dicom"] = Field(
        "auto", description="how the data folder is organised"
    )
    patient_pattern: str | None = Field(
        None, description="regular expression whose first group is the patient in a file name (plain folders)"
    )
    labels: Literal["paper", "all", "segthor", "lungs"] = Field("paper", description="label table")
    size: ImageSize = Field(256, description="pixels a side, a power of two")
    window: Window = Field((-1000.0, 400.0), description="HU mapped to -1 and 1")
    spacing: PositiveFloat | None = Field(None, description="in-plane mm to resample to; none keeps each scan's own")
    crop: float = Field(1.0, gt=0, le=1, description="centred share of the field of view that is kept")
    min_lung_cm2: PositiveFloat = Field(20.0, description="lung area from which a slice counts as containing lung, cm2")
    test_share: float = Field(0.2, gt=0, lt=1, description="share of the labelled patients kept for testing")
    min_test_patients: PositiveInt = Field(5, description="test patients, at least")
    gan_share: float = Field(
        0.5, gt=0, lt=1, description="share of patients for the GAN alone, where every label is derived by rule"
    )
    max_test_slices: PositiveInt = Field(10, description="slices of one patient that count in test-R, evenly spread")
    workers: int = Field(0, ge=0, description="processes (0: one per core)", json_schema_extra={"fingerprint": False})
    phantom: Phantom = Phantom()


class TrainGan(StyleGAN2Training):
    """StyleGAN2-ADA (Karras et al., 2020a, 2020b)."""


class Segmenter(Section):
    """A segmentation network and its training."""

    name: SegmenterName = Field("deeplabv3", description="network")
    backbone: Literal["resnet101", "resnet50", "resnet18", "resnet18_slim"] = Field(
        "resnet101", description="of deeplabv3 and fcn"
    )
    output_stride: Literal[2, 4, 8, 16] = Field(8, description="of deeplabv3 and fcn; small images want 2")
    width: PositiveInt = Field(16, multiple_of=16, description="channels of the first level of the unet")
    backbone_weights: str | None = Field(None, description="local file of ImageNet weights for the backbone")
    steps: PositiveInt = Field(4000, description="optimiser steps, the same for every row")
    batch_size: PositiveInt = Field(8, description="slices a step")
    lr: PositiveFloat = Field(0.001, description="peak learning rate")
    optimizer: Literal["adam", "onecycle"] = Field(
        "adam", description="Adam at a constant rate (DatasetGAN), or AdamW with a one-cycle schedule"
    )
    loss: Literal["ce", "weighted_ce_dice"] = Field(
        "ce", description="cross-entropy, or cross-entropy weighted by 1/sqrt(frequency) plus Dice"
    )
    augment: bool = Field(False, description="random affine and intensity changes; left and right are never swapped")


class Inversion(Section):
    """Real labelled slices as latents of the generator (annotator: inversion); they are those of `few_patients`."""

    steps: PositiveInt = Field(300, description="of each slice's projection into W+")
    max_error: PositiveFloat = Field(
        0.25, description="reconstruction error above which a slice is dropped; 1 is no better than the mean picture"
    )
    max_repeats: PositiveInt = Field(
        1, description="a slice counts up to so often: the median error over its own; 1: all alike"
    )
    image_from: Literal["real", "reconstruction"] = Field(
        "real", description="what U-Nets on the image alone learn from (labellers image and average)"
    )


class Annotate(Section):
    """Generated slices and the masks an annotator gives them."""

    annotator: Literal["auto", "person", "lungs", "segmenter", "inversion"] = Field(
        "auto",
        description="who paints: auto is the HU rule for the lungs table, the stand-in on the phantom, else you; "
        "inversion: nobody, real labelled slices are projected instead",
    )
    num_images: PositiveInt = Field(30, description="annotated generated slices, or real ones to invert")
    held_out: PositiveInt = Field(100, description="further slices labelled to judge the interpreter (not by a person)")
    truncation_psi: float = Field(0.7, gt=0, le=1, description="truncation of the first half of the layers")
    max_tries: PositiveInt = Field(20, description="candidates looked at per accepted slice before giving up")
    stand_in: Segmenter = Segmenter()
    inversion: Inversion = Field(Inversion())


class Synthesize(Section):
    """The factory at work: training pairs and test-G."""

    num_pairs: PositiveInt = Field(1500, description="generated image-label pairs for training")
    num_test_g: PositiveInt = Field(100, description="further pairs, at reserved indices, that make test-G")
    block_size: PositiveInt = Field(8, description="images rendered together; part of what makes bits reproducible")
    filter_portion: float = Field(0.0, ge=0, lt=1, description="share of the worst pairs left out of training")
    filter: Literal["quality", "uncertainty", "none"] = Field(
        "uncertainty",
        description="what the worst pairs have most of: predicted wrong pixels, or uncertainty as DatasetGAN has it",
    )
    quirk: bool = Field(
        False,
        description="as published: the 30 least uncertain go in place of 30 of the most uncertain",
    )
    quality_folds: NonNegativeInt = Field(
        5,
        description="parts of a person's slices, each judged by an interpreter of the others; 0: none is trained anew",
    )

    @property
    def dropped(self) -> float:
        """Share of the pairs that is left out."""
        return 0.0 if self.filter == "none" else self.filter_portion

    @model_validator(mode="after")
    def _a_portion_has_a_filter(self) -> Synthesize:
        if self.filter == "none" and self.filter_portion:
            raise ValueError(
                f"filter_portion {self.filter_portion:g} leaves out pairs by no filter; name one, or give "
                "filter_portion 0"
            )
        return self

    @model_validator(mode="after")
    def _quirk_drops_enough(self) -> Synthesize:
        if self.quirk and self.filter != "uncertainty":
            raise ValueError(f"quirk belongs to the published filter; it wants filter: uncertainty, not {self.filter}")
        # generated pairs are num_pairs / (1 - portion); of those left out, 30 come from the other end
        if self.quirk and self.num_pairs * self.filter_portion < 30 * (1 - self.filter_portion):
            raise ValueError(
                f"quirk leaves out 30 pairs at least, filter_portion {self.filter_portion:g} of {self.num_pairs} pairs "
                "is fewer; raise one of them"
            )
        return self

    @model_validator(mode="after")
    def _folds_are_parts(self) -> Synthesize:
        if self.quality_folds == 1:
            raise ValueError("quality_folds 1 leaves nothing to learn from; give at least 2, or 0")
        return self


class FewSlices(Section):
    """The few real slices that people would label."""

    few_patients: PositiveInt = Field(3, description="patients of the row `real30`, the hybrid and the pseudo-labels")
    few_slices: PositiveInt = Field(10, description="slices of each of them")


class TrainSegmenters(FewSlices):
    """Segmenters on each training set, at equal optimiser steps."""

    rows: Annotated[tuple[Row, ...], Distinct] = Field(
        ("synthetic", "real", "hybrid", "real30", "real30_spread", "annotated_only", "annotated_real", "pseudo_label"),
        min_length=1,
        description="training sets",
    )
    networks: Annotated[tuple[SegmenterName, ...], Distinct] = Field(
        ("deeplabv3",), min_length=1, description="each is trained on every row"
    )
    segmenter: Segmenter = Segmenter()
    deciding_seeds: PositiveInt = Field(3, description="segmenter seeds of the rows that decide")
    other_seeds: PositiveInt = Field(1, description="segmenter seeds of the other rows")
    num_real: PositiveInt = Field(500, description="real labelled slices of the row `real`")
    val_slices: PositiveInt = Field(60, description="slices of held-out labelled patients that pick the checkpoint")
    checkpoints: PositiveInt = Field(4, description="checkpoints of a training among which the protocols pick")
    workers: int = Field(0, ge=0, description="processes (0: one per core)", json_schema_extra={"fingerprint": False})

    @model_validator(mode="after")
    def _pseudo_labels_have_a_teacher(self) -> TrainSegmenters:
        for row, teacher in TEACHERS.items():
            if row in self.rows and teacher not in self.rows:
                raise ValueError(f"rows has {row} without {teacher}, whose segmenters paint its labels; add {teacher}")
        return self


class Evaluate(Section):
    """test-G and test-R, protocols and floors."""

    bootstrap: PositiveInt = Field(2000, description="resamples of test patients behind each interval")
    folds: int = Field(5, ge=2, description="folds of the protocol `seed`")


class Report(Section):
    """The page people read."""

    pictures: PositiveInt = Field(16, description="slices in each picture grid")
    audit_images: NonNegativeInt = Field(
        1000,
        description="generated slices among which copies of training slices are looked for; 0: none",
    )
    audit_canaries: int = Field(
        20,
        ge=1,
        le=1000,
        description="planted copies of each kind that the audit has to find",
    )


class DatasetGanRecipe(SystemRecipe):
    """The recipe of DatasetGAN: its fields are its stages in running order."""

    prepare: Prepare = Prepare()
    train_gan: TrainGan = TrainGan()
    annotate: Annotate = Annotate()
    train_interpreter: TrainInterpreter = TrainInterpreter()
    synthesize: Synthesize = Synthesize()
    train_segmenters: TrainSegmenters = TrainSegmenters()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()

    @model_validator(mode="after")
    def _ignored_classes_exist(self) -> DatasetGanRecipe:
        table = lookup_table(self.prepare.labels)
        unknown = next((name for name in self.train_interpreter.ignore if name not in table.classes), None)
        if unknown is not None:
            raise ValueError(
                f"train_interpreter.ignore names {unknown}, which label table {table.name} does not have"
                f"{did_you_mean(unknown, table.classes)}"
            )
        return self

    @model_validator(mode="after")
    def _enough_slices_to_invert(self) -> DatasetGanRecipe:
        wanted, few = self.annotate.num_images, self.train_segmenters
        most = few.few_patients * few.few_slices
        if self.annotate.annotator == "inversion" and wanted > most:
            raise ValueError(
                f"annotate.annotator=inversion wants {wanted} real labelled slices (annotate.num_images), "
                f"train_segmenters.few_patients={few.few_patients} times train_segmenters.few_slices={few.few_slices} "
                f"are {most}; raise those, or lower annotate.num_images"
            )
        return self

    @model_validator(mode="after")
    def _enough_images_to_cross_validate(self) -> DatasetGanRecipe:
        config, images = self.train_interpreter, self.annotate.num_images
        if images > 1:
            return self  # fewer images than folds make as many folds as images
        if config.labeller == "auto":
            raise ValueError(
                f"train_interpreter.labeller=auto cross-validates, which annotate.num_images={images} does not allow; "
                "name the labeller, or annotate 2 images or more"
            )
        if config.calibration in ("temperature", "per_class"):
            raise ValueError(
                f"train_interpreter.calibration={config.calibration} cross-validates, which annotate.num_images="
                f"{images} does not allow; use calibration=none, or annotate 2 images or more"
            )
        return self

    @classmethod
    def filled(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Written settings with those of `train_gan.config` that were not written; mistakes are found later."""
        gan, prepare = tree.get("train_gan"), tree.get("prepare")
        if not isinstance(gan, dict) or not isinstance(prepare, dict) or gan.get("config") not in get_args(ConfigName):
            return tree
        size, gpus = prepare.get("size", Prepare().size), gan.get("gpus", 1)
        if type(size) is not int or type(gpus) is not int or size < 1 or gpus < 1:
            return tree
        return tree | {"train_gan": published_config(gan["config"], size, gpus) | gan}
