"""What the training benchmarks share: phantom slices at 64 x 64 and the demo's GAN settings."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg_gan.data.phantom.patient import draw_patient
from medseg_gan.data.phantom.thorax import patient_volumes
from medseg_gan.data.slices import to_unit

SIZE = 64
WINDOW = (-1000.0, 400.0)  # HU

# `train_gan` of the demo profile of recipes/segthor_datasetgan.yaml, but for length, statistics and augmentation.
DEMO: dict[str, Any] = {
    "batch_size": 8,
    "z_dim": 128,
    "w_dim": 128,
    "channel_base": 1024,
    "channel_max": 64,
    "lr": 5e-3,
    "lr_decay_from": 0.6,
    "r1_gamma": 1.0,
    "pl_weight": 0.0,
    "style_mixing_prob": 0.0,
    "ema_kimg": 3.0,
    "ada": "off",
    "ada_pipe": "medical",
}


def phantom_slices(first: int, patients: int, per_patient: int, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Slices of the thorax phantom, evenly spread over the lungs of each patient.

    Args:
        first: number of the first patient, from 1; patients of other numbers are other people.
        patients: how many.
        per_patient: slices of each.
        seed: of the cohort.

    Returns:
        `(N, 1, 64, 64)` in [-1, 1], and the patient of each.
    """
    images, groups = [], []
    for number in range(first, first + patients):
        hu, _, _ = patient_volumes(draw_patient(seed, number), 2 * SIZE, per_patient)  # (X, Y, Z)
        slices = F.avg_pool2d(torch.from_numpy(hu).permute(2, 1, 0)[:, None].float(), 2)
        images.append(torch.from_numpy(to_unit(slices.numpy(), WINDOW)).float())
        groups += [f"patient{number}"] * per_patient
    return torch.cat(images), groups
