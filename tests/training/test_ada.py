"""The controller of the augmentation strength."""

import pytest
import torch
from torch import nn

from medseg_gan.training.ada import AdaController


class Pipe(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("p", torch.zeros([]))


def run(controller: AdaController, logit: float, steps: int) -> None:
    for iteration in range(1, steps + 1):
        controller.report(torch.full((16, 1), logit))
        controller.update(iteration, 16)


def test_p_moves_by_the_published_step_every_fourth_iteration() -> None:
    pipe = Pipe()
    controller = AdaController(pipe, "ada", target=0.6, kimg=500)
    run(controller, 1.0, 3)
    assert pipe.p == 0
    run(controller, 1.0, 4)
    assert pipe.p.item() == pytest.approx(16 * 4 / 500_000)
    assert controller.r_t == 1


def test_p_stays_within_its_bounds() -> None:
    pipe = Pipe()
    controller = AdaController(pipe, "ada", kimg=0.5, p_max=0.8)
    run(controller, 1.0, 80)
    assert pipe.p.item() == pytest.approx(0.8)
    run(controller, -1.0, 80)
    assert pipe.p == 0


def test_r_t_counts_every_report_since_the_last_update() -> None:
    controller = AdaController(None, "off")
    controller.report(torch.tensor([[2.0], [3.0], [-0.1]]))
    controller.report(torch.tensor([[5.0]]))
    controller.update(4, 4)
    assert controller.r_t.item() == pytest.approx(0.5)
    assert controller.count == 0


def test_fixed_p_does_not_move() -> None:
    pipe = Pipe()
    run(AdaController(pipe, "fixed", fixed_p=0.2), 1.0, 8)
    assert pipe.p.item() == pytest.approx(0.2)


def test_restored_controller_goes_on_alike() -> None:
    one, other = AdaController(Pipe(), "ada", kimg=1), AdaController(Pipe(), "ada", kimg=1)
    run(one, 1.0, 6)
    other.load_state_dict(one.state_dict())
    for controller in (one, other):
        controller.report(torch.full((16, 1), -1.0))
        controller.update(8, 16)
    assert one.p == other.p
    assert one.r_t == other.r_t
