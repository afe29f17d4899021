"""Does `torch.compile` pay? One pass through G and D, forward and backward, compiled against eager, side by side.

    python benchmarks/compiled.py      # some minutes; on a CPU it needs a C++ compiler, which the product does not

The product runs eager: see the figures in docs/results.md.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from medseg_gan.machine.device import autocast, processor_name, resolve_device
from stylegan2_ada_pytorch import Discriminator, Generator

NETWORKS = {"64² (1024, 64)": (64, 1024, 64), "64² (4096, 512)": (64, 4096, 512)}
BATCH = 8


def build(resolution: int, channel_base: int, channel_max: int, device: str) -> tuple[Generator, Discriminator]:
    """Networks as the trainings have them."""
    sizes = {"channel_base": channel_base, "channel_max": channel_max}
    G = Generator(128, 0, 128, resolution, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=sizes).train()
    D = Discriminator(0, resolution, 1, **sizes).train()
    for network in (G, D):
        network.to(device).to(memory_format=torch.channels_last)
    return G, D


def seconds(work: Callable[[], None], device: str) -> float:
    """Duration of one call."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(G: Generator, D: Discriminator, precision: str, rounds: int, device: str) -> str:
    """Shortest pass of each, in rounds that alternate, and the time the compilation took."""
    z = torch.randn(BATCH, 128, device=device)

    def a_pass(synthesis: Callable[[Tensor], Tensor], judge: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def work() -> None:
            with autocast(device, precision):
                logits = judge(synthesis(G.mapping(z)))
            logits.float().sum().backward()

        return work

    eager, compiled = a_pass(G.synthesis, D), a_pass(torch.compile(G.synthesis), torch.compile(D))
    eager()
    compilation = seconds(compiled, device)
    times = [(seconds(eager, device), seconds(compiled, device)) for _ in range(rounds)]
    first, second = (min(column) for column in zip(*times, strict=True))
    told = f"eager {1e3 * first:.1f} ms, compiled {1e3 * second:.1f} ms, ratio {first / second:.2f}"
    return f"{told}, compiling took {compilation:.0f} s"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    print(f"{processor_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {device}")
    for name, sizes in NETWORKS.items():
        for precision in ("fp32", "bf16"):
            torch.compiler.reset()
            print(
                f"{name} {precision}: {compare(*build(*sizes, device), precision, options.rounds, device)}", flush=True
            )


if __name__ == "__main__":
    main()
