"""Adaptive discriminator augmentation: how strongly images are augmented follows how surely reals are recognised."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class AdaController:
    """Moves the augmentation strength p so that r_t = E[sign(D(real))] stays at a target (Karras et al., 2020a).

    p lies between 0 and `p_max`; the official code has no upper bound, but above 1 p has no meaning and near 1 the
    augmentations leak into the generated images. All arithmetic stays on the device.
    """

    def __init__(
        self,
        pipe: nn.Module | None,
        mode: Literal["ada", "fixed", "off"],
        *,
        target: float = 0.6,
        kimg: float = 500,
        p_max: float = 0.8,
        fixed_p: float = 0.0,
        interval: int = 4,
        device: str = "cpu",
    ) -> None:
        """Set p to its first value.

        Args:
            pipe: the augmentations, with a buffer `p`; None without augmentation.
            mode: `ada` moves p, `fixed` keeps `fixed_p`, `off` only measures r_t.
            target: wanted r_t.
            kimg: thousand real images in which p can go from 0 to 1.
            p_max: upper bound of p.
            fixed_p: p in mode `fixed`.
            interval: steps between two movements.
            device: where the logits are.
        """
        self.mode, self.target, self.kimg, self.p_max, self.interval = mode, target, kimg, p_max, interval
        self.p: Tensor = torch.zeros([], device=device) if pipe is None else pipe.get_buffer("p")
        self.p.fill_(fixed_p if mode == "fixed" else 0.0)
        self.sign_sum = torch.zeros([], device=device)
        self.count = torch.zeros([], device=device)
        self.r_t = torch.zeros([], device=device)

    def report(self, logits: Tensor) -> None:
        """Take note of `(B, 1)` logits of augmented real images."""
        self.sign_sum += logits.detach().float().sign().sum()
        self.count += logits.numel()

    @torch.no_grad()
    def update(self, iteration: int, batch_size: int) -> None:
        """Every `interval` steps: p += sign(r_t - target) * images / (1000 kimg), within [0, p_max]."""
        if iteration % self.interval:
            return
        self.r_t.copy_(self.sign_sum / self.count.clamp(min=1))
        self.sign_sum.zero_()
        self.count.zero_()
        if self.mode == "ada":
            change = (self.r_t - self.target).sign() * (batch_size * self.interval / (self.kimg * 1000))
            self.p.copy_((self.p + change).clamp(0, self.p_max))

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next update depends on."""
        return {name: getattr(self, name) for name in ("p", "sign_sum", "count", "r_t")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        for name in ("p", "sign_sum", "count", "r_t"):
            getattr(self, name).copy_(state[name])
