"""StyleGAN2-ADA speed: our networks and training step against their plain definition in fp32, side by side in one run.

    python benchmarks/stylegan2.py                      # the table: three sizes, some minutes on two cores
    python benchmarks/stylegan2.py --size 64-small      # one size, half a minute
    python benchmarks/stylegan2.py --precision bf16 --rounds 12

Both sides hold the same weights and do the same: a whole training iteration has generator, discriminator, a fourth of
a path length step and a sixteenth of an R1 step, all through the `medical` augmentation at p 0.4, optimisers and
averaged weights included. The plain side (tests/third_party) inserts zeros, filters and scales as the definition says,
in NCHW. Rounds alternate between the sides, so a busy machine slows both; ratios carry from one machine to the next
better than times do.

The deviation is the largest difference from the plain side over its standard deviation: of images or logits, and for an
iteration of the gradients of its four losses, the worst tensor of each. In fp32 a few of millions of values fall on
the other side of a leaky ReLU's kink, whatever the order of sums, and each moves all gradients before it; the norm of
the difference over that of the gradients says how little.

Aims: six times as fast forward and three times as fast an iteration where the processor has AMX, three and two times
where it has AVX512-bf16 alone; other processors have none.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "third_party"), str(ROOT / "tests" / "third_party")]

import stylegan2_augment_reference as plain_augment  # noqa: E402
import stylegan2_reference as plain  # noqa: E402

from medseg_gan.machine.device import autocast, processor_name, resolve_precision, set_threads  # noqa: E402
from medseg_gan.machine.memory import keep_freed_memory  # noqa: E402
from medseg_gan.machine.seeding import seed_step  # noqa: E402
from medseg_gan.training.ema import update_ema  # noqa: E402
from medseg_gan.training.stylegan2_config import StyleGAN2Training  # noqa: E402
from medseg_gan.training.stylegan2_step import StyleGAN2Step  # noqa: E402
from stylegan2_ada_pytorch import lazy_adam  # noqa: E402


@dataclass(frozen=True)
class Size:
    """Networks to measure, and how often."""

    resolution: int
    channel_base: int
    channel_max: int
    latent: int
    batch: int
    rounds: int


SIZES = {
    "64-small": Size(64, 2048, 64, 128, 8, 5),
    "64-large": Size(64, 4096, 512, 512, 8, 3),
    "256": Size(256, 16384, 512, 512, 4, 1),
}
SEED = 7
P = 0.4
FP32_BOUND = 1e-4


def build(size: Size, precision: str) -> StyleGAN2Step:
    """Our training step at the official settings; every build has the same weights."""
    section = StyleGAN2Training(
        batch_size=size.batch,
        z_dim=size.latent,
        w_dim=size.latent,
        channel_base=size.channel_base,
        channel_max=size.channel_max,
        ada="fixed",
        fixed_p=P,
        r1_gamma=0.8192,
    )
    section = section.model_copy(update={"lr": 0.0})  # the optimisers do all their work; the weights stay as they are
    step = StyleGAN2Step(section, resolution=size.resolution, channels=1, seed=0, device="cpu", precision=precision)
    for name, parameter in step.G.named_parameters():  # noise that does nothing would not show a wrong gradient
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.1)
    return step


def smooth_images(size: Size) -> Tensor:
    """`(B, 1, R, R)` images of blobs in [-1, 1]."""
    noise = torch.randn(size.batch, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    shape = (size.resolution, size.resolution)
    return nn.functional.interpolate(noise, shape, mode="bicubic", align_corners=False).clamp(-1, 1)


class PlainStep:
    """The same iteration from the plain definition, with weights copied from our step, drawing the same numbers."""

    def __init__(self, step: StyleGAN2Step) -> None:
        self.settings, self.resolution = step.settings, step.G.img_resolution
        self.G, self.D, self.G_ema = (plain_copy(network) for network in (step.G, step.D, step.G_ema))
        self.pipe = copy.deepcopy(step.pipe)
        s = self.settings
        self.G_optimizer = torch.optim.Adam(self.G.parameters(), **lazy_adam(s.lr, interval=s.pl_interval))
        self.D_optimizer = torch.optim.Adam(self.D.parameters(), **lazy_adam(s.lr, interval=s.r1_interval))
        self.pl_mean = torch.zeros(())

    def map(self, z: Tensor) -> Tensor:
        return plain.mapping(plain.tensors_of(self.G), z)[:, None].repeat(1, self.G.num_ws, 1)

    def synthesize(self, ws: Tensor, noise_mode: str = "random") -> Tensor:
        return plain.synthesis(plain.tensors_of(self.G), ws, self.resolution, noise_mode=noise_mode)[0]

    def discriminate(self, images: Tensor) -> Tensor:
        return plain.discriminator(plain.tensors_of(self.D), images, group=self.settings.mbstd_group)

    def augment(self, images: Tensor) -> Tensor:
        return plain_augment.augment(images, self.pipe.draw(images))

    def generate(self, number: int) -> tuple[Tensor, Tensor]:
        ws = self.map(torch.randn(number, self.settings.z_dim))
        if torch.rand(()).item() < self.settings.style_mixing_prob:
            cutoff = int(torch.randint(1, self.G.num_ws, ()))
            other = self.map(torch.randn(number, self.settings.z_dim))
            ws = torch.cat([ws[:, :cutoff], other[:, cutoff:]], dim=1)
        return self.synthesize(ws), ws

    def g_main(self, real: Tensor) -> Tensor:
        fake, _ = self.generate(len(real))
        return nn.functional.softplus(-self.discriminate(self.augment(fake))).mean()

    def g_reg(self, real: Tensor) -> Tensor:
        fake, ws = self.generate(max(len(real) // 2, 1))
        noise = torch.randn_like(fake) / (fake.shape[2] * fake.shape[3]) ** 0.5
        (slope,) = torch.autograd.grad((fake * noise).sum(), ws, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        mean = self.pl_mean + 0.01 * (lengths.mean() - self.pl_mean)
        self.pl_mean = mean.detach()
        return (lengths - mean).square().mean() * (self.settings.pl_weight * self.settings.pl_interval)

    def d_main(self, real: Tensor) -> Tensor:
        with torch.no_grad():
            fake, _ = self.generate(len(real))
        parameters = self.pipe.draw(torch.stack([fake, real], dim=1).flatten(0, 1))
        fake, real = (
            plain_augment.augment(images, {name: value[k::2] for name, value in parameters.items()})
            for k, images in enumerate((fake, real))
        )
        softplus = nn.functional.softplus
        return softplus(self.discriminate(fake)).mean() + softplus(-self.discriminate(real)).mean()

    def d_reg(self, real: Tensor) -> Tensor:
        real = real.clone().requires_grad_()
        logits = self.discriminate(self.augment(real))
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        penalty = slope.square().sum((1, 2, 3)).mean()
        return penalty * (self.settings.r1_gamma / 2 * self.settings.r1_interval)

    def update(self, phase: str, real: Tensor) -> None:
        mine, optimizer = (self.G, self.G_optimizer) if phase.startswith("g") else (self.D, self.D_optimizer)
        mine.requires_grad_(True)
        getattr(self, phase)(real).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mine.requires_grad_(False)

    @torch.no_grad()
    def average(self) -> None:
        for average, weight in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
            average.copy_(weight.lerp(average, 0.999))


def plain_copy(network: nn.Module) -> nn.Module:
    """A copy in the default memory format."""
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


Parts = dict[str, Callable[[], object]]


class Pair:
    """One of our steps beside the plain one, on the same images."""

    def __init__(self, size: Size, precision: str) -> None:
        self.step, self.precision = build(size, precision), precision
        self.plain = PlainStep(self.step)
        self.real = smooth_images(size)
        self.z = torch.randn(size.batch, size.latent, generator=torch.Generator().manual_seed(2))

    def forward(self) -> tuple[Parts, Parts]:
        """Generator and discriminator without gradients, on either side."""

        def generate() -> Tensor:
            with torch.no_grad(), autocast("cpu", self.precision):
                return self.step.G(self.z, noise_mode="const")

        def generate_plainly() -> Tensor:
            with torch.no_grad():
                return self.plain.synthesize(self.plain.map(self.z), "const")

        ours = {"generator": generate, "discriminator": torch.no_grad()(lambda: self.step.discriminate(self.real))}
        theirs = {
            "generator": generate_plainly,
            "discriminator": torch.no_grad()(lambda: self.plain.discriminate(self.real)),
        }
        return ours, theirs

    def phases(self) -> tuple[Parts, Parts]:
        """What an iteration consists of: the step without lazy regularisers, and each of these, on either side."""

        def our_step() -> None:
            seed_step(SEED)
            self.step.update(self.step.G_optimizer, self.step.g_main, self.real)
            self.step.update(self.step.D_optimizer, self.step.d_main, self.real)
            update_ema(self.step.G_ema, self.step.G, len(self.real), 1000, 5.0, None)

        def plain_step() -> None:
            seed_step(SEED)
            self.plain.update("g_main", self.real)
            self.plain.update("d_main", self.real)
            self.plain.average()

        def our_phase(phase: str, optimizer: torch.optim.Optimizer) -> None:
            seed_step(SEED)
            self.step.pl_mean.zero_()
            self.step.update(optimizer, getattr(self.step, phase), self.real)

        def plain_phase(phase: str) -> None:
            seed_step(SEED)
            self.plain.pl_mean = torch.zeros(())
            self.plain.update(phase, self.real)

        ours: Parts = {"main": our_step}
        theirs: Parts = {"main": plain_step}
        for phase, optimizer in (("g_reg", self.step.G_optimizer), ("d_reg", self.step.D_optimizer)):
            ours[phase] = partial(our_phase, phase, optimizer)
            theirs[phase] = partial(plain_phase, phase)
        return ours, theirs

    def forward_deviations(self) -> dict[str, float]:
        ours, theirs = self.forward()
        return {name: deviation(ours[name](), theirs[name]()) for name in ours}  # type: ignore[arg-type]

    def watch_gradients(self) -> "Gradients":
        """Take note of all gradients from now on, as the optimisers get them."""
        ours, theirs = self.step, self.plain
        return Gradients(
            [(ours.G, ours.G_optimizer), (ours.D, ours.D_optimizer)],
            [(theirs.G, theirs.G_optimizer), (theirs.D, theirs.D_optimizer)],
        )


class Gradients:
    """Gradients of the four losses as the optimisers of two sides get them, in the order of the phases."""

    def __init__(self, *sides: list[tuple[nn.Module, torch.optim.Optimizer]]) -> None:
        self.seen: list[list[dict[str, Tensor]]] = [[] for _ in sides]
        self.hooks = [
            optimizer.register_step_pre_hook(partial(self.note, seen, network))
            for seen, side in zip(self.seen, sides, strict=True)
            for network, optimizer in side
        ]

    @staticmethod
    def note(seen: list[dict[str, Tensor]], network: nn.Module, *_: object) -> None:
        seen.append({n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None})

    def deviations(self) -> tuple[float, float]:
        """Largest difference of an entry, over the deviation of its tensor; and norm of the difference over the norm.

        Both of the worst loss; ends the watch.
        """
        for hook in self.hooks:
            hook.remove()
        worst, norm = 0.0, 0.0
        for got, wanted in zip(*self.seen, strict=True):
            assert got.keys() == wanted.keys()
            worst = max(worst, *(deviation(got[name], wanted[name]) for name in wanted))
            error = sum((got[name] - wanted[name]).double().square().sum().item() for name in wanted)
            norm = max(norm, (error / sum(value.double().square().sum().item() for value in wanted.values())) ** 0.5)
        return worst, norm


def deviation(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the deviation of what is wanted; of few values, over their size."""
    scale = wanted.std() if wanted.numel() > 8 else wanted.square().mean().sqrt()
    return ((got - wanted).abs().max() / scale.clamp(min=1e-12)).item()


def medians(ours: Parts, theirs: Parts, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Name, our and the plain median seconds of each part, from alternating rounds."""
    times: dict[tuple[str, bool], list[float]] = {}
    for round_ in range(rounds):
        for name in ours:
            for fast in (True, False) if round_ % 2 else (False, True):
                start = time.perf_counter()
                (ours if fast else theirs)[name]()
                times.setdefault((name, fast), []).append(time.perf_counter() - start)
    for name in ours:
        yield name, statistics.median(times[name, True]), statistics.median(times[name, False])


def aims() -> dict[str, float]:
    """Ratios to reach on this processor."""
    name = processor_name()
    if "amx_bf16" in name:
        return {"forward": 6.0, "iteration": 3.0}
    return {"forward": 3.0, "iteration": 2.0} if "avx512_bf16" in name else {}


def measure(label: str, size: Size, precision: str, rounds: int) -> None:
    """Print the lines of one size and precision."""
    pair = Pair(size, precision)
    forward = pair.forward_deviations()  # warms both sides up as well
    for name, ours, theirs in medians(*pair.forward(), 2 * rounds):
        largest = f"{forward[name]:.1e} {verdict(forward[name] <= FP32_BOUND, precision == 'fp32')}"
        print_line(label, precision, f"{name} forward", ours, theirs, aims().get("forward"), largest)
    settings = pair.step.settings
    weights = {"main": 1.0, "g_reg": 1 / settings.pl_interval, "d_reg": 1 / settings.r1_interval}
    gradients = pair.watch_gradients()
    ours_and_theirs = pair.phases()
    first = {name: times for name, *times in medians(*ours_and_theirs, 1)}
    worst, norm = gradients.deviations()
    if rounds > 1:
        first = {name: times for name, *times in medians(*ours_and_theirs, rounds)}
    ours, theirs = (sum(weights[name] * times[side] for name, times in first.items()) for side in (0, 1))
    largest = f"{worst:.1e} {verdict(worst <= FP32_BOUND, precision == 'fp32')} (norm {norm:.1e})"
    print_line(label, precision, "training iteration", ours, theirs, aims().get("iteration"), largest)


def verdict(met: bool, asked: bool = True) -> str:
    return ("met" if met else "not met") if asked else ""


def print_line(
    label: str, precision: str, part: str, ours: float, theirs: float, aim: float | None, largest: str
) -> None:
    ratio = theirs / ours
    speed = "" if aim is None else f"{verdict(ratio >= aim)} ({aim:g})"
    times = f"{ours * 1e3:9.1f} {theirs * 1e3:9.1f} {ratio:6.2f}"
    print(f"{label:9s} {precision:5s} {part:22s} {times} {speed:12s} {largest}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, action="append", help="measure this size alone; may be repeated")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: fp32, and bf16 where the processor gains by it; bf16: fp32 and bf16",
    )
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--rounds", type=int, help="measurements of each phase (a third of those of a forward pass)")
    options = parser.parse_args()

    set_threads(options.threads)
    keep_freed_memory()
    start = time.perf_counter()
    precision = resolve_precision(options.precision, "cpu")
    print(f"{processor_name()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    print(f"precision {options.precision}: {precision}; augmentation medical at p {P} on both sides")
    heads = f"{'size':9s} {'prec.':5s} {'part':22s} {'ours ms':>9s} {'plain ms':>9s} {'ratio':>6s} {'aim':12s}"
    print(f"{heads} deviation (aim fp32 {FP32_BOUND:g})")
    for label in options.size or SIZES:
        for kind in dict.fromkeys(("fp32", precision)):
            measure(label, SIZES[label], kind, options.rounds or SIZES[label].rounds)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
