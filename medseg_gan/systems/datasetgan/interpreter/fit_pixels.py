"""Training of all pixel classifiers together: one gather, one batched product and one Adam for the whole ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from medseg_gan.labels import UNLABELLED
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.machine.device import autocast
from medseg_gan.machine.memory import keep_freed_memory
from medseg_gan.machine.seeding import torch_generator
from medseg_gan.networks.classifier_stack import ClassifierStack
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.fit_images import check_finite
from medseg_gan.systems.datasetgan.samples.features import gather_pixels

FIRST_STOPPING_EPOCH = 4
PATIENCE = 50
"""The published early stop: from the fifth epoch on, a classifier ends once more than this many batches running fail
to improve on its best loss so far."""

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
    """Train classifiers on single pixels of all images, each once an epoch (DatasetGAN; Adam, cross-entropy).

    Returns the steps of each. A member learns, up to rounding, what it would alone, in a fraction of the time: it has
    its own order of pixels and its own early stop. The classifiers are trained in place.

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
        precision: of the classifiers.
        on_done: called with the number of each member that has ended, once its classifier holds what it learnt.
        unfinished: file for the state of an interrupted training, from which the same call goes on.
        save_seconds: between its updates.

    Raises:
        MedsegError: the loss is not finite.
    """
    keep_freed_memory()  # the stacked gradients would be mapped anew each step: a third of the time at 256 x 256
    training = _Training(classifiers, lr, precision, on_done)
    training.resume(unfinished)
    order, truth, resolution = PixelOrder(labels, class_balanced), labels.flatten().long(), labels.shape[-1]
    saved = time.monotonic()
    for chosen in training.batches(order, seed, batch, max_epochs, shared_batches):
        pixels = order.labelled[chosen.to(labels.device)]  # (M or 1, B)
        rows = gather_pixels(maps, pixels.flatten(), resolution)
        training.learn(rows if shared_batches else rows.unflatten(0, pixels.shape), truth[pixels])
        training.stop(early_stop, max_steps)
        if unfinished is not None and training.numbers and time.monotonic() - saved >= save_seconds:
            training.save(unfinished)
            saved = time.monotonic()
    training.look()
    training.end(range(len(training.numbers)))
    return training.steps


class PixelOrder:
    """Labelled pixels in a random order of each member and epoch, drawn again the same whenever it is asked for.

    Args:
        labels: `(N, R, R)` class ids; pixels of 255 are left out.
        class_balanced: every class that occurs is drawn equally often, its pixels with replacement; otherwise each
            pixel comes once an epoch, as in the papers.
    """

    def __init__(self, labels: Tensor, class_balanced: bool = False) -> None:
        truth = labels.flatten()
        self.labelled = (truth != UNLABELLED).nonzero().squeeze(1)
        self.classes: list[Tensor] = []  # positions within `labelled`, by class
        if class_balanced:
            found = truth[self.labelled].cpu()
            self.classes = [(found == index).nonzero().squeeze(1) for index in found.unique().tolist()]

    def __len__(self) -> int:
        """Pixels of an epoch."""
        return len(self.labelled)

    def epoch(self, seed: tuple[int | str, ...], number: int) -> Tensor:
        """Positions within `labelled`, `(P,)` int32 on the CPU.

        Args:
            seed: of the member.
            number: of the epoch, from 0.
        """
        generator = torch_generator(*seed, "epoch", number)
        if not self.classes:
            return torch.randperm(len(self), generator=generator).int()
        drawn = torch.randint(len(self.classes), (len(self),), generator=generator)
        place = torch.rand(len(self), generator=generator, dtype=torch.float64)
        order = torch.empty(len(self), dtype=torch.int32)
        for index, positions in enumerate(self.classes):
            mine = drawn == index
            order[mine] = positions[(place[mine] * len(positions)).long()].int()
        return order


class _Training:
    """The members that still learn, their optimiser and where they stand."""

    def __init__(
        self, classifiers: Mapping[int, PixelClassifier], lr: float, precision: str, on_done: Callable[[int], None]
    ) -> None:
        self.classifiers, self.lr, self.precision, self.on_done = classifiers, lr, precision, on_done
        self.steps: dict[int, int] = {}  # taken by each member that has ended
        self.numbers = sorted(classifiers)
        self.epoch = self.start = self.step = 0  # `start` counts the pixels of the epoch that were seen
        self.best, self.failures = [float("inf")] * len(self.numbers), [0] * len(self.numbers)
        self.losses: list[Tensor] = []  # of the steps since the last look
        self.stack = ClassifierStack([classifiers[number] for number in self.numbers])
        self.optimizer = self._adam()

    def batches(
        self, order: PixelOrder, seed: tuple[int | str, ...], batch: int, max_epochs: int, shared: bool
    ) -> Iterator[Tensor]:
        """Positions `(M, B)` or `(1, B)` within the labelled pixels for each step, from where the training stands."""
        while self.epoch < max_epochs:
            members = [SHARED] if shared else self.numbers
            orders = dict(zip(members, (order.epoch((*seed, member), self.epoch) for member in members), strict=True))
            for start in range(self.start, len(order) - 1, batch):  # batch norm has no variance of one last pixel
                self.start = start + batch
                now = [SHARED] if shared else self.numbers  # fewer, once some have stopped
                yield torch.stack([orders[member][start : start + batch] for member in now]).long()
                if not self.numbers:
                    return
            self.epoch, self.start = self.epoch + 1, 0

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

    def stop(self, early_stop: bool, max_steps: int | None) -> None:
        """Let the members go that end with this step."""
        early, last = early_stop and self.epoch >= FIRST_STOPPING_EPOCH, self.step == max_steps
        if early or last or len(self.losses) == LOOK_EVERY:
            values = self.look()
            if early:
                self.end(self.count_failures(values))
            if last:
                self.end(range(len(self.numbers)))

    def count_failures(self, values: Sequence[float]) -> list[int]:
        """Positions of the members whose early stop has come."""
        for k, value in enumerate(values):
            better = value < self.best[k]
            self.best[k], self.failures[k] = (value, 0) if better else (self.best[k], self.failures[k] + 1)
        return [k for k, count in enumerate(self.failures) if count > PATIENCE]

    def end(self, positions: Sequence[int]) -> None:
        """Let members go with what they have learnt."""
        if not positions:
            return
        self.stack.restore({k: self.classifiers[self.numbers[k]] for k in positions})
        gone = [self.numbers[k] for k in positions]
        self._keep([k for k in range(len(self.numbers)) if k not in positions])
        for number in gone:
            self.steps[number] = self.step
            self.on_done(number)

    def save(self, path: Path) -> None:
        """Keep the state, from which `resume` goes on."""
        plain = {name: getattr(self, name) for name in ("numbers", "epoch", "start", "step", "best", "failures")}
        save_checkpoint(path, **plain, stack=self.stack, optimizer=self.optimizer)

    def resume(self, path: Path | None) -> None:
        """Go on from a kept state, with those of its members that have not ended since; others begin anew."""
        if path is None or not path.exists():
            return
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
