"""Stacked classifiers compute, and count their statistics, as each would alone."""

import copy

import pytest
import torch

from medseg_gan.networks.classifier_stack import ClassifierStack
from medseg_gan.networks.interpreter import PixelClassifier


def members(order="linear-bn-relu", count=3):
    torch.manual_seed(0)
    return [PixelClassifier(10, (6, 4), 3, order) for _ in range(count)]


@pytest.mark.parametrize("order", ["linear-bn-relu", "linear-relu-bn"])
@pytest.mark.parametrize("shared", [False, True])
def test_logits_and_statistics_are_those_of_each_member_alone(order, shared):
    alone = members(order)
    stack, back = ClassifierStack(alone), copy.deepcopy(alone)
    for seed in range(3):
        torch.manual_seed(seed)
        rows = torch.randn(7, 10) if shared else torch.randn(3, 7, 10)
        expected = torch.stack([member(rows if shared else rows[k]) for k, member in enumerate(alone)])
        assert torch.allclose(stack(rows), expected, atol=1e-5)
    stack.restore(dict(enumerate(back)))
    for mine, other in zip(back, alone, strict=True):
        for name, value in other.state_dict().items():
            assert torch.allclose(mine.state_dict()[name], value, atol=1e-5), name


def test_a_member_gets_the_gradient_of_its_own_loss():
    alone, rows = members(), torch.randn(3, 7, 10)
    stack = ClassifierStack(alone)
    stack(rows).square().mean((1, 2)).sum().backward()
    for k, member in enumerate(alone):
        member(rows[k]).square().mean().backward()
        for name, value in member.named_parameters():
            assert torch.allclose(stack.parameters[name].grad[k], value.grad, atol=1e-5), name


def test_members_can_be_kept_and_states_taken_up():
    stack = ClassifierStack(members())
    rows = torch.randn(3, 7, 10)
    expected = stack(rows)
    other = ClassifierStack(members(count=1))
    other.load_state_dict(stack.state_dict())
    other.keep(torch.tensor([2, 0]))
    assert len(other) == 2
    assert torch.allclose(other(rows[[2, 0]]), expected[[2, 0]], atol=1e-5)
