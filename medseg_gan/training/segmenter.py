"""The supervised trainer of every segmenter: MONAI's `SupervisedTrainer`, a fixed number of steps, exact resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import Tensor, nn

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.evaluator import Forward
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.losses.segmentation import class_weights, cross_entropy, soft_cross_entropy, weighted_ce_dice
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.checkpoint import load_checkpoint, restore, save_checkpoint
from medseg_gan.machine.seeding import seed_step
from medseg_gan.networks.segmenters import build_segmenter, predict_probs
from medseg_gan.training.augment import augment as augment_batch
from medseg_gan.training.augment import vary_colour
from medseg_gan.training.labelled import Slices, TrainingBatches, TrainingSource, class_frequencies
from medseg_gan.training.log import Progress
from medseg_gan.training.pool import run_jobs

FINISHED = "training.json"
UNFINISHED = "unfinished.pt"
CURVE_POINTS = 40

Optimizer = Literal["adam", "adam_step", "onecycle"]
Loss = Literal["ce", "weighted_ce_dice", "soft_ce"]
Augmentation = Literal["none", "slice", "colour"]


def train_segmenter(
    folder: Path,
    network: Mapping[str, Any],
    sources: Sequence[TrainingSource],
    *,
    seed: int,
    steps: int = 400,
    batch_size: int = 8,
    lr: float = 0.003,
    optimizer: Optimizer = "onecycle",
    loss: Loss = "weighted_ce_dice",
    augment: Augmentation = "slice",
    val: Slices | None = None,
    checkpoints: int = 4,
    backbone_weights: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    description: str = "",
) -> Path:
    """Train one segmenter for exactly `steps` steps; a finished folder is left as it is, an unfinished one resumed.

    Leaves `weights-<step>.pt` for each checkpoint and, last, `training.json` with the curve, the checkpoints' scores
    and the one picked on `val` (without `val`: the last).

    Args:
        folder: of this training alone.
        network: arguments of `build_segmenter`; kept in every file of weights.
        sources: training slices and their shares of a batch.
        seed: of initial weights, order, augmentation and dropout.
        steps: optimiser steps.
        batch_size: slices a step.
        lr: learning rate, its peak for `onecycle`.
        optimizer: `adam` at a constant rate (DatasetGAN), `adam_step`, lowered to a fifth after two thirds (layered
            GAN), or `onecycle`, AdamW with a one-cycle schedule.
        loss: `ce`, `weighted_ce_dice` with weights 1/sqrt(frequency), or `soft_ce` against foreground probabilities.
        augment: `slice`, random affine and intensity changes; `colour`, colours of pictures alone; or `none`.
        val: labelled slices of held-out patients, on which the checkpoint is picked.
        checkpoints: number of evenly spaced checkpoints.
        backbone_weights: local file of ImageNet weights for a ResNet backbone.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        description: name on the progress bar; without one there is none.

    Returns:
        File of the picked weights.

    Raises:
        MedsegError: unusable sources, other settings than an unfinished training's, or a loss that is not finite.
    """
    folder = Path(folder)
    if (folder / FINISHED).is_file():
        return picked_weights(folder)
    settings = {"network": dict(network), "seed": seed, "steps": steps, "batch_size": batch_size, "lr": lr}
    settings |= {"optimizer": optimizer, "loss": loss, "augment": augment, "checkpoints": checkpoints}
    settings |= {"precision": precision, "slices": [len(source.slices) for source in sources]}
    if any(source.last_share is not None for source in sources):
        settings["last_shares"] = [source.final_share for source in sources]
    loss_function = _loss(loss, sources, network["num_classes"], device)
    seed_step(seed, "initial weights")
    state = load_checkpoint(backbone_weights) if backbone_weights else None
    model = build_segmenter(**network, backbone_state=state)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, scheduler = _optimiser(model, optimizer, lr, steps)
    objects = {"network": model, "optimizer": optimiser, "scheduler": scheduler}
    done = _resume(folder / UNFINISHED, objects, settings)
    record = _Record(folder, done)
    trainer = SupervisedTrainer(
        device=torch.device(device),
        max_epochs=1,
        epoch_length=steps,
        train_data_loader=TrainingBatches(sources, batch_size, seed, start=done, steps=steps),
        network=model,
        optimizer=optimiser,
        loss_function=loss_function,
        prepare_batch=partial(_prepare_batch, augment=augment),
        inferer=Forward(device, precision),
        train_handlers=[LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)],
        decollate=False,
        optim_set_to_none=True,
    )

    def save(engine: Engine) -> None:
        step = engine.state.iteration
        record.log(step)  # a loss that is not finite must stop the training before it reaches a checkpoint
        miou = _validate(model, val, device, precision) if val is not None else None
        save_checkpoint(_weights_file(folder, step), network=dict(network), step=step, state=model.state_dict())
        record.save(step, miou)
        save_checkpoint(folder / UNFINISHED, **objects, step=step, settings=settings)

    saved_at = set(checkpoint_steps(steps, checkpoints))
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: seed_step(seed, "step", e.state.iteration))
    record.attach(trainer, every=max(1, steps // CURVE_POINTS))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(event_filter=lambda _, k: k in saved_at), save)
    if done < steps:
        _run(trainer, done, steps, description)
    record.finish(settings)
    (folder / UNFINISHED).unlink(missing_ok=True)  # the optimiser's state is of no further use
    return picked_weights(folder)


def train_many(jobs: Mapping[str, Mapping[str, Any]], workers: int, description: str = "train_segmenters") -> None:
    """Train several segmenters, `workers` at a time in processes of one thread each; 1 trains them here.

    Args:
        jobs: arguments of `train_segmenter` by a name for the progress bar and for errors.
        workers: processes; two of one thread beat one of two.
        description: on the progress bar.

    Raises:
        MedsegError: a training failed; says which, and ends the others, which resume next time.
    """
    left = {name: dict(job) for name, job in jobs.items() if not (Path(job["folder"]) / FINISHED).is_file()}
    if workers == 1:  # elsewhere bars of several processes would run into each other
        left = {name: {"description": name, **job} for name, job in left.items()}
    run_jobs(train_segmenter, left, workers, description, total=len(jobs))


def checkpoint_steps(steps: int, checkpoints: int) -> list[int]:
    """Evenly spaced steps at which weights are kept, the last step among them."""
    return sorted({round(steps * (k + 1) / checkpoints) for k in range(checkpoints)} - {0})


def read_training(folder: Path) -> dict[str, Any]:
    """The record of a finished training.

    Raises:
        MedsegError: it has not finished.
    """
    if not (Path(folder) / FINISHED).is_file():
        raise MedsegError(f"{folder} holds no finished training; run train_segmenters")
    return read_json(Path(folder) / FINISHED)


def picked_weights(folder: Path) -> Path:
    """File of the weights picked on the held-out patients."""
    return _weights_file(Path(folder), read_training(folder)["picked"])


def load_segmenter(path: Path, device: str = "cpu") -> nn.Module:
    """Rebuild a segmenter from a file of weights, or from its training's folder (the picked weights).

    Returns:
        The network on `device`, in evaluation mode.
    """
    path = picked_weights(path) if Path(path).is_dir() else Path(path)
    content = load_checkpoint(path)
    if "network" not in content or "state" not in content:
        raise MedsegError(f"{path} is no segmenter of ours; it holds {', '.join(sorted(content))}")
    network = build_segmenter(**content["network"])
    network.load_state_dict(content["state"])
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def checkpoint_files(folder: Path) -> tuple[list[Path], int]:
    """Files of weights of every checkpoint of a finished training in order, and the position of the picked one."""
    training = read_training(folder)
    steps = [checkpoint["step"] for checkpoint in training["checkpoints"]]
    return [_weights_file(Path(folder), step) for step in steps], steps.index(training["picked"])


class _Record:
    """The loss curve and the checkpoints' scores; rows past the step resumed from are dropped."""

    def __init__(self, folder: Path, done: int) -> None:
        self.folder, self.path = folder, folder / "history.json"
        before: dict[str, Any] = read_json(self.path) if done else {}
        self.curve = [row for row in before.get("curve", []) if row["step"] <= done]
        self.checkpoints = [row for row in before.get("checkpoints", []) if row["step"] <= done]
        self.started = time.monotonic() - before.get("seconds", 0.0)
        self.pending: list[Tensor] = []

    def attach(self, trainer: Engine, every: int) -> None:
        """Collect the loss of each step, and write a point of the curve every so many."""
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: self.pending.append(engine.state.output["loss"].detach())
        )
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED(every=every), lambda engine: self.log(engine.state.iteration)
        )

    def log(self, step: int) -> None:
        if not self.pending:
            return
        loss = float(torch.stack(self.pending).mean())
        if not np.isfinite(loss):
            raise MedsegError(
                f"{self.folder}: the loss is {loss} within {len(self.pending)} steps of step {step}; "
                "try a lower lr or precision fp32"
            )
        self.curve.append({"step": step, "loss": loss})
        self.pending = []

    def history(self) -> dict[str, Any]:
        return {"curve": self.curve, "checkpoints": self.checkpoints, "seconds": time.monotonic() - self.started}

    def save(self, step: int, miou: float | None) -> None:
        self.checkpoints.append({"step": step, "val_miou": miou})
        write_json(self.path, self.history())

    def finish(self, settings: Mapping[str, Any]) -> None:
        picked = max(self.checkpoints, key=lambda row: (row["val_miou"] or 0.0, row["step"]))["step"]
        write_json(self.folder / FINISHED, {**settings, "picked": picked, **self.history()})
        self.path.unlink(missing_ok=True)


def _run(trainer: Engine, done: int, steps: int, description: str) -> None:
    """Run from step `done` on, with a progress bar where there is a name for it."""
    trainer.logger = logging.getLogger("medseg_gan.segmenter")
    trainer.logger.setLevel(logging.CRITICAL)  # Ignite would print an error a second time
    trainer.load_state_dict({"iteration": done, "epoch_length": steps, "max_epochs": 1})
    with ExitStack() as stack:
        if description:
            bar = stack.enter_context(Progress(steps, description, "step", initial=done))
            trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: bar.update())
        trainer.run()


def _resume(path: Path, objects: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """Restore an unfinished training; returns the steps done, 0 when there is none."""
    if not path.is_file():
        return 0
    rest = restore(path, **objects)
    before = rest["settings"]
    changed = [f"{key}: {before.get(key)} -> {value}" for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise MedsegError(f"{path} was made with other settings ({', '.join(changed)}); train in another folder")
    return int(rest["step"])


def _loss(name: Loss, sources: Sequence[TrainingSource], num_classes: int, device: str) -> Callable[..., Tensor]:
    """`(logits, label) -> scalar`; hard labels are looked through first, a wrong one is told before any work."""
    if name == "soft_ce":
        return lambda logits, mask: soft_cross_entropy(logits, torch.stack([1 - mask, mask], dim=1))
    weights = class_weights(class_frequencies(sources, num_classes)).to(device)
    return cross_entropy if name == "ce" else partial(weighted_ce_dice, weights=weights)


def _optimiser(
    model: nn.Module, name: Optimizer, lr: float, steps: int
) -> tuple[torch.optim.Optimizer, Any]:  # MONAI's handler wants a class torch has renamed
    if name in ("adam", "adam_step"):
        adam = torch.optim.Adam(model.parameters(), lr, fused=True)
        lowered = [max(1, 2 * steps // 3)] if name == "adam_step" else []
        return adam, torch.optim.lr_scheduler.MultiStepLR(adam, lowered, gamma=0.2)
    adamw = torch.optim.AdamW(model.parameters(), lr, fused=True)
    return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, lr, total_steps=steps + 1)


def _prepare_batch(
    batch: Mapping[str, Tensor], device: torch.device, non_blocking: bool = False, *, augment: Augmentation, **_: Any
) -> tuple[Tensor, Tensor]:
    image, label = (batch[key].to(device, non_blocking=non_blocking) for key in ("image", "label"))
    if augment == "slice":
        image, label = augment_batch(image, label)
    elif augment == "colour":
        image = vary_colour(image)
    return image.contiguous(memory_format=torch.channels_last), label


def _validate(model: nn.Module, val: Slices, device: str, precision: str) -> float:
    everything = range(len(val))
    probs = predict_probs(model, val.image(everything), device=device, precision=precision)
    pred, label = probs.argmax(dim=1).numpy(), val.label(everything).numpy()
    return scores(confusion(pred, label, probs.shape[1]).sum(axis=0))["miou"]


def _weights_file(folder: Path, step: int) -> Path:
    return folder / f"weights-{step:07d}.pt"
