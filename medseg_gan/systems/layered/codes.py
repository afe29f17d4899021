"""The private code c and its parent c_sup: how they are sampled, and how encoders predict them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medseg_gan.losses.information import categorical_code_loss, gaussian_code_loss


@dataclass(frozen=True)
class Prior:
    """Law of the private code.

    A categorical c is one of `dim` classes, and c_sup is the group of `group` neighbouring classes it belongs to, as
    FineGAN has it. A Gaussian c has `dim` independent components; the paper does not say what its mask sees, here
    it is all of them.

    Attributes:
        kind: `categorical` or `gaussian`.
        dim: d_c.
        group: classes with one parent; 1 for a Gaussian code.
    """

    kind: Literal["categorical", "gaussian"]
    dim: int
    group: int = 1

    @property
    def parent_dim(self) -> int:
        """Size of c_sup."""
        return self.dim // self.group if self.kind == "categorical" else self.dim

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """`(encoder's output, code) -> scalar`, -log q(code | what the encoder saw)."""
        return categorical_code_loss if self.kind == "categorical" else gaussian_code_loss

    def draw(self, count: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Draw from torch's global stream.

        Returns:
            c `(B, dim)` and c_sup `(B, parent_dim)`.
        """
        if self.kind == "gaussian":
            c = torch.randn(count, self.dim, device=device)
            return c, c
        chosen = torch.randint(self.dim, (count,), device=device)
        parent = functional.one_hot(chosen // self.group, self.parent_dim).float()
        return functional.one_hot(chosen, self.dim).float(), parent
