"""Networks, step and watch: all that a system has to write."""

import torch
from torch import Tensor, nn

from medseg_gan.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss
from medseg_gan.losses.masks import binarisation_loss
from medseg_gan.machine.seeding import seed_step
from medseg_gan.training.restarts import Trivial
from medseg_gan.training.watch import Watch

Z, CHANNELS = 4, 3


class Generator(nn.Module):
    """A foreground over a background, by one linear layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(Z, (2 * CHANNELS + 1) * size**2), nn.Unflatten(1, (-1, size, size)))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.layer(z)
        mask, (front, back) = layers[:, :1].sigmoid(), layers[:, 1:].tanh().chunk(2, dim=1)
        return mask * front + (1 - mask) * back, mask


class Step:
    """One iteration: discriminator, then generator."""

    def __init__(self, settings, size: int, seed: int) -> None:
        self.gamma, self.seed = settings.objective.gamma, seed
        seed_step(seed, "networks")
        self.G = Generator(size)
        self.D = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * size * size, 1))
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), settings.lr)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), settings.lr)

    @staticmethod
    def update(optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def sample(self) -> Tensor:
        return self.G(torch.eye(Z))[0]

    def __call__(self, engine, batch) -> dict[str, Tensor]:
        seed_step(self.seed, "step", engine.state.iteration)
        fake, mask = self.G(torch.randn(len(batch["image"]), Z))
        loss_D = hinge_discriminator_loss(self.D(batch["image"]), self.D(fake.detach()))
        self.update(self.optimizer_D, loss_D)
        loss_G = hinge_generator_loss(self.D(fake)) + self.gamma * binarisation_loss(mask)
        self.update(self.optimizer_G, loss_G)
        return {"loss_G": loss_G.detach(), "loss_D": loss_D.detach(), "area": mask.mean().detach()}


class Watchdog(Watch):
    def __init__(self, least: float, stop: bool) -> None:
        super().__init__(("area",), memory=0.5)
        self.least, self.stop = least, stop

    def judge(self, row) -> None:
        self.remember(row)
        if self.stop and self.means["area"] < self.least:
            raise Trivial("all as background", int(row["iteration"]))
