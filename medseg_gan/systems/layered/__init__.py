"""The improved layered GAN: its stages in running order, each with where it is written and what it reads."""

from __future__ import annotations

from medseg_gan.running.stages import Stage
from medseg_gan.systems.layered.recipe import TrainGan

_STAGES = "medseg_gan.systems.layered.stages"


def _count(config: TrainGan) -> int:
    return len(config.runs())


def _trainings(config: TrainGan) -> str:
    """Expected work of `train_gan`."""
    return (
        f"{_count(config)} trainings ({', '.join(config.arms)}; {config.seeds} seeds each) of about "
        f"{config.objective.rounds} x ({config.gan_steps} + {config.segmenter_steps}) steps"
    )


STAGES = (
    Stage(
        "prepare",
        f"{_STAGES}:prepare",
        check=f"{_STAGES}:check_mask_weights",
        expected=lambda r: f"pictures of {r.prepare.size} x {r.prepare.size}",
        free=("phantom", "pseudo_masks"),
    ),
    Stage("train_gan", f"{_STAGES}:train_gan", expected=lambda r: _trainings(r.train_gan)),
    Stage(
        "synthesize",
        f"{_STAGES}:synthesize",
        reads=(TrainGan,),
        expected=lambda r: f"{r.synthesize.num_pairs} pairs of each of {_count(r.train_gan)} generators",
    ),
    Stage(
        "train_segmenters",
        f"{_STAGES}:train_segmenters",
        reads=(TrainGan,),
        expected=lambda r: (
            f"{_count(r.train_gan) + r.train_segmenters.supervised} trainings of {r.train_segmenters.steps} steps"
        ),
    ),
    Stage(
        "evaluate",
        "medseg_gan.systems.layered.evaluation:evaluate",
        reads=(TrainGan,),
        check="medseg_gan.systems.layered.evaluation:check_fid_weights",
        expected=lambda r: "real test pictures, floors, ceiling, distances",
    ),
    Stage(
        "report",
        "medseg_gan.systems.layered.summary:report",
        folder="report",
        reads=(TrainGan,),
        expected=lambda r: "one page",
    ),
)
