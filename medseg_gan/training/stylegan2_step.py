"""One iteration of StyleGAN2-ADA: generator, path length, discriminator, R1, moving average, augmentation strength."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from medseg_gan.machine.device import autocast
from medseg_gan.machine.processes import average_, count, gathered, rank
from medseg_gan.machine.seeding import seed_step
from medseg_gan.training.ema import update_ema
from medseg_gan.training.stylegan2_config import StyleGAN2Training
from stylegan2_ada_pytorch import (
    AUGMENT_PIPES,
    AdaController,
    AugmentPipe,
    Discriminator,
    Generator,
    discriminator_loss,
    generator_loss,
    lazy_adam,
    mix_styles,
    path_length_penalty,
    r1_penalty,
)

ADA_INTERVAL = 4  # steps between two movements of p


class StyleGAN2Step:
    """Networks, optimisers and running values of a training, and its step.

    Karras et al., 2020 and 2020a. Phases in the official order, each with fresh latents: generator, path length
    (every `pl_interval` steps), discriminator, R1 (every `r1_interval`). A regularizer that runs every k-th step is
    weighted by k, and its optimiser's lr and betas are those of k / (k + 1) of a step.

    In a group of processes each takes its share of the batch and draws its own latents; gradients, the mean w and the
    mean path length are averaged and the signs of D gathered, so that every process holds the same state.
    """

    def __init__(
        self,
        settings: StyleGAN2Training,
        *,
        resolution: int,
        channels: int,
        seed: int,
        device: str,
        precision: str,
        labels: Tensor | None = None,
    ) -> None:
        """Build everything from the seed.

        Args:
            settings: see there.
            resolution: side of the images, a power of two.
            channels: channels of the images.
            seed: of weights and of all later draws.
            device: `cpu` or `cuda`.
            precision: `fp32` or `bf16` (autocast).
            labels: `(N, c_dim)` of the real images; generated ones get labels of images drawn from them.
        """
        s = self.settings = settings
        self.seed, self.device, self.precision = seed, device, precision
        self.batch_gpu = s.batch_gpu or s.batch_size // count()
        self.labels = None if labels is None else labels.to(device, torch.float32)
        c_dim = 0 if labels is None else labels.shape[1]
        seed_step(seed, "networks")
        sizes: dict[str, Any] = {"channel_base": s.channel_base, "channel_max": s.channel_max}
        self.G = Generator(
            z_dim=s.z_dim,
            c_dim=c_dim,
            w_dim=s.w_dim,
            img_resolution=resolution,
            img_channels=channels,
            mapping_kwargs={"num_layers": s.mapping_layers},
            synthesis_kwargs={**sizes, "architecture": s.architecture},
        )
        self.D = Discriminator(
            c_dim=c_dim,
            img_resolution=resolution,
            img_channels=channels,
            architecture=s.d_architecture,
            **sizes,
            block_kwargs={"freeze_layers": s.freeze_d},
            epilogue_kwargs={"mbstd_group_size": s.mbstd_group},
        )
        for network in (self.G, self.D):
            network.train().requires_grad_(False).to(device)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.G_ema = copy.deepcopy(self.G).eval()
        self.G_optimizer = build_optimizer(self.G, s.lr, s.pl_interval if s.pl_weight else None)
        self.D_optimizer = build_optimizer(self.D, s.lr, s.r1_interval if s.r1_gamma else None)
        pipe: dict[str, Any] = dict(AUGMENT_PIPES[s.ada_pipe])
        self.pipe = AugmentPipe(**pipe).to(device)
        self.ada = AdaController(self.pipe, target=s.ada_target, ada_kimg=s.ada_kimg, p_max=s.p_max)
        self.r_t = 0.0
        self.pipe.p.fill_(s.first_p)
        self.pl_mean = torch.zeros([], device=device)

    def __call__(self, engine: Engine, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Do one step and return its terms as detached scalars.

        Args:
            engine: whose iteration it is.
            batch: `image` `(B, C, H, W)` in [-1, 1], this process's share, and with labels `label` `(B, c_dim)`.
        """
        real, c = batch["image"], batch.get("label")
        images = len(real) * count()
        iteration = engine.state.iteration
        index = iteration - 1  # as in the official loop, where step 0 runs every phase
        s = self.settings
        seed_step(self.seed, "step", iteration, *(("process", rank()) if rank() else ()))
        self.set_lr(index)

        terms = self.update(self.G_optimizer, self.g_main, real, c)
        if s.pl_weight and index % s.pl_interval == 0:
            terms |= self.update(self.G_optimizer, self.g_reg, real, c)
        terms |= self.update(self.D_optimizer, self.d_main, real, c)
        if s.r1_gamma and index % s.r1_interval == 0:
            terms |= self.update(self.D_optimizer, self.d_reg, real, c)

        average_([self.G.mapping.w_avg, self.pl_mean])
        update_ema(self.G_ema, self.G, images, index * images, s.ema_kimg, s.ema_rampup)
        if iteration % ADA_INTERVAL == 0:
            self.adapt_augmentation(ADA_INTERVAL * images)
        return terms

    def g_main(self, real: Tensor, c: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Raise the logits of generated images: softplus(-D(aug(G(z))))."""
        fake, _, c_fake = self.generate(len(real))
        loss = generator_loss(self.discriminate(self.pipe(fake), c_fake)).mean()
        return loss, {"loss_G": loss}

    def g_reg(self, real: Tensor, c: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the image move equally far for equal moves of w (Karras et al., 2020, section 3.2); half a batch."""
        fake, ws, _ = self.generate(max(len(real) // 2, 1))
        penalties, mean = path_length_penalty(fake, ws, self.pl_mean)
        self.pl_mean.copy_(mean)
        penalty = penalties.mean()
        return penalty * (self.settings.pl_weight * self.settings.pl_interval), {"path_length": penalty}

    def d_main(self, real: Tensor, c: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Lower the logits of generated images, raise those of real ones; both seen through the augmentations.

        One pass judges both: interleaved, the groups of the minibatch standard deviation are those of two passes.
        """
        with torch.no_grad():
            fake, _, c_fake = self.generate(len(real))
        both = torch.stack([fake, real], dim=1).flatten(0, 1)  # (2B, C, H, W): fake, real, fake, real, ...
        c_both = None if c is None or c_fake is None else torch.stack([c_fake, c], dim=1).flatten(0, 1)
        logits_fake, logits_real = self.discriminate(self.pipe(both), c_both).unflatten(0, (-1, 2)).unbind(1)
        self.ada.report(gathered(logits_real.detach()))
        loss = discriminator_loss(logits_real, logits_fake).mean()
        return loss, {"loss_D": loss, "sign_real": logits_real.sign().mean(), "sign_fake": logits_fake.sign().mean()}

    def d_reg(self, real: Tensor, c: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Keep D flat at real images: gamma / 2 times its squared gradient there (Mescheder et al., 2018)."""
        image = real.detach().requires_grad_(True)
        logits = self.discriminate(self.pipe(image), c)
        self.ada.report(gathered(logits.detach()))
        penalty = r1_penalty(image, logits).mean()
        return penalty * (self.settings.r1_gamma / 2 * self.settings.r1_interval), {"r1": penalty}

    def update(
        self,
        optimizer: torch.optim.Optimizer,
        loss_of: Callable[[Tensor, Tensor | None], tuple[Tensor, dict[str, Tensor]]],
        real: Tensor,
        c: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Move one network's weights along the gradient of a loss, accumulated over parts of the batch.

        Gradients are averaged over the processes of a group, in one exchange.

        Args:
            optimizer: of the network to move; only its weights get gradients.
            loss_of: takes a part of the real images and its labels, returns the loss and the terms to report.
            real: `(B, C, H, W)` the step's real images.
            c: `(B, c_dim)` their labels.

        Returns:
            The terms, detached, as means over this process's batch.
        """
        weights = optimizer.param_groups[0]["params"]
        for weight in weights:
            weight.requires_grad_(True)
        sums: dict[str, Tensor] = {}
        parts = real.split(self.batch_gpu)
        for part, labels in zip(parts, [None] * len(parts) if c is None else c.split(self.batch_gpu), strict=True):
            share = len(part) / len(real)
            loss, terms = loss_of(part, labels)
            (loss * share).backward()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach() * share
        average_([weight.grad for weight in weights if weight.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for weight in weights:
            weight.requires_grad_(False)
        return sums

    def generate(self, number: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images of fresh latents with style mixing.

        Returns:
            `(number, C, H, W)`, their `(number, num_ws, w_dim)`, and their labels `(number, c_dim)` or None.
        """
        c = self.some_labels(number)
        with autocast(self.device, self.precision):
            ws = self.G.mapping(torch.randn(number, self.settings.z_dim, device=self.device), c)
            ws = mix_styles(self.G.mapping, ws, c, probability=self.settings.style_mixing_prob)
            return self.G.synthesis(ws, noise_mode="random"), ws, c

    def some_labels(self, number: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Labels `(number, c_dim)` of real images drawn at random, on the device; None without labels."""
        if self.labels is None:
            return None
        chosen = torch.randint(len(self.labels), (number,), generator=generator)
        return self.labels[chosen.to(self.device)]

    def discriminate(self, images: Tensor, c: Tensor | None = None) -> Tensor:
        """Logits `(B, 1)` of images with their labels."""
        with autocast(self.device, self.precision):
            return self.D(images, c).float()

    def adapt_augmentation(self, images: int) -> None:
        """Note r_t = E[sign(D(real))] of the last `images` real images, and let p follow it in mode `ada`."""
        self.r_t = self.ada.mean_sign
        self.ada.update(images)
        if self.settings.ada != "ada":
            self.pipe.p.fill_(self.settings.first_p)

    def set_lr(self, index: int) -> None:
        """Let the learning rates fall linearly from `lr_decay_from` of the run to its end."""
        s = self.settings
        left, falling = s.iterations - index, s.iterations * (1 - s.lr_decay_from)
        for optimizer in (self.G_optimizer, self.D_optimizer):
            group = optimizer.param_groups[0]
            group["lr"] = group["initial_lr"] * (min(1.0, left / falling) if falling else 1.0)

    def scalars(self) -> dict[str, float | Tensor]:
        """Running values worth a look: augmentation strength, r_t, learning rate of the generator."""
        return {"p": self.pipe.p, "r_t": self.r_t, "lr": self.G_optimizer.param_groups[0]["lr"]}

    def objects(self) -> dict[str, Any]:
        """Everything that the next step depends on, by name."""
        names = ("G", "D", "G_ema", "G_optimizer", "D_optimizer", "ada")
        return {name: getattr(self, name) for name in names} | {"step": self}

    def state_dict(self) -> dict[str, float | Tensor]:
        """The running mean of path lengths, and r_t."""
        return {"pl_mean": self.pl_mean, "r_t": self.r_t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.pl_mean.copy_(state["pl_mean"])
        self.r_t = float(state["r_t"])


def build_optimizer(network: nn.Module, lr: float, interval: int | None) -> torch.optim.Adam:
    """Fused Adam for a network whose regularizer runs every `interval` steps (None: has none)."""
    lazy: dict[str, Any] = lazy_adam(lr, interval=interval)
    optimizer = torch.optim.Adam(network.parameters(), **lazy, eps=1e-8, fused=True)
    optimizer.param_groups[0]["initial_lr"] = optimizer.param_groups[0]["lr"]
    return optimizer
