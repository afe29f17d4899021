"""The generator of a run or of a weight file, and what its pixels mean."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.machine.checkpoint import latest_checkpoint, load_checkpoint
from medseg_gan.machine.device import resolve_device
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.running.plain_yaml import read_yaml
from medseg_gan.weights.assembly import build_discriminator
from medseg_gan.weights.files import load_network_pkl
from medseg_gan.weights.pickles import RefusedError
from stylegan2_ada_pytorch import Discriminator, Generator

GENERATOR = "*-train_gan/G_ema.pt"


@dataclass(frozen=True)
class SliceGeometry:
    """How a run's slices were made from volumes.

    Attributes:
        window: HU at -1 and 1.
        spacing: median mm of a row step, a column step and the slice thickness of what the GAN was trained on.
        crop: centred share of the field of view that was kept.
        resampled: in-plane mm resampled to before; None for each scan's own.
    """

    window: tuple[float, float]
    spacing: tuple[float, float, float]
    crop: float
    resampled: float | None


@dataclass(frozen=True)
class Source:
    """A generator, ready to draw.

    Attributes:
        path: its file.
        G: in evaluation mode, on `device`.
        D: the discriminator in the same file, if there is one.
        sha256: of the file.
        device: `cpu` or `cuda`.
        slices: of a run; None for a weight file on its own.
        run_seed: of a run; 0 for a file.
    """

    path: Path
    G: Generator
    D: Discriminator | None
    sha256: str
    device: str
    slices: SliceGeometry | None
    run_seed: int

    @property
    def latent_seed(self) -> int:
        """Seed from which the run's label factory draws its latents."""
        return mix_seed(self.run_seed, "latents")

    def identity(self) -> dict[str, Any]:
        """What a manifest says of it; no folder, which may name a person."""
        image = [self.G.img_channels, self.G.img_resolution, self.G.img_resolution]
        return {"file": self.path.name, "sha256": self.sha256, "image": image, "classes": self.G.c_dim}


def open_source(given: str | Path, device: str = "auto") -> Source:
    """Open a generator.

    Args:
        given: a run folder with a finished `train_gan`, or a file: the `G_ema.pt` of a run, a file of
            `medseg-gan import-weights`, an official `network.pkl`, a `.pt` of rosinality's stylegan2-pytorch.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        MedsegError: the file is not usable or holds no generator.
        UsageError: the folder is no run with a StyleGAN2 generator.
    """
    place, where = resolve_device(device), Path(given).expanduser()
    path, geometry, run_seed = where, None, 0
    if where.is_dir():
        path = generator_of(where)
        prepare, run_seed = settings_of(where)
        geometry = geometry_of(where, prepare)
    networks = load_network_pkl(path)
    G, D = networks.get("G_ema") or networks.get("G"), networks.get("D")
    if not isinstance(G, Generator):
        raise MedsegError(f"{path} has no generator, only {', '.join(networks)}; wanted G_ema or G")
    assert D is None or isinstance(D, Discriminator)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(path, G.to(place), None if D is None else D.to(place), sha256, place, geometry, run_seed)


def generator_of(run: Path) -> Path:
    """The averaged generator of a run folder.

    Raises:
        UsageError: there is none.
    """
    if not (run / "recipe.yaml").is_file():
        raise UsageError(f"{run} is not a run folder: it has no recipe.yaml; give a run folder or a weight file")
    found = sorted(run.glob(GENERATOR))
    if not found:
        raise UsageError(
            f"{run} has no finished StyleGAN2 generator ({GENERATOR}); run its recipe until train_gan is done, or give "
            "a run of segthor_datasetgan"
        )
    return found[0]


def settings_of(run: Path) -> tuple[dict[str, Any], int]:
    """Section `prepare` and the seed of a run, as plain values."""
    recipe = read_yaml(run / "recipe.yaml", str(run / "recipe.yaml"))
    prepare, own = recipe.get("prepare"), recipe.get("run")
    seed = own.get("seed", 0) if isinstance(own, dict) else 0
    return prepare if isinstance(prepare, dict) else {}, seed if isinstance(seed, int) else 0


def geometry_of(run: Path, prepare: dict[str, Any]) -> SliceGeometry | None:
    """How a run's slices were made; None where its slice store is gone."""
    stores = sorted(run.glob("*-prepare/cases.json"))
    if not stores:
        return None
    store = SliceStore.open(stores[0].parent)
    resampled = prepare.get("spacing")
    return SliceGeometry(
        window=store.window,
        spacing=store.typical_spacing(),
        crop=float(prepare.get("crop") or 1.0),
        resampled=None if resampled is None else float(resampled),
    )


def discriminator_of(source: Source) -> Discriminator:
    """The discriminator that was trained with a generator: of the same file, or of the training's last checkpoint.

    Raises:
        MedsegError: there is none.
    """
    if source.D is not None:
        return source.D
    checkpoint = latest_checkpoint(source.path.parent)
    tensors = load_checkpoint(checkpoint).get("D") if checkpoint else None
    if not isinstance(tensors, dict):
        raise MedsegError(
            f"{source.path} comes without a discriminator; wanted D in the same file or a checkpoint beside it; "
            "use --features random"
        )
    try:
        D = build_discriminator(tensors, None, conv_clamp=None)
    except RefusedError as error:
        raise MedsegError(f"{checkpoint}: its D is not usable ({error}); use --features random") from error
    return D.to(source.device)
