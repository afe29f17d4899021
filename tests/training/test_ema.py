"""The averaged generator."""

import pytest
import torch
from torch import nn

from medseg_gan.training.ema import ema_beta, update_ema


def network(value: float) -> nn.Module:
    net = nn.BatchNorm1d(3)
    nn.init.constant_(net.weight, value)
    nn.init.constant_(net.bias, value)
    net.running_mean.fill_(value)
    return net


@pytest.mark.parametrize("batch_size", [1, 8, 50])
def test_half_life_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    average, current = network(1.0), network(0.0)
    for seen in range(0, 400, batch_size):
        update_ema(average, current, batch_size, seen, ema_kimg=0.4)
    torch.testing.assert_close(average.weight.detach(), torch.full((3,), 0.5))


def test_buffers_are_copied() -> None:
    average, current = network(1.0), network(0.0)
    update_ema(average, current, 8, 1000, ema_kimg=10)
    assert (average.running_mean == 0).all()
    assert (average.weight > 0.99).all()


def test_rampup_starts_with_a_copy_and_ends_at_the_half_life() -> None:
    assert ema_beta(8, 0, ema_kimg=5, rampup=0.05) == 0
    assert ema_beta(8, 10_000, ema_kimg=5, rampup=0.05) == pytest.approx(0.5 ** (8 / 500))
    assert ema_beta(8, 10**6, ema_kimg=5, rampup=0.05) == ema_beta(8, 0, ema_kimg=5, rampup=None)
