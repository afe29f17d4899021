"""One iteration of alternate training (Yang et al., 2022, Algorithm 1): the layered GAN's, or the segmenter's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from medseg_gan.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss
from medseg_gan.losses.masks import background_loss, binarisation_loss, size_loss
from medseg_gan.losses.segmentation import soft_cross_entropy
from medseg_gan.machine.device import autocast
from medseg_gan.machine.seeding import seed_step
from medseg_gan.networks.segmenters import build_segmenter
from medseg_gan.systems.layered.codes import Prior
from medseg_gan.systems.layered.composition import Perturbation, compose, perturbed_composition
from medseg_gan.systems.layered.networks import LayeredDiscriminator, LayeredGenerator, MaskEncoder
from medseg_gan.systems.layered.recipe import TrainGan
from medseg_gan.training.augment import flip_and_crop, vary_colour
from medseg_gan.training.ema import average

EMPTY, FULL = 0.02, 0.90
"""Area of a mask, as a share of the picture, below and above which it shows nothing or everything."""
TRUSTED = 0.5
"""IoU of F on synthetic pictures below which it would push objects out of everything: L_bg is then left out."""
JUDGED_ON = 4  # batches


@dataclass
class Trust:
    """How well F did on synthetic pictures at the end of its last round; part of what the next step depends on."""

    iou: float = 0.0

    def state_dict(self) -> dict[str, float]:
        """For checkpoints."""
        return {"iou": self.iou}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """From a checkpoint."""
        self.iou = state["iou"]


class LayeredStep:
    """Networks and optimisers of a training, and its step: GAN iterations, then F's, round after round."""

    def __init__(
        self,
        settings: TrainGan,
        *,
        size: int,
        channels: int,
        seed: int,
        device: str,
        precision: str,
        mirror: bool = True,
    ) -> None:
        """Build everything from the seed.

        Args:
            settings: of the training, with its arm's objective.
            size: side of the images, a power of two.
            channels: of the images.
            seed: of weights and of all later draws.
            device: `cpu` or `cuda`.
            precision: `fp32` or `bf16` (autocast).
            mirror: whether real images may be mirrored; never CT, where left and right differ.
        """
        s = self.settings = settings
        o, n = s.objective, s.network
        self.size, self.channels, self.seed, self.device, self.precision = size, channels, seed, device, precision
        self.mirror = mirror
        self.prior = Prior(o.prior, o.c_dim, o.group if o.prior == "categorical" else 1)
        self.perturbation = Perturbation(o.shift, o.degrees, o.shrink, o.contrast)
        seed_step(seed, "networks")
        self.G = LayeredGenerator(
            size, channels, n.z_dim, self.prior.dim, self.prior.parent_dim, n.base, n.widest, n.blocks, n.smallest
        )
        nn.init.constant_(self.G.mask.bias, o.mask_bias)  # type: ignore[arg-type]
        self.D = LayeredDiscriminator(size, channels, self.prior.dim, n.d_first, n.d_norm)
        self.E_pi = MaskEncoder(size, self.prior.parent_dim, n.pi_first)
        self.F = build_segmenter(s.segmenter, num_classes=2, in_channels=channels, width=s.segmenter_width)
        for network in (self.G, self.D, self.E_pi, self.F):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.G_ema = copy.deepcopy(self.G) if s.ema else self.G
        judges = [*self.D.parameters(), *self.E_pi.parameters()]
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), s.lr, (0.5, 0.999), fused=True)
        self.optimizer_D = torch.optim.Adam(judges, s.lr_d, (0.5, 0.999), fused=True)
        self.optimizer_F = torch.optim.Adam(self.F.parameters(), s.segmenter_lr, fused=True)
        self.trust = Trust()

    def objects(self) -> dict[str, Any]:
        """Everything the next step depends on, by name."""
        names = ("G", "D", "E_pi", "F", "optimizer_G", "optimizer_D", "optimizer_F", "trust")
        found = {name: getattr(self, name) for name in names}
        return found | ({"G_ema": self.G_ema} if self.settings.ema else {})

    def __call__(self, engine: Engine, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One iteration; the terms are detached scalars."""
        iteration = engine.state.iteration
        round_number, step = self.settings.place(iteration)
        seed_step(self.seed, "step", iteration)
        if step < self.settings.gan_steps:
            return self.gan_step(batch["image"], round_number, step)
        terms = self.segmenter_step()
        if step == self.settings.round_steps - 1:
            self.trust.iou = self.judge_segmenter()
            terms["F_synthetic_iou"] = terms["loss_F"].new_tensor(self.trust.iou)
        return terms

    def risen(self, share: float, round_number: int, step: int) -> float:
        """How much of a weight is in force: early masks must not be coded before images look like anything."""
        length = share * self.settings.gan_steps
        return 1.0 if round_number or step >= length else step / length

    def layers(self, count: int, G: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Background, foreground, mask, c and c_sup of fresh latents."""
        z = torch.randn(count, self.settings.network.z_dim, device=self.device)
        c, c_sup = self.prior.draw(count, self.device)
        with autocast(self.device, self.precision):
            return *G(z, c, c_sup), c, c_sup

    def judge(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits and E_x's."""
        with autocast(self.device, self.precision):
            return self.D(image.contiguous(memory_format=torch.channels_last))

    def parent_of(self, mask: Tensor) -> Tensor:
        """E_pi's logits."""
        with autocast(self.device, self.precision):
            return self.E_pi(mask)

    def information(self, code_logits: Tensor, c: Tensor, mask: Tensor, c_sup: Tensor) -> Tensor:
        """L_mi = -log E_x(c | x) - log E_pi(c_sup | pi), the second weighted by `pi_share` (eq. 5, sign mended)."""
        share = self.settings.objective.pi_share
        return self.prior.loss(code_logits, c) + share * self.prior.loss(self.parent_of(mask), c_sup)

    def gan_step(self, real: Tensor, round_number: int, step: int) -> dict[str, Tensor]:
        """Update G_b and G_f, then D, E_x and E_pi (Algorithm 1, lines 4 and 5)."""
        s, o = self.settings, self.settings.objective
        gamma_mi = o.gamma_mi * self.risen(o.ramp_mi, round_number, step)
        gamma_b = o.gamma_b * self.risen(o.ramp_b, round_number, step)
        real = flip_and_crop(real, s.crop, self.mirror)

        # Generators: raise D's logits, let c be read from the image and c_sup from the mask.
        only(self.G, self.D, self.E_pi)
        self.G.train()
        background, foreground, mask, c, c_sup = self.layers(len(real), self.G)
        fake, moved = perturbed_composition(background, foreground, mask, self.perturbation)
        logits, code_logits = self.judge(fake)
        adversarial = hinge_generator_loss(logits)
        information = self.information(code_logits, c, mask, c_sup)
        binary = binarisation_loss(mask)
        loss_G = adversarial + gamma_mi * information + gamma_b * binary
        terms = {"loss_G": adversarial, "loss_mi_G": information, "binarisation": binary}
        if o.size_weight:
            terms["size"] = size_loss(moved)  # as PerturbGAN has it: what is pushed out of the picture does not count
            loss_G = loss_G + o.size_weight * terms["size"]
        if round_number and o.gamma_bg and self.trust.iou >= TRUSTED:
            terms["loss_bg"] = background_loss(self.frozen_F(background))
            loss_G = loss_G + o.gamma_bg * terms["loss_bg"]
        self.optimizer_G.zero_grad(set_to_none=True)
        loss_G.backward()
        self.optimizer_G.step()
        if s.ema:
            average(self.G_ema, self.G, s.ema)

        # Discriminator and encoders: tell real from generated, and read the codes.
        only(self.D, self.G)
        self.E_pi.requires_grad_(True)
        if not s.reuse_fakes:
            with torch.no_grad():
                background, foreground, mask, c, c_sup = self.layers(len(real), self.G)
                fake, _ = perturbed_composition(background, foreground, mask, self.perturbation)
        fake, mask = fake.detach(), mask.detach()
        logits_real = self.judge(real)[0]
        logits_fake, code_logits = self.judge(fake)
        loss_D = hinge_discriminator_loss(logits_real, logits_fake)
        information = self.information(code_logits, c, mask, c_sup)
        self.optimizer_D.zero_grad(set_to_none=True)
        (loss_D + gamma_mi * information).backward()
        self.optimizer_D.step()

        terms |= {"loss_D": loss_D, "loss_mi_D": information, **mask_terms(mask)}
        terms["D_accuracy"] = 0.5 * ((logits_real > 0).float().mean() + (logits_fake < 0).float().mean())
        return {name: term.detach() for name, term in terms.items()}

    def frozen_F(self, image: Tensor) -> Tensor:  # noqa: N802 - F is the paper's symbol
        """`(B, 2, H, W)` F's logits, F frozen and in evaluation mode but differentiable in the image."""
        self.F.eval().requires_grad_(False)
        with autocast(self.device, self.precision):
            return self.F(image.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def judge_segmenter(self) -> float:
        """Foreground IoU of F on fresh samples against their own masks: whether the next round may lean on it."""
        both = either = 0.0
        for _ in range(JUDGED_ON):
            image, mask, _, _ = self.sample(self.settings.batch_size)
            pred, truth = self.frozen_F(image).argmax(dim=1) == 1, mask[:, 0] > 0.5
            both, either = both + float((pred & truth).sum()), either + float((pred | truth).sum())
        return both / max(either, 1.0)

    def segmenter_step(self) -> dict[str, Tensor]:
        """Update F on fresh samples with their soft masks (eq. 7); only colours are augmented."""
        image, mask, _, _ = self.sample(self.settings.batch_size)
        self.F.train().requires_grad_(True)
        with autocast(self.device, self.precision):
            logits = self.F(vary_colour(image).contiguous(memory_format=torch.channels_last))
        loss = soft_cross_entropy(logits.float(), torch.cat([1 - mask, mask], dim=1))
        self.optimizer_F.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer_F.step()
        return {"loss_F": loss.detach()}

    @torch.no_grad()
    def sample(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fresh pictures in evaluation mode and without perturbation.

        Returns:
            Composites `(B, C, H, H)`, masks `(B, 1, H, H)`, backgrounds and foregrounds.
        """
        self.G_ema.eval()
        background, foreground, mask, _, _ = self.layers(count, self.G_ema)
        return compose(background, foreground, mask), mask, background, foreground


def mask_terms(mask: Tensor) -> dict[str, Tensor]:
    """What shows a trivial solution in a batch of masks: mean and spread of their areas, shares of empty and full."""
    area = mask.flatten(1).mean(dim=1)
    return {
        "area": area.mean(),
        "area_sd": area.std(),
        "empty": (area < EMPTY).float().mean(),
        "full": (area > FULL).float().mean(),
    }


def only(trained: nn.Module, *frozen: nn.Module) -> None:
    """Gradients for one network alone."""
    trained.requires_grad_(True)
    for network in frozen:
        network.requires_grad_(False)
