"""The supervised trainer of every segmenter: MONAI's `SupervisedTrainer`, a fixed number of steps, exact resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import Tensor, nn

from medseg_gan.atomic import read_json, write_json
from medseg_gan.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.segmentation import Forward, confusion, scores
from medseg_gan.losses.segmentation import class_weights, cross_entropy, weighted_ce_dice
from medseg_gan.networks.segmenters import build_segmenter, predict_labels, predict_probs
from medseg_gan.seeding import seed_step
from medseg_gan.training.augment import augment as augment_batch
from medseg_gan.training.engine import resume, save_state
from medseg_gan.training.labelled import LabelledSlices, TrainingBatches, TrainingSource, class_frequencies
from medseg_gan.training.log import Progress
from medseg_gan.training.pool import run_jobs

FINISHED = "training.json"
CURVE_POINTS = 40

Optimizer = Literal["adam", "onecycle"]
Loss = Literal["ce", "weighted_ce_dice"]


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
    augment: bool = True,
    val: LabelledSlices | None = None,
    checkpoints: int = 4,
    backbone_weights: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    description: str = "segmenter",
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
        optimizer: `adam` at a constant rate (DatasetGAN), or `onecycle`, AdamW with a one-cycle schedule.
        loss: `ce`, or `weighted_ce_dice` with weights 1/sqrt(frequency).
        augment: random affine and intensity changes.
        val: labelled slices of held-out patients, on which the checkpoint is picked.
        checkpoints: number of evenly spaced checkpoints.
        backbone_weights: local file of ImageNet weights for a ResNet backbone.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        description: name on the progress bar.

    Returns:
        File of the picked weights.

    Raises:
        MedsegError: unusable sources, other settings than an unfinished training's, or a loss that is not finite.
    """
    folder = Path(folder)
    if (folder / FINISHED).is_file():
        return picked_weights(folder)
    started = time.monotonic()
    frequencies = class_frequencies(sources, network["num_classes"])
    seed_step(seed, "initial weights")
    model = _build(network, backbone_weights).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, scheduler = _optimiser(model, optimizer, lr, steps)
    objects = {"network": model, "optimizer": optimiser, "scheduler": scheduler}
    settings = {"network": dict(network), "seed": seed, "steps": steps, "batch_size": batch_size, "lr": lr}
    settings |= {"optimizer": optimizer, "loss": loss, "augment": augment, "checkpoints": checkpoints}
    settings |= {"precision": precision, "slices": [len(source.slices) for source in sources]}
    done = resume(folder, objects, settings)
    record = _Record(folder, done)
    trainer = SupervisedTrainer(
        device=torch.device(device),
        max_epochs=1,
        epoch_length=steps,
        train_data_loader=TrainingBatches(sources, batch_size, seed, start=done),
        network=model,
        optimizer=optimiser,
        loss_function=_loss_function(loss, class_weights(frequencies).to(device)),
        prepare_batch=partial(_prepare_batch, augment=augment),
        inferer=Forward(device, precision),
        train_handlers=[LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)],
        decollate=False,
        optim_set_to_none=True,
    )
    trainer.logger = logging.getLogger("medseg_gan.segmenter")
    trainer.logger.setLevel(logging.CRITICAL)  # Ignite would print the error a second time
    saved_at = set(checkpoint_steps(steps, checkpoints))

    def save(engine: Engine) -> None:
        step = engine.state.iteration
        record.log(step)  # a loss that is not finite must stop the training before it reaches a checkpoint
        miou = _validate(model, val, device, precision) if val is not None else None
        save_checkpoint(_weights_file(folder, step), network=dict(network), step=step, state=model.state_dict())
        record.save(step, miou)
        save_state(folder, objects, step, batch_size, settings, keep=1)

    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: seed_step(seed, "step", e.state.iteration))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: record.collect(e.state.output["loss"]))
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(every=max(1, steps // CURVE_POINTS)), lambda e: record.log(e.state.iteration)
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED(event_filter=lambda _, k: k in saved_at), save)
    with Progress(steps, description, "step", initial=done) as bar:
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: bar.update())
        if done < steps:
            trainer.load_state_dict({"iteration": done, "epoch_length": steps, "max_epochs": 1})
            trainer.run()
    record.finish(settings, time.monotonic() - started)
    for left in folder.glob("checkpoint-*.pt"):  # the optimiser's state is of no further use
        left.unlink()
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
    left = {name: job for name, job in jobs.items() if not (Path(job["folder"]) / FINISHED).is_file()}
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


def checkpoint_predictions(
    folder: Path, images: Tensor, *, batch_size: int = 32, device: str = "cpu", precision: str = "fp32"
) -> tuple[np.ndarray, int]:
    """Predictions of every checkpoint of a finished training, as the protocols need them.

    Args:
        folder: of the training.
        images: `(N, C, H, W)` in [-1, 1].
        batch_size: slices at once.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.

    Returns:
        `(C, N, H, W)` uint8 class ids of the C checkpoints in order, and the position of the picked one.
    """
    training = read_training(folder)
    steps = [checkpoint["step"] for checkpoint in training["checkpoints"]]
    predictions = [
        predict_labels(
            load_segmenter(_weights_file(Path(folder), step), device),
            images,
            batch_size=batch_size,
            device=device,
            precision=precision,
        ).numpy()
        for step in steps
    ]
    return np.stack(predictions), steps.index(training["picked"])


class _Record:
    """The loss curve and the checkpoints' scores; rows past the step resumed from are dropped."""

    def __init__(self, folder: Path, done: int) -> None:
        self.folder, self.path = folder, folder / "history.json"
        before = read_json(self.path) if done else {"curve": [], "checkpoints": [], "seconds": 0.0}
        self.curve = [row for row in before["curve"] if row["step"] <= done]
        self.checkpoints = [row for row in before["checkpoints"] if row["step"] <= done]
        self.pending: list[Tensor] = []

    def collect(self, loss: Tensor) -> None:
        self.pending.append(loss.detach())  # stays on the device: no step waits for it

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

    def save(self, step: int, miou: float | None) -> None:
        self.checkpoints.append({"step": step, "val_miou": miou})
        write_json(self.path, {"curve": self.curve, "checkpoints": self.checkpoints})

    def finish(self, settings: Mapping[str, Any], seconds: float) -> None:
        picked = max(self.checkpoints, key=lambda row: (row["val_miou"] or 0.0, row["step"]))["step"]
        history = {"curve": self.curve, "checkpoints": self.checkpoints}
        write_json(self.folder / FINISHED, {**settings, "picked": picked, "seconds": seconds, **history})
        self.path.unlink(missing_ok=True)


def _build(network: Mapping[str, Any], backbone_weights: str | None) -> nn.Module:
    state = load_checkpoint(backbone_weights) if backbone_weights else None
    return build_segmenter(**network, backbone_state=state)


def _optimiser(
    model: nn.Module, name: Optimizer, lr: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if name == "adam":
        adam = torch.optim.Adam(model.parameters(), lr, fused=True)
        return adam, torch.optim.lr_scheduler.ConstantLR(adam, factor=1.0, total_iters=0)
    adamw = torch.optim.AdamW(model.parameters(), lr, fused=True)
    return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, lr, total_steps=steps + 1)


def _loss_function(name: Loss, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return cross_entropy if name == "ce" else partial(weighted_ce_dice, weights=weights)


def _prepare_batch(
    batch: Mapping[str, Tensor], device: torch.device, non_blocking: bool = False, *, augment: bool, **_: Any
) -> tuple[Tensor, Tensor]:
    image, label = (batch[key].to(device, non_blocking=non_blocking) for key in ("image", "label"))
    if augment:
        image, label = augment_batch(image, label)
    return image.contiguous(memory_format=torch.channels_last), label


def _validate(model: nn.Module, val: LabelledSlices, device: str, precision: str) -> float:
    image, label = val.read(range(len(val)))
    probs = predict_probs(model, image, device=device, precision=precision)
    return scores(confusion(probs.argmax(1).numpy(), label.numpy(), probs.shape[1]).sum(axis=0))["miou"]


def _weights_file(folder: Path, step: int) -> Path:
    return folder / f"weights-{step:07d}.pt"
