"""Pairs per second of the label factory, end to end: where the time goes, one process against two, and memory.

    python benchmarks/factory.py                 # random networks of the recipe's sizes at 64 and 256, some minutes
    python benchmarks/factory.py RUN             # the factory of a finished run as well
    python benchmarks/factory.py --pairs 64=64 256=8 --repeats 1

Every process computes with one thread and writes PNG shards, as `medseg-gan synthesize --to png` does; each number is
the best of the repeats, in which one process and two take turns. Random networks draw noise: their label maps fall into
more pieces than a trained one's, which the quality control counts and PNG has to store.
"""

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import write_json
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.machine.device import processor_name, resolve_precision
from medseg_gan.machine.memory import keep_freed_memory
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.networks.segmenters import build_segmenter
from medseg_gan.systems.datasetgan.interpreter.members import PRESETS, WHOLE_IMAGE
from medseg_gan.systems.datasetgan.production.files import FactoryFiles, factory_files
from medseg_gan.systems.datasetgan.production.shards import Shape, cut_shards, make_shard
from medseg_gan.systems.datasetgan.production.synthesize import SHARD, one_thread
from medseg_gan.systems.datasetgan.quality.stage import learn_quality
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import Sampling
from medseg_gan.systems.plan import open_run
from medseg_gan.training.stylegan2 import save_generator
from stylegan2_ada_pytorch import Generator

TABLE, WINDOW, SPACING = lookup_table("paper"), (-1000.0, 400.0), (1.5, 1.5, 3.0)
SIZES: dict[int, dict[str, Any]] = {  # demo, and the recipe's own settings
    64: {"latent": 128, "channel_base": 1024, "channel_max": 64, "preset": WHOLE_IMAGE, "image_networks": 3},
    256: {"latent": 512, "channel_base": 16384, "channel_max": 512, "preset": PRESETS["seed003"], "image_networks": 0},
}
MEMBERS, REAL_SLICES = 10, 100
PARTS = ("synthesis", "labelling", "quality", "writing")


def random_factory(folder: Path, size: int, precision: str) -> FactoryFiles:
    """A factory of the recipe's size on disk, with the quality control of a run that annotated nothing."""
    how = SIZES[size]
    torch.manual_seed(0)
    channels = {"channel_base": how["channel_base"], "channel_max": how["channel_max"]}
    latent = how["latent"]
    G = Generator(latent, 0, latent, size, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=channels)
    save_generator(folder / "G_ema.pt", G, images_seen=0)
    interpreter, preset = folder / "interpreter", how["preset"]
    classifiers, image_networks = [f"classifier-{k:02d}.pt" for k in range(MEMBERS)], []
    depth = FeatureExtractor(G).depth
    for name in classifiers:
        network = PixelClassifier(depth, preset.hidden, TABLE.num_classes, preset.order)
        save_checkpoint(interpreter / name, network=network)
    for k in range(how["image_networks"]):
        unet = {"name": "unet", "num_classes": TABLE.num_classes, "width": 16}
        where = interpreter / f"image-{k:02d}"
        save_checkpoint(where / "weights-0000001.pt", network=unet, step=1, state=build_segmenter(**unet).state_dict())
        write_json(where / "training.json", {"network": unet, "picked": 1, "checkpoints": [{"step": 1}]})
        image_networks.append(where.name)
    labeller = "average" if image_networks else "features"
    facts = {"variant": "editgan", "labeller": labeller, "vote": "majority", "num_classes": TABLE.num_classes}
    facts |= {"depth": depth, "hidden": list(preset.hidden), "order": preset.order}
    write_json(
        interpreter / "interpreter.json", {**facts, "classifiers": classifiers, "image_networks": image_networks}
    )
    files = FactoryFiles(folder / "G_ema.pt", interpreter, Sampling(seed=0, precision=precision))
    pairs = files.open().label(range(8))
    records = [SliceRecord(f"c{k}", f"p{k % 30}", k, SPACING, None, "gan", True) for k in range(REAL_SLICES)]
    images = np.random.default_rng(0).integers(-1000, 400, (REAL_SLICES, size, size)).astype(np.int16)
    write_store(folder / "prepare", images, None, records, WINDOW, TABLE)
    write_store(folder / "annotate/annotated", images[:8], pairs.labels.numpy(), records[:8], WINDOW, TABLE)
    write_json(folder / "annotate/annotator.json", {"kind": "segmenter", "who": "nobody"})
    store, nothing = SliceStore.open(folder / "prepare"), {"annotated": None, "refit": None}
    learn_quality(folder, files.open(), store, folder / "annotate", folds=0, seed=0, **nothing)  # type: ignore[arg-type]
    places = (folder, folder / "prepare", folder / "annotate")
    return FactoryFiles(files.generator, interpreter, files.sampling, quality=places)


def produce(files: FactoryFiles, out: Path, first: int, num: int, barrier: Any, results: Any) -> None:
    """A process: open the factory, warm up, wait for the others, make `num` pairs from `first` on."""
    keep_freed_memory()
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            spent[name] += time.perf_counter() - start
            return result

        return call

    with one_thread("cpu"):
        factory, judge = files.open(), files.open_judge()
        assert judge is not None
        factory.source.block = timed("synthesis", factory.source.block)  # type: ignore[method-assign]
        factory.interpreter.predict = timed("labelling", factory.interpreter.predict)  # type: ignore[method-assign]
        judge(factory.label(range(factory.source.sampling.block)))
        judge = timed("quality", judge)
        spent.clear()
        shards = cut_shards(first, num, factory.source.sampling.block, SHARD)
        barrier.wait()
        start = time.perf_counter()
        for shard in shards:
            make_shard(out, shard, factory, Shape("png", WINDOW, SPACING), judge)
        seconds = time.perf_counter() - start
    spent["writing"] = seconds - sum(spent.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    results.put({"seconds": seconds, "peak_mb": peak, **spent})


def measure(files: FactoryFiles, scratch: Path, processes: int, num: int) -> dict[str, float]:
    """Make `num` pairs by some processes; the slowest one's time, and the largest one's peak memory."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    each = num // processes
    children = [
        context.Process(target=produce, args=(files, scratch / str(k), k * each, each, barrier, results))
        for k in range(processes)
    ]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    shutil.rmtree(scratch)
    return {name: max(one[name] for one in found) for name in found[0]}


def report(name: str, files: FactoryFiles, scratch: Path, num: int, repeats: int) -> None:
    """Measure a factory and print what was found."""
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, found in runs.items():
            found.append(measure(files, scratch, processes, num))
    best = {processes: min(found, key=lambda one: one["seconds"]) for processes, found in runs.items()}
    rates = {processes: num / one["seconds"] for processes, one in best.items()}
    print(f"\n{name}, {files.sampling.precision}, {num} pairs")
    print(f"  pairs/s, one process {rates[1]:.1f}, two {rates[2]:.1f}: {rates[2] / rates[1]:.2f} times")
    shares = [f"{part} {best[1][part] / best[1]['seconds']:.0%}" for part in PARTS]
    milliseconds = [f"{part} {1000 * best[1][part] / num:.1f}" for part in PARTS]
    print(f"  where one process's time goes: {', '.join(shares)}; ms a pair: {', '.join(milliseconds)}")
    more = measure(files, scratch, 1, 4 * num)
    print(
        f"  peak memory of a process: {best[1]['peak_mb']:.0f} MB for {num} pairs, {more['peak_mb']:.0f} for {4 * num}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run, measured as well")
    parser.add_argument("--pairs", nargs="+", default=["64=192", "256=16"], help="of each size; fewer are quicker")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    precision, start = resolve_precision("auto", "cpu"), time.perf_counter()
    print(f"{processor_name()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as place:
        for text in options.pairs:
            size, num = map(int, text.split("="))
            files = random_factory(Path(place) / str(size), size, precision)
            report(f"{size} x {size}, random networks", files, Path(place) / "out", num, options.repeats)
        if options.run is not None:
            files = factory_files(open_run(options.run))
            num = int(options.pairs[0].split("=")[1])
            report(f"{options.run.name}", files, Path(place) / "out", num, options.repeats)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
