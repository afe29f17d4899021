"""Settings of the toy system."""

from medseg_gan.running.recipe import Section, SystemRecipe
from medseg_gan.training.arms import Arms


class Prepare(Section):
    size: int = 16


class Objective(Section):
    gamma: float = 0.1  # weight of the masks' binarisation


class TrainGan(Arms):
    objective: Objective = Objective()
    kimg: float = 0.08
    batch_size: int = 8
    lr: float = 1e-2
    restarts: int = 1
    least_area: float = 0.0  # mean mask area below which a solution is trivial


class Amount(Section):
    count: int = 8


class ToyRecipe(SystemRecipe):
    prepare: Prepare = Prepare()
    train_gan: TrainGan = TrainGan()
    synthesize: Amount = Amount()
    train_segmenters: Amount = Amount()
    report: Section = Section()
