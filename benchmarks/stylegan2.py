"""StyleGAN2 training speed: our networks against their plain definition in fp32, side by side in one run.

    python benchmarks/stylegan2.py                      # the demo's networks, half a minute
    python benchmarks/stylegan2.py --threads 2 --rounds 12 --p 0.4

Both sides use the same weights and the same method (generator and discriminator step, R1 every 16 iterations); the
plain side inserts zeros, filters and scales as the definition says, in NCHW. Rounds alternate between the sides, so a
busy machine slows both. Ratios carry from one machine to the next better than times do.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "third_party"), str(ROOT / "tests" / "third_party")]

import stylegan2_reference as plain  # noqa: E402

from medseg_gan.device import autocast, processor_name, resolve_precision, set_threads  # noqa: E402
from stylegan2_ada_pytorch import (  # noqa: E402
    AUGMENT_PIPES,
    AugmentPipe,
    Discriminator,
    Generator,
    discriminator_loss,
    generator_loss,
    lazy_adam,
    r1_penalty,
)

R1_INTERVAL = 16


class Side:
    """One implementation with its own weights and optimisers."""

    def __init__(self, options: argparse.Namespace, fast: bool, precision: str) -> None:
        torch.manual_seed(0)
        size = {"channel_base": options.channel_base, "channel_max": options.channel_max}
        self.G = Generator(128, 0, 128, options.resolution, 1, {"num_layers": 2}, size)
        self.D = Discriminator(0, options.resolution, 1, **size)
        self.fast, self.precision, self.batch, self.resolution = fast, precision, options.batch, options.resolution
        self.pipe = AugmentPipe(**AUGMENT_PIPES["medical"])
        self.pipe.p.fill_(options.p)
        self.real = torch.randn(self.batch, 1, self.resolution, self.resolution).clamp(-1, 1)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), **lazy_adam(0.0025), fused=fast)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), **lazy_adam(0.0025, interval=R1_INTERVAL), fused=fast)

    def context(self) -> AbstractContextManager[None]:
        return autocast("cpu", self.precision if self.fast else "fp32")

    def generate(self, noise_mode: str = "random") -> Tensor:
        z = torch.randn(self.batch, 128)
        with self.context():
            if self.fast:
                return self.G(z, noise_mode=noise_mode)
            t = plain.tensors_of(self.G)
            ws = plain.mapping(t, z)[:, None].repeat(1, self.G.num_ws, 1)
            return plain.synthesis(t, ws, self.resolution, noise_mode=noise_mode)[0]

    def judge(self, images: Tensor) -> Tensor:
        with self.context():
            return self.D(images) if self.fast else plain.discriminator(plain.tensors_of(self.D), images)

    def iteration(self, with_r1: bool) -> None:
        """Generator step, discriminator step and, every so often, R1."""
        self.only(self.G)
        generator_loss(self.judge(self.pipe(self.generate()))).mean().backward()
        self.optimizer_G.step()
        self.only(self.D)
        with torch.no_grad():
            fake = self.generate()
        both = self.pipe(torch.stack([fake, self.real], dim=1).flatten(0, 1))  # keeps minibatch-std groups apart
        logits = self.judge(both).view(self.batch, 2, 1)
        discriminator_loss(logits[:, 1], logits[:, 0]).mean().backward()
        self.optimizer_D.step()
        if with_r1:
            self.only(self.D)
            real = self.real.clone().requires_grad_()
            (r1_penalty(real, self.judge(self.pipe(real))).mean() * (R1_INTERVAL / 2)).backward()
            self.optimizer_D.step()

    def only(self, network: torch.nn.Module) -> None:
        """Let one network have gradients, and forget those of before."""
        for module in (self.G, self.D):
            module.zero_grad(set_to_none=True)
            module.requires_grad_(module is network)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def without_gradient(function: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(function)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--channel-base", type=int, default=1024)
    parser.add_argument("--channel-max", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4, help="measurements of each part")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of the fast side")
    parser.add_argument("--p", type=float, default=0.0, help="strength of the medical augmentation, on both sides")
    options = parser.parse_args()

    set_threads(options.threads)
    precision = resolve_precision(options.precision, "cpu")
    print(f"{processor_name()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    print(
        f"{options.resolution}², batch {options.batch}, channel base {options.channel_base}; fast side in {precision}"
    )
    sides = Side(options, True, precision), Side(options, False, precision)
    parts: dict[str, Callable[[Side], Callable[[], object]]] = {
        "generator forward": lambda side: without_gradient(side.generate),
        "discriminator forward": lambda side: without_gradient(lambda: side.judge(side.real)),
        "training iteration": lambda side: lambda: side.iteration(with_r1=False),
        "with R1": lambda side: lambda: side.iteration(with_r1=True),
    }
    times: dict[tuple[str, bool], list[float]] = {(name, side.fast): [] for name in parts for side in sides}
    for round_ in range(options.rounds + 1):  # the first warms up
        for name, part in parts.items():
            for side in sides:
                duration = seconds(part(side))
                if round_:
                    times[name, side.fast].append(duration)
    middle = {key: statistics.median(values) for key, values in times.items()}
    for name in parts:
        a, b = middle[name, True], middle[name, False]
        print(f"{name:24s} {a * 1e3:8.1f} ms   plain fp32 {b * 1e3:8.1f} ms   ratio {b / a:5.2f}")
    images = R1_INTERVAL * options.batch
    rates = [
        images / ((R1_INTERVAL - 1) * middle["training iteration", f] + middle["with R1", f]) for f in (True, False)
    ]
    print(f"training: {rates[0]:.1f} images/s, plain fp32 {rates[1]:.1f} images/s, ratio {rates[0] / rates[1]:.2f}")


if __name__ == "__main__":
    main()
