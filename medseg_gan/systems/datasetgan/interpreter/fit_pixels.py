"""Training of all pixel classifiers together: one gather, one batched product and one Adam for the whole ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.machine.device import autocast
from medseg_gan.machine.memory import keep_freed_memory
from medseg_gan.networks.classifier_stack import ClassifierStack
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.fit_images import FIRST_STOPPING_EPOCH, PATIENCE, check_finite
from medseg_gan.systems.datasetgan.interpreter.pixel_order import PixelOrder
from medseg_gan.systems.datasetgan.samples.features import gather_pixels

SAVE_SECONDS = 300.0
"""How much work an interruption can lose."""

LOOK_EVERY = 32
"""Steps between looks at the loss where nobody may stop yet: on a GPU each look waits for it."""

SHARED = "shared"
"""In place of a member's number in the seed of an order that all share."""


def fit_pixels_together(
    classifiers: Mapping[int, PixelClassifier],
    maps: Sequence[Tensor],
    labels: Tensor,
    *,
    seed: tuple[int | str, ...],
    lr: float,
    max_epochs: int = 100,
    max_steps: int | None = None,
    batch: int = 64,
    early_stop: bool = True,
    class_balanced: bool = False,
    shared_batches: bool = False,
    precision: str = "fp32",
    on_done: Callable[[int], None] = lambda number: None,
    unfinished: Path | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> dict[int, int]:
    """Train classifiers as `fit_pixels` would each alone, up to rounding, in a fraction of the time.

    Each member has its own order of pixels and its own early stop: one that has stopped is left as it is, and the
    others go on in a smaller stack. The classifiers are trained in place.

    Args:
        classifiers: by number; of one shape.
        maps: `(N, C_i, r_i, r_i)` feature maps of the annotated images.
        labels: `(N, R, R)` class ids; pixels of 255 are left out.
        seed: with a member's number, of the order of its pixels.
        lr: learning rate.
        max_epochs: over all labelled pixels.
        max_steps: at most, for a trial; none: as the epochs say.
        batch: pixels a step and member.
        early_stop: see `PATIENCE`.
        class_balanced: see `PixelOrder`.
        shared_batches: all members see the same pixels, gathered once: cheaper, and members that differ less.
        precision: of the classifiers; `bf16` halves the time of a step where a processor multiplies in it.
        on_done: called with the number of each member that has ended, once its classifier holds what it learnt.
        unfinished: file for the state of an interrupted training, from which the same call goes on.
        save_seconds: between its updates.

    Returns:
        Steps that each member has taken.

    Raises:
        MedsegError: the loss is not finite.
    """
    keep_freed_memory()  # the stacked gradients would be mapped anew each step: a third of the time at 256 x 256
    training = _Training(classifiers, lr, precision)
    if unfinished is not None and unfinished.exists():
        training.resume(unfinished)
    order, truth, resolution = PixelOrder(labels, class_balanced), labels.flatten().long(), labels.shape[-1]
    steps: dict[int, int] = {}
    saved = time.monotonic()

    def end(positions: Sequence[int]) -> None:
        for number in training.end(positions):
            steps[number] = training.step
            on_done(number)

    while training.epoch < max_epochs:
        members = [SHARED] if shared_batches else training.numbers
        orders = dict(zip(members, (order.epoch((*seed, member), training.epoch) for member in members), strict=True))
        for start in range(training.start, len(order) - 1, batch):  # batch norm has no variance of one last pixel
            now = [SHARED] if shared_batches else training.numbers
            chosen = torch.stack([orders[member][start : start + batch] for member in now]).long()
            pixels = order.labelled[chosen.to(labels.device)]  # (M or 1, B)
            rows = gather_pixels(maps, pixels.flatten(), resolution)
            training.learn(rows if shared_batches else rows.unflatten(0, pixels.shape), truth[pixels])
            training.start = start + batch
            last = training.step == max_steps
            stopping = early_stop and training.epoch >= FIRST_STOPPING_EPOCH
            if stopping or last or len(training.losses) == LOOK_EVERY:
                values = training.look()
                if stopping:
                    end(training.count_failures(values))
            if last:
                end(range(len(training.numbers)))
            if not training.numbers:
                return steps
            if unfinished is not None and time.monotonic() - saved >= save_seconds:
                training.save(unfinished)
                saved = time.monotonic()
        training.epoch, training.start = training.epoch + 1, 0
    training.look()
    end(range(len(training.numbers)))
    return steps


class _Training:
    """The members that still learn, their optimiser and where they stand."""

    def __init__(self, classifiers: Mapping[int, PixelClassifier], lr: float, precision: str) -> None:
        self.classifiers, self.lr, self.precision = classifiers, lr, precision
        self.numbers = sorted(classifiers)
        self.epoch = self.start = self.step = 0  # `start` counts the pixels of the epoch that were seen
        self.best, self.failures = [float("inf")] * len(self.numbers), [0] * len(self.numbers)
        self.losses: list[Tensor] = []  # of the steps since the last look
        self.stack = ClassifierStack([classifiers[number] for number in self.numbers])
        self.optimizer = self._adam()

    def learn(self, rows: Tensor, target: Tensor) -> None:
        """One step of all members on rows `(M, B, D)` or `(B, D)`, classes `(M, B)` or `(1, B)`."""
        with autocast(rows.device.type, self.precision):
            logits = self.stack(rows).float()  # (M, B, K)
        target = target.expand(len(self.numbers), -1)
        losses = functional.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)  # (M,)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # each member's gradient is that of its own loss: they share no weight
        self.optimizer.step()
        self.losses.append(losses.detach())
        self.step += 1

    def look(self) -> list[float]:
        """Losses of the latest step, all since the last look being finite.

        Raises:
            MedsegError: one is not.
        """
        values = torch.stack(self.losses).tolist() if self.losses else [[]]
        for step, row in enumerate(values, start=self.step - len(values)):
            for value in row:
                check_finite(value, step)
        self.losses.clear()
        return values[-1]

    def count_failures(self, values: Sequence[float]) -> list[int]:
        """Positions of the members whose early stop has come."""
        for k, value in enumerate(values):
            better = value < self.best[k]
            self.best[k], self.failures[k] = (value, 0) if better else (self.best[k], self.failures[k] + 1)
        return [k for k, count in enumerate(self.failures) if count > PATIENCE]

    def end(self, positions: Sequence[int]) -> list[int]:
        """Let members go with what they have learnt; returns their numbers."""
        if not positions:
            return []
        self.stack.restore({k: self.classifiers[self.numbers[k]] for k in positions})
        gone = [self.numbers[k] for k in positions]
        self._keep([k for k in range(len(self.numbers)) if k not in positions])
        return gone

    def save(self, path: Path) -> None:
        """Keep the state, from which `resume` goes on."""
        plain = {name: getattr(self, name) for name in ("numbers", "epoch", "start", "step", "best", "failures")}
        save_checkpoint(path, **plain, stack=self.stack, optimizer=self.optimizer)

    def resume(self, path: Path) -> None:
        """Go on from a kept state, with those of its members that have not ended since; others begin anew."""
        kept = load_checkpoint(path)
        if not set(self.numbers) <= set(kept["numbers"]):
            return
        wanted = [kept["numbers"].index(number) for number in self.numbers]
        self.stack.load_state_dict(kept["stack"])
        self.optimizer = self._adam()
        self.optimizer.load_state_dict(kept["optimizer"])
        for name in ("numbers", "epoch", "start", "step", "best", "failures"):
            setattr(self, name, kept[name])
        self._keep(wanted)

    def _adam(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.stack.parameters.values(), lr=self.lr, fused=True)

    def _keep(self, positions: list[int]) -> None:
        """Go on with some members; their moments go with them."""
        if len(positions) == len(self.numbers):
            return
        moments = [self.optimizer.state[value] for value in self.stack.parameters.values()]
        self.stack.keep(torch.tensor(positions, dtype=torch.int64))
        self.optimizer = self._adam()
        for value, moment in zip(self.stack.parameters.values(), moments, strict=True):
            self.optimizer.state[value] = {
                name: item if name == "step" else item[positions] for name, item in moment.items()
            }
        self.numbers = [self.numbers[k] for k in positions]
        self.best, self.failures = [self.best[k] for k in positions], [self.failures[k] for k in positions]
        self.losses.clear()
