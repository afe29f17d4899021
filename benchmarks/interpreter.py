"""The style interpreter's speed and memory: against the hypercolumn, and ten members together against ten trainings.

    python benchmarks/interpreter.py                    # all of it, some minutes on two cores, 3 GB
    python benchmarks/interpreter.py --part prediction
    python benchmarks/interpreter.py --part training --rounds 5

An untrained generator of 256 x 256 (channel base 16384, at most 512: 14 maps, 4992 values a pixel) and ten classifiers
of the preset `seed003`; times do not depend on what they have learnt.

*Prediction* goes from stored maps at native size to the label map, synthesis apart. The hypercolumn's side computes the
first layers of all classifiers in one product and takes the best tile of a trial; its rows come either from the whole
hypercolumn, or are gathered tile by tile, so that it never exists as a whole. Rounds alternate between the sides, so a
busy machine slows all; ratios carry from one machine to the next better than times do. Peak memory is measured in a
process of its own for each side, beyond what holding maps and classifiers takes.

*Training* counts pixel-vectors times classifiers a second over the maps of 30 images, in fp32 and where the processor
is faster in it in bf16, each against ten separate trainings in the same precision; it reports the most memory that its
process ever held, interpreter of Python, rendering and all.

Aims: prediction 8 times as fast as through the hypercolumn (at least 4) and in a fifth of its memory, labels equal on
99.99 % of pixels; training under 2.5 GB, and twice as fast together.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "third_party"), str(ROOT / "tests" / "systems")]

from one_by_one import fit_pixels  # noqa: E402

from medseg_gan.machine.device import autocast, processor_name, resolve_precision, set_threads  # noqa: E402
from medseg_gan.networks.classifier_stack import ClassifierStack  # noqa: E402
from medseg_gan.networks.interpreter import PixelClassifier  # noqa: E402
from medseg_gan.systems.datasetgan.interpreter.fit_pixels import fit_pixels_together  # noqa: E402
from medseg_gan.systems.datasetgan.interpreter.members import PRESETS  # noqa: E402
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter  # noqa: E402
from medseg_gan.systems.datasetgan.interpreter.tiles import TILE, classify_maps  # noqa: E402
from medseg_gan.systems.datasetgan.interpreter.vote import Ballot  # noqa: E402
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor, gather_pixels, upsample_maps  # noqa: E402
from medseg_gan.systems.datasetgan.samples.images import STORAGES, ImageSource, Rendered, Sampling  # noqa: E402
from stylegan2_ada_pytorch import Generator  # noqa: E402

RESOLUTION = 256
MEMBERS = 10
NUM_CLASSES = 6
PRESET = PRESETS["seed003"]
IMAGES = 30
BATCH = 64
STEPS = 100
"""Training steps of each round."""

TILES = (1024, 4096, 16384)
"""Pixels of a tile to try through the hypercolumn."""

EDGES = (32, 64, 128)
"""Edges of a tile to try of our own."""

SHARE = 8
"""A trial of a tile goes through this part of the pixels."""


def build_source(block: int = 8) -> ImageSource:
    """An untrained generator whose noise does something."""
    torch.manual_seed(0)
    sizes = {"channel_base": 16384, "channel_max": 512}
    G = Generator(512, 0, 512, RESOLUTION, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=sizes)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.1)
    return ImageSource(FeatureExtractor(G), Sampling(seed=1, block=block))


def build_classifiers() -> list[PixelClassifier]:
    """Classifiers whose batch norms are not the identity."""
    torch.manual_seed(1)
    classifiers = [PixelClassifier(4992, PRESET.hidden, NUM_CLASSES, PRESET.order, PRESET.init) for _ in range(MEMBERS)]
    for classifier in classifiers:
        for module in classifier.modules():
            if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
                module.running_mean.normal_()
                nn.init.normal_(module.bias)
                nn.init.uniform_(module.weight, 0.5, 2)
    return [classifier.eval() for classifier in classifiers]


def whole_hypercolumn(maps: list[Tensor]) -> Callable[[slice], Tensor]:
    """Rows `(P, D)` out of the hypercolumn, which is built once."""
    rows = upsample_maps(maps, RESOLUTION)[0].flatten(1).t()
    return lambda pixels: rows[pixels]


def tiled_hypercolumn(maps: list[Tensor]) -> Callable[[slice], Tensor]:
    """Rows `(P, D)` gathered when they are asked for."""
    return lambda pixels: gather_pixels(maps, torch.arange(RESOLUTION**2)[pixels], RESOLUTION)


@torch.no_grad()
def by_hypercolumn(
    build: Callable[[list[Tensor]], Callable[[slice], Tensor]],
    classifiers: list[PixelClassifier],
    maps: list[Tensor],
    tile: int,
    pixels: int = RESOLUTION**2,
) -> Tensor:
    """Labels `(1, R, R)` from feature vectors, the first layers of all classifiers in one product."""
    weight = torch.cat([classifier.first.weight for classifier in classifiers])
    bias = torch.cat([classifier.first.bias for classifier in classifiers])
    rows_at = build(maps)
    probs = torch.zeros(len(classifiers), NUM_CLASSES, RESOLUTION**2)
    for start in range(0, pixels, tile):
        here = slice(start, start + tile)
        hidden = functional.linear(rows_at(here), weight, bias).chunk(len(classifiers), dim=1)
        for classifier, part, out in zip(classifiers, hidden, probs, strict=True):
            out[:, here] = classifier.rest(part).softmax(1).t()
    ballot = Ballot()
    for one in probs.unflatten(2, (RESOLUTION, RESOLUTION)):
        ballot.add(one[None])
    ballot.uncertainty()  # as our side does
    return ballot.label("majority")


def seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times of each call, in rounds that go through all of them, every second one backwards."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            times[name].append(seconds(calls[name]))
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> str:
    """Median of the ratios round by round, and their range."""
    ratios = [a / b for a, b in zip(times[slow], times[fast], strict=True)]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def memory(field: str) -> int:
    """Bytes that Linux says this process holds (`VmRSS`) or held at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def peak_beyond(call: Callable[[], object]) -> int:
    """Most bytes held during a call beyond those before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    call()
    return memory("VmHWM") - before


def in_own_process(options: argparse.Namespace, part: str, **settings: Any) -> Any:
    """Result of one part of this program in a process of its own."""
    command = [sys.executable, __file__, "--inner", json.dumps({"part": part, **settings})]
    command += ["--threads", str(options.threads), "--rounds", str(options.rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    *lines, result = done.stdout.splitlines()
    if lines:
        print("\n".join(lines), flush=True)
    return json.loads(result)


def prediction(options: argparse.Namespace) -> None:
    """Print times, memory and labels of all sides."""
    source = build_source(block=1)
    source.render(range(1))
    print(f"synthesis of one image with its maps: {seconds(lambda: source.render(range(1, 2))):.2f} s", flush=True)
    rendered = source.render(range(1))
    maps, classifiers = rendered.maps, build_classifiers()
    interpreter = Interpreter(classifiers)

    edges = {edge: seconds(lambda edge=edge: classify_maps(classifiers, maps, RESOLUTION, edge)) for edge in EDGES}
    print(f"our tiles, s by edge ({TILE['cpu']} is used): " + ", ".join(f"{e} {t:.2f}" for e, t in edges.items()))
    builds = {"whole": whole_hypercolumn, "tiled": tiled_hypercolumn}
    best: dict[str, int] = {}
    for name, build in builds.items():
        trials = {
            tile: seconds(lambda build=build, tile=tile: by_hypercolumn(build, classifiers, maps, tile, 65536 // SHARE))
            for tile in TILES
        }
        best[name] = min(trials, key=lambda tile: trials[tile])
        texts = ", ".join(f"{tile} {elapsed:.2f}" for tile, elapsed in trials.items())
        print(f"hypercolumn {name}, s by pixels of a tile, an eighth of the image: {texts}", flush=True)

    labels: dict[str, Tensor] = {}

    def ours() -> None:
        labels["ours"] = interpreter.predict(rendered.images, maps).labels

    def theirs(name: str) -> Callable[[], None]:
        def call() -> None:
            labels[name] = by_hypercolumn(builds[name], classifiers, maps, best[name])

        return call

    calls: dict[str, Callable[[], object]] = {"ours": ours, **{name: theirs(name) for name in builds}}
    times = alternate(calls, options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "maps.pt"
        torch.save([rendered.images, *maps], path)
        tiles = {"ours": 0, **best}
        peaks = {side: in_own_process(options, "peak", side=side, path=str(path), tile=tiles[side]) for side in calls}
    print(f"{'side':18s} {'median s':>9s} {'best s':>7s} {'peak MB':>8s}  ours is faster by   memory  labels equal")
    for name, values in times.items():
        side = name if name == "ours" else f"hypercolumn {name}"
        text = f"{side:18s} {statistics.median(values):9.2f} {min(values):7.2f} {peaks[name] / 1e6:8.0f}"
        if name != "ours":
            same = 100 * float((labels[name] == labels["ours"]).float().mean())
            text += f"  {ratio(times, name, 'ours'):18s}  {peaks[name] / peaks['ours']:6.1f}  {same:.4f} %"
        print(text, flush=True)
    counts = torch.bincount(labels["ours"].flatten(), minlength=NUM_CLASSES).tolist()
    print(f"labels of the image by class: {counts}")


def peak(side: str, path: str, tile: int) -> int:
    """Most bytes that a prediction holds beyond maps and classifiers."""
    images, *maps = (part.contiguous(memory_format=torch.channels_last) for part in torch.load(path, weights_only=True))
    classifiers = build_classifiers()
    interpreter = Interpreter(classifiers)
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # what the first product sets up
    if side == "ours":
        return peak_beyond(lambda: interpreter.predict(images, maps))
    build = whole_hypercolumn if side == "whole" else tiled_hypercolumn
    return peak_beyond(lambda: by_hypercolumn(build, classifiers, maps, tile, 2 * tile))  # further tiles add nothing


def training(options: argparse.Namespace, storage: str = "auto") -> float:
    """Print throughput and parts; returns the most bytes that this process held until then."""
    started = memory("VmRSS")
    source = build_source()
    rendered = source.render(range(IMAGES), storage)
    after_rendering = memory("VmHWM")
    del source
    maps = rendered.maps
    held = sum(part.numel() * part.element_size() for part in maps)
    labels = sparse_labels(rendered)
    classifiers = dict(enumerate(build_classifiers()))
    fit_pixels_together(classifiers, maps, labels, seed=(0,), lr=PRESET.lr, max_epochs=1, early_stop=False)
    peak_of_training = memory("VmHWM")
    print(
        f"peak memory of the process: {after_rendering / 1e9:.2f} GB after rendering {IMAGES} images, "
        f"{peak_of_training / 1e9:.2f} GB after training {MEMBERS} classifiers together "
        f"(maps {held / 1e9:.2f} GB, the largest in {str(maps[-1].dtype)[6:]}, {started / 1e9:.2f} GB before any work)",
        flush=True,
    )
    for precision in ("fp32", "bf16") if resolve_precision("auto", "cpu") == "bf16" else ("fp32",):
        throughput(maps, labels, classifiers, precision, options.rounds)
    return peak_of_training


def throughput(
    maps: list[Tensor], labels: Tensor, classifiers: dict[int, PixelClassifier], precision: str, rounds: int
) -> None:
    """Print vectors times classifiers a second of separate and joint trainings, and what a step consists of."""
    how: dict[str, Any] = {"lr": PRESET.lr, "max_epochs": 1, "batch": BATCH, "early_stop": False}
    how["precision"] = precision

    def separately() -> None:
        for number, classifier in classifiers.items():
            fit_pixels(classifier, maps, labels, seed=(0, number), **how)

    def together(shared: bool) -> Callable[[], object]:
        return lambda: fit_pixels_together(classifiers, maps, labels, seed=(0,), shared_batches=shared, **how)

    calls = {"separately": separately, "together": together(False), "on shared pixels": together(True)}
    times = alternate(calls, rounds)
    vectors = STEPS * BATCH * MEMBERS
    parts = {
        "separately": parts_alone(maps, classifiers[0], precision),
        "together": parts_together(maps, classifiers, precision),
    }
    print(f"{f'ten classifiers, {precision}':22s} {'vectors x classifiers/s':>24s}  ratio to separately")
    for name, values in times.items():
        print(f"{name:22s} {vectors / statistics.median(values):24.0f}  {ratio(times, 'separately', name)}")
    for name, part in parts.items():
        texts = ", ".join(f"{what} {1e6 * value:.1f}" for what, value in part.items())
        print(f"parts, µs a vector and classifier, {name}: {texts}", flush=True)


def sparse_labels(rendered: Rendered) -> Tensor:
    """Labels of so many pixels over all images that an epoch has `STEPS` steps; the others are unlabelled."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.full((IMAGES, RESOLUTION, RESOLUTION), 255, dtype=torch.uint8)
    chosen = torch.randperm(labels.numel(), generator=generator)[: STEPS * BATCH]
    labels.view(-1)[chosen] = torch.randint(NUM_CLASSES, (len(chosen),), generator=generator).to(torch.uint8)
    return labels


def draw_pixels(count: int) -> Iterator[Tensor]:
    """New pixels of all images each time."""
    generator = torch.Generator().manual_seed(4)
    while True:
        yield torch.randint(IMAGES * RESOLUTION**2, (count,), generator=generator)


def parts_alone(maps: list[Tensor], classifier: PixelClassifier, precision: str) -> dict[str, float]:
    """Median seconds a vector of what a step of `fit_pixels` consists of."""
    optimizer = torch.optim.Adam(classifier.parameters(), lr=PRESET.lr)
    classifier.train()
    target = torch.arange(BATCH) % NUM_CLASSES

    def products(rows: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast("cpu", precision):
            logits = classifier(rows)
        functional.cross_entropy(logits.float(), target).backward()

    return measure_parts(maps, BATCH, lambda rows: rows, products, optimizer)


def parts_together(maps: list[Tensor], classifiers: dict[int, PixelClassifier], precision: str) -> dict[str, float]:
    """Median seconds a vector and classifier of what a step of `fit_pixels_together` consists of."""
    stack = ClassifierStack(list(classifiers.values()))
    optimizer = torch.optim.Adam(stack.parameters.values(), lr=PRESET.lr, fused=True)
    target = (torch.arange(BATCH) % NUM_CLASSES).expand(MEMBERS, -1)

    def products(rows: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast("cpu", precision):
            logits = stack(rows)
        functional.cross_entropy(logits.float().transpose(1, 2), target).backward()

    return measure_parts(maps, MEMBERS * BATCH, lambda rows: rows.unflatten(0, (MEMBERS, BATCH)), products, optimizer)


def measure_parts(
    maps: list[Tensor],
    vectors: int,
    shape: Callable[[Tensor], Tensor],
    products: Callable[[Tensor], None],
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    """Median seconds a vector of gather, matrix products (forward and backward) and Adam."""
    times: dict[str, list[float]] = {"gather": [], "matrix products": [], "Adam": []}
    for pixels, _ in zip(draw_pixels(vectors), range(STEPS), strict=False):
        start = time.perf_counter()
        rows = shape(gather_pixels(maps, pixels, RESOLUTION))
        gathered = time.perf_counter()
        products(rows)
        multiplied = time.perf_counter()
        optimizer.step()
        end = time.perf_counter()
        for name, value in zip(times, (gathered - start, multiplied - gathered, end - multiplied), strict=True):
            times[name].append(value / vectors)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("prediction", "training"), action="append", help="only this; both if absent")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    parser.add_argument("--storage", choices=STORAGES, default="auto", help="of the maps in training")
    parser.add_argument("--inner", help=argparse.SUPPRESS)  # a part in a process of its own
    options = parser.parse_args()
    set_threads(options.threads)
    if options.inner:
        settings = json.loads(options.inner)
        part = settings.pop("part")
        print(json.dumps(peak(**settings) if part == "peak" else training(options, **settings)))
        return
    start = time.perf_counter()
    print(f"{processor_name()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)", flush=True)
    parts = options.part or ["prediction", "training"]
    if "prediction" in parts:
        prediction(options)
    if "training" in parts:
        in_own_process(options, "training", storage=options.storage)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
