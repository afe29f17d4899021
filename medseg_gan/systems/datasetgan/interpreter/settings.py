"""Settings of the interpreter: how its networks learn, and what the stage does besides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from medseg_gan.running.recipe import Distinct, Section

Candidate = Literal["image", "whole_image", "joint", "average", "pixels"]


class InterpreterTraining(Section):
    """How the interpreter's networks learn, of whatever images."""

    features: Literal["editgan", "one_per_block", "drop_const", "datasetgan1", "dariant_sg2"] = Field(
        "editgan", description="which of the generator's maps"
    )
    labeller: Literal["features", "image", "average", "joint", "auto"] = Field(
        "features",
        description="classifiers on features, U-Nets on the image alone, the mean of both, networks on both together, "
        "or what cross-validation on the annotated images finds best",
    )
    loss: Literal["pixels", "whole_image"] = Field("pixels", description="sampled pixels (paper) or whole images")
    preset: Literal["seed003", "seed003-literal", "datasetgan"] = Field("seed003", description="pixel classifiers")
    members: PositiveInt = Field(10, description="classifiers in the ensemble")
    max_epochs: PositiveInt = Field(100, description="epochs over all pixels (loss: pixels)")
    pixel_batch: PositiveInt = Field(64, description="pixels a step (loss: pixels)")
    steps: PositiveInt = Field(400, description="steps (loss: whole_image, and the image and joint labellers)")
    image_steps: PositiveInt | None = Field(
        None,
        description="steps of the U-Nets on the image; none: as many as `steps`",
    )
    image_members: PositiveInt = Field(3, description="U-Nets of the image labeller, networks of the joint one")
    image_width: PositiveInt = Field(16, multiple_of=16, description="channels of their first level")
    class_balanced: bool = Field(
        False,
        description="all classes are drawn equally often (loss: pixels)",
    )
    shared_batches: bool = Field(
        False,
        description="all classifiers see the same pixels in the same order (loss: pixels)",
    )


class TrainInterpreter(InterpreterTraining):
    """The style interpreter: from the generator's features to labels."""

    feature_storage: Literal["auto", "fp32", "fp16"] = Field(
        "auto",
        description="how the annotated images' maps are held; fp16 rounds to one part in 2048 in half the memory; "
        "auto: fp16 for maps above 32 x 32 where fp32 would take more than 1 GB (30 images at 256 x 256 take 1.9)",
    )
    ignore: Annotated[tuple[str, ...], Distinct] = Field(
        (),
        description="classes whose pixels teach nothing, as if nobody had labelled them",
    )
    candidates: Annotated[tuple[Candidate, ...], Distinct] = Field(
        ("average", "image", "whole_image", "joint", "pixels"),
        min_length=2,
        description="labellers that auto chooses from; of those that tie it takes the first",
    )
    folds: int = Field(5, ge=2, description="of the cross-validation")
    fold_members: PositiveInt = Field(
        2,
        description="networks of each kind in a fold, at most",
    )
    fold_steps: PositiveInt | None = Field(
        None,
        description="steps of all networks in a fold; none: as many as in the end. Pixel classifiers stop after ten "
        "times as many as `steps`",
    )
    calibration: Literal["auto", "none", "temperature", "per_class"] = Field(
        "auto",
        description="of probabilities, on out-of-fold answers: one temperature, or a scale and bias for each class; "
        "auto is per_class where the labeller is auto, which has those answers anyway, and none elsewhere",
    )
    workers: int = Field(
        1,
        ge=0,
        description="processes (0: one per core); each takes a copy of the features, 2 GB at 256 x 256",
        json_schema_extra={"fingerprint": False},
    )
