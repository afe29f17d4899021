"""DatasetGAN on StyleGAN2-ADA: its stages in running order, each with where it is written and what it reads."""

from __future__ import annotations

from medseg_gan.running.stages import Reads, Stage
from medseg_gan.systems.datasetgan.interpreter.settings import TrainInterpreter
from medseg_gan.systems.datasetgan.recipe import (
    Annotate,
    DatasetGanRecipe,
    FewSlices,
    Prepare,
    TrainSegmenters,
)
from medseg_gan.systems.datasetgan.rows import ROWS

_STAGES = "medseg_gan.systems.datasetgan.stages"
_COMPARISON = "medseg_gan.systems.datasetgan.comparison"


def _annotators(recipe: DatasetGanRecipe) -> str:
    """Who will paint, as far as it is known before the data is."""
    kind = recipe.annotate.annotator
    if kind == "auto" and recipe.prepare.labels != "lungs":
        return "a stand-in on the phantom, by you on your own data (the run waits then, exit code 3)"
    return {"person": "you (the run waits, exit code 3)", "segmenter": "the stand-in"}.get(kind, "the HU rule")


def _labellers(config: TrainInterpreter, images: int) -> str:
    """Expected work of `train_interpreter`."""
    networks = {
        "features": f"{config.members} classifiers",
        "image": f"{config.image_members} U-Nets",
        "average": f"{config.members} classifiers and {config.image_members} U-Nets",
        "joint": f"{config.image_members} networks on image and features",
        "auto": f"the best of {len(config.candidates)} labellers in {config.folds} folds, then its networks",
    }
    return f"{networks[config.labeller]} on {images} annotated slices"


def _trainings(config: TrainSegmenters) -> str:
    """Expected work of `train_segmenters`."""
    count = len(config.networks) * sum(
        config.deciding_seeds if ROWS[row].repeated else config.other_seeds for row in config.rows
    )
    return f"{count} trainings of {config.segmenter.steps} steps on {len(config.rows)} training sets"


def _annotate_reads(recipe: DatasetGanRecipe) -> Reads:
    """Inverted slices are those of the few patients whose labels the training sets pay for."""
    return (Prepare, FewSlices) if recipe.annotate.annotator == "inversion" else (Prepare,)


STAGES = (
    Stage(
        "prepare",
        f"{_STAGES}:prepare",
        expected=lambda r: f"slices of {r.prepare.size} x {r.prepare.size} pixels",
        free=("phantom",),
    ),
    Stage(
        "train_gan",
        f"{_STAGES}:train_gan",
        expected=lambda r: (
            "the generator of init_from, nothing is trained"
            if not r.train_gan.total_kimg
            else f"{r.train_gan.total_kimg:g} thousand images, "
            f"{round(r.train_gan.total_kimg * 1000 / r.train_gan.batch_size)} steps of {r.train_gan.batch_size}"
        ),
        check=f"{_STAGES}:check_init_from",
        together=True,
    ),
    Stage(
        "annotate",
        f"{_STAGES}:annotate",
        reads=_annotate_reads,
        check=f"{_STAGES}:check_annotator",
        expected=lambda r: (
            f"{r.annotate.num_images} real labelled slices projected into W+"
            if r.annotate.annotator == "inversion"
            else f"{r.annotate.num_images} generated slices with masks by {_annotators(r)}"
        ),
        notice="medseg_gan.systems.datasetgan.annotation.repainting:repainted",
        free=("person",),
    ),
    Stage(
        "train_interpreter",
        f"{_STAGES}:train_interpreter",
        reads=(Prepare, Annotate),
        expected=lambda r: _labellers(r.train_interpreter, r.annotate.num_images),
    ),
    Stage(
        "synthesize",
        f"{_STAGES}:synthesize",
        reads=(Prepare, Annotate, TrainInterpreter),
        expected=lambda r: f"{r.synthesize.num_pairs} pairs to train on, {r.synthesize.num_test_g} for test-G",
    ),
    Stage("train_segmenters", f"{_COMPARISON}:train_segmenters", expected=lambda r: _trainings(r.train_segmenters)),
    Stage(
        "evaluate",
        f"{_COMPARISON}:evaluate",
        reads=(Prepare, TrainSegmenters),
        expected=lambda r: "test-R and test-G, floors, intervals over patients",
    ),
    Stage(
        "report",
        "medseg_gan.systems.datasetgan.summary:report",
        folder="report",
        reads=(TrainSegmenters,),
        expected=lambda r: "one page",
    ),
)
