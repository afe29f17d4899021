"""The files of a run's label factory: a small object that any process can take and open."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.device import resolve_device
from medseg_gan.running.stages import Plan
from medseg_gan.systems.datasetgan.factory import Judge, LabelFactory
from medseg_gan.systems.datasetgan.interpreter.model import load_interpreter
from medseg_gan.systems.datasetgan.quality.stage import load_quality, plain_model
from medseg_gan.systems.datasetgan.samples.images import Sampling
from medseg_gan.training.stylegan2 import load_generator


@dataclass(frozen=True)
class FactoryFiles:
    """A label factory on disk.

    Attributes:
        generator: file of the averaged generator.
        interpreter: folder of the interpreter.
        sampling: how images are drawn.
        weights_sha256: of the generator; what is opened must have it. None where nobody noted it.
        interpreter_sha256: of the interpreter, likewise.
        quality: folders of the stages `synthesize`, `prepare` and `annotate`, whose quality control judges pairs; None
            where there is none.
    """

    generator: Path
    interpreter: Path
    sampling: Sampling
    weights_sha256: str | None = None
    interpreter_sha256: str | None = None
    quality: tuple[Path, Path, Path] | None = None

    def open(self, device: str = "cpu") -> LabelFactory:
        """Load the networks.

        Raises:
            MedsegError: a file is missing, or holds other weights than those noted.
        """
        interpreter = load_interpreter(self.interpreter, device)
        factory = LabelFactory(load_generator(self.generator, device), interpreter, self.sampling, device)
        for noted, found, path in (
            (self.weights_sha256, factory.source.weights_sha256, self.generator),
            (self.interpreter_sha256, factory.interpreter_sha256, self.interpreter),
        ):
            if noted not in (None, found):
                raise MedsegError(
                    f"{path} holds other weights ({found[:8]}) than those that made the run's pairs ({noted[:8]}); "
                    "run the recipe's command again with --rerun synthesize"
                )
        return factory

    def open_judge(self) -> Judge | None:
        """Load the quality control, if there is one."""
        if self.quality is None:
            return None
        folder, prepare, annotation = self.quality
        return load_quality(folder, SliceStore.open(prepare), annotation).judge

    def quality_sha256(self) -> str | None:
        """Hash of the quality model.

        Raises:
            MedsegError: `quality.json` was cut off or edited.
        """
        if self.quality is None:
            return None
        model = plain_model(self.quality[0])
        return hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()


def factory_files(plan: Plan) -> FactoryFiles:
    """The factory of a run as its own pairs were made with it.

    Raises:
        MedsegError: a stage up to `synthesize` is not finished, or its notes were edited.
    """
    names = ("prepare", "train_gan", "annotate", "train_interpreter", "synthesize")
    folders = {name: plan.finished(name) for name in names}
    pairs = folders["synthesize"]
    noted = _noted(pairs)
    judged = (pairs / "quality.json").is_file()  # not in runs of before there was quality control
    try:
        sampling, hashes = Sampling(**noted["sampling"]), (noted["weights_sha256"], noted["interpreter_sha256"])
    except (KeyError, TypeError) as error:
        raise MedsegError(f"{pairs / 'train' / 'sampling.json'} was edited; use --rerun synthesize") from error
    return FactoryFiles(
        folders["train_gan"] / "G_ema.pt",
        folders["train_interpreter"],
        sampling,
        *hashes,
        (pairs, folders["prepare"], folders["annotate"]) if judged else None,
    )


def has_lost_quality(plan: Plan) -> bool:
    """Whether the run's own pairs were judged, but what judged them is gone."""
    pairs = plan.finished("synthesize")
    noted = _noted(pairs)
    return isinstance(noted, dict) and bool(noted.get("judged")) and not (pairs / "quality.json").is_file()


def _noted(pairs: Path) -> Any:
    return read_json(pairs / "train" / "sampling.json")


def open_factory(plan: Plan, device: str = "auto") -> LabelFactory:
    """Open the label factory of a run.

    Raises:
        MedsegError: a stage up to `synthesize` is not finished, or the device is not there.
    """
    return factory_files(plan).open(resolve_device(device))
