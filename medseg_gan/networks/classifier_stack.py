"""Several pixel classifiers of one shape computed together: their weights are stacked, their statistics separate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg_gan.networks.interpreter import PixelClassifier


class ClassifierStack:
    """M pixel classifiers as one: a batched matrix product per layer, batch norm over each member's own rows.

    Example:
        stack = ClassifierStack(classifiers)
        logits = stack(rows)                # (M, P, D) to (M, P, K)
        stack.restore(classifiers)          # what was learnt goes back into the modules

    Args:
        classifiers: of equal shape; they are copied.
    """

    def __init__(self, classifiers: Sequence[PixelClassifier]) -> None:
        self.layers = [module.__class__ for module in classifiers[0].rest]
        learnt = [dict(classifier.named_parameters()) for classifier in classifiers]
        kept = [dict(classifier.named_buffers()) for classifier in classifiers]
        self.parameters = {name: torch.stack([one[name].detach() for one in learnt]) for name in learnt[0]}
        self.buffers = {name: torch.stack([one[name] for one in kept]) for name in kept[0]}
        self._learn()

    def __len__(self) -> int:
        """Number of members M."""
        return len(self.parameters["first.bias"])

    def __call__(self, rows: Tensor) -> Tensor:
        """Logits `(M, P, K)` in training: batch norm goes by the batch and keeps its running statistics.

        Args:
            rows: feature vectors `(M, P, D)`, or `(P, D)` where all members see the same ones.
        """
        weight, bias = self.parameters["first.weight"], self.parameters["first.bias"]
        if rows.ndim == 2:
            x = functional.linear(rows, weight.flatten(0, 1), bias.flatten())  # (P, M H): one product for all
            x = x.unflatten(1, (len(self), -1)).transpose(0, 1)
        else:
            x = _products(rows, weight, bias)
        for number, layer in enumerate(self.layers):
            if layer is nn.ReLU:
                x = x.relu()
            elif layer is nn.BatchNorm1d:
                x = self._normalise(x, f"rest.{number}")
            else:
                weight, bias = self.parameters[f"rest.{number}.weight"], self.parameters[f"rest.{number}.bias"]
                x = _products(x, weight, bias)
        return x

    def keep(self, rows: Tensor) -> None:
        """Keep only some members, by position `(M',)`."""
        self.parameters = {name: value.detach()[rows] for name, value in self.parameters.items()}
        self.buffers = {name: value[rows] for name, value in self.buffers.items()}
        self._learn()

    def restore(self, classifiers: Mapping[int, PixelClassifier]) -> None:
        """Give members, by position, back what they learnt."""
        for position, classifier in classifiers.items():
            state = {name: value[position] for name, value in (self.parameters | self.buffers).items()}
            classifier.load_state_dict(state)

    def state_dict(self) -> dict[str, Tensor]:
        """All members' weights and statistics."""
        return {name: value.detach() for name, value in (self.parameters | self.buffers).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state of `state_dict`, which may have other members."""
        device = self.parameters["first.bias"].device
        self.parameters = {name: state[name].to(device) for name in self.parameters}
        self.buffers = {name: state[name].to(device) for name in self.buffers}
        self._learn()

    def _learn(self) -> None:
        for value in self.parameters.values():
            value.requires_grad_(True)

    def _normalise(self, x: Tensor, name: str) -> Tensor:
        """Batch norm with the members side by side as channels: `(M, P, H)` is `(P, M H)` to it."""
        self.buffers[f"{name}.num_batches_tracked"] += 1
        wide = x.transpose(0, 1).flatten(1)
        wide = functional.batch_norm(
            wide,
            self.buffers[f"{name}.running_mean"].view(-1),
            self.buffers[f"{name}.running_var"].view(-1),
            self.parameters[f"{name}.weight"].flatten(),
            self.parameters[f"{name}.bias"].flatten(),
            training=True,
        )
        return wide.unflatten(1, (len(x), -1)).transpose(0, 1)


def _products(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each member's linear layer on its own rows: `(M, P, I)`, `(M, O, I)` and `(M, O)` to `(M, P, O)`."""
    if x.is_cuda:
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return _OneByOne.apply(x.to(dtype), weight, bias)


class _OneByOne(torch.autograd.Function):
    """The products of `_products` one after another, computed in the precision of x.

    A CPU is half as fast again where each product has all its cores to itself, and each gradient goes straight to its
    place: automatic differentiation would round all of them and then stack them, another two passes over the memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        each = zip(x, weight, bias, strict=True)
        with torch.autocast("cpu", enabled=False):
            return torch.stack([torch.addmm(b.to(x.dtype), one, w.to(x.dtype).t()) for one, w, b in each])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_weight = torch.empty_like(weight)
        with torch.autocast("cpu", enabled=False):
            for number, (one, rows, w) in enumerate(zip(grad, x, weight, strict=True)):
                of_weight[number] = one.t() @ rows
                if of_x is not None:
                    of_x[number] = one @ w.to(x.dtype)
        return of_x, of_weight, grad.sum(1, dtype=weight.dtype)
