"""A third system in one folder: a linear layered GAN. All around its networks and its step is shared."""

from medseg_gan.running.stages import Stage
from toy_gan.recipe import TrainGan

STAGES = (
    Stage("prepare", "toy_gan.stages:prepare", free=("phantom",)),
    Stage("train_gan", "toy_gan.stages:train_gan"),
    Stage("synthesize", "toy_gan.stages:synthesize", reads=(TrainGan,)),
    Stage("train_segmenters", "toy_gan.stages:train_segmenters", reads=(TrainGan,)),
    Stage("report", "toy_gan.stages:report", folder="report", reads=(TrainGan,)),
)
