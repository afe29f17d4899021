"""The style interpreter: an ensemble that labels generated images from the generator's features (DatasetGAN, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.checkpoint import restore
from medseg_gan.networks.interpreter import JointSegmenter, PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.calibration import Calibration
from medseg_gan.systems.datasetgan.interpreter.tiles import classify_maps
from medseg_gan.systems.datasetgan.interpreter.vote import Ballot, image_score
from medseg_gan.systems.datasetgan.samples.features import project_maps
from medseg_gan.training.segmenter import load_segmenter

LABELLERS = ("features", "image", "average", "joint")

_NAMED = ("classifiers", "image_networks", "variant", "labeller", "vote", "depth", "hidden", "order", "num_classes")
"""What `interpreter.json` has to say."""


@dataclass(frozen=True)
class Prediction:
    """Labels of generated images.

    Attributes:
        labels: `(N, R, R)` uint8.
        uncertainty: `(N, R, R)` float32 Jensen-Shannon divergence of the members, nats.
        scores: `(N,)` float32, mean of the 10 % most uncertain pixels.
        doubt: `(N, K)` float32, expected share of wrong pixels by the class they were given, see `Ballot.doubt`.
        confidence: `(N, K)` float32, mean probability of the class given over the pixels of each class; NaN without
            such pixels. Calibrated where the interpreter is.
    """

    labels: Tensor
    uncertainty: Tensor
    scores: Tensor
    doubt: Tensor
    confidence: Tensor


class Interpreter:
    """Classifiers on features, U-Nets on the image alone, both, or networks on features and image together.

    Args:
        classifiers: of feature vectors; may be empty for the labeller `image`.
        image_networks: from images to logits; may be empty for the labeller `features`.
        variant: of the features, see `FeatureExtractor`.
        joint_networks: on image and features together; for the labeller `joint`.
        labeller: `features`, `image`, `joint`, or `average`: the mean of the first two ensembles' probabilities, each
            weighing half.
        vote: `majority` or `probability`, within an ensemble; `average` always goes by probability.
        calibration: of the labeller's mean probabilities; labels and uncertainty do not change with it.

    Raises:
        MedsegError: the labeller has no members.
    """

    def __init__(
        self,
        classifiers: Sequence[PixelClassifier],
        image_networks: Sequence[nn.Module] = (),
        *,
        joint_networks: Sequence[JointSegmenter] = (),
        variant: str = "editgan",
        labeller: str = "features",
        vote: str = "majority",
        calibration: Calibration | None = None,
    ) -> None:
        self.classifiers = [classifier.eval() for classifier in classifiers]
        self.image_networks = [network.eval() for network in image_networks]
        self.joint_networks = [network.eval() for network in joint_networks]
        self.variant, self.labeller, self.vote = variant, labeller, vote
        self.calibration = calibration
        if labeller not in self.labellers:
            raise MedsegError(
                f"the labeller {labeller!r} has no members; {len(classifiers)} classifiers, {len(image_networks)} "
                f"image networks and {len(joint_networks)} joint ones make {', '.join(self.labellers) or 'none'}"
            )

    @property
    def labellers(self) -> tuple[str, ...]:
        """Labellers that these members can make."""
        have = {"features": bool(self.classifiers), "image": bool(self.image_networks)}
        have["average"] = all(have.values())
        have["joint"] = bool(self.joint_networks)
        return tuple(name for name in LABELLERS if have[name])

    @property
    def members(self) -> list[nn.Module]:
        """All networks."""
        return [*self.classifiers, *self.image_networks, *self.joint_networks]

    def to(self, device: str) -> Interpreter:
        """Move all members."""
        for network in self.members:
            network.to(device)
        return self

    @torch.no_grad()
    def predict(self, images: Tensor, maps: Sequence[Tensor]) -> Prediction:
        """Label images from their features.

        Args:
            images: `(N, 1, R, R)` in [-1, 1].
            maps: their feature maps, equal sizes merged.
        """
        ballot, rule = self._count(self.labeller, images, maps), self.rule(self.labeller)
        labels, uncertainty = ballot.label(rule), ballot.uncertainty()
        score = image_score(uncertainty)
        return Prediction(labels, uncertainty, score, ballot.doubt(labels), ballot.confidence(labels))

    @torch.no_grad()
    def probabilities(self, images: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Class probabilities `(N, K, R, R)`, calibrated where the interpreter is; arguments as for `predict`."""
        return self._count(self.labeller, images, maps).calibrated()

    @torch.no_grad()
    def predict_each(self, images: Tensor, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Labels `(N, R, R)` by every labeller that the members make; for comparing them."""
        return {name: ballot.label(self.rule(name)) for name, ballot in self.count_each(images, maps).items()}

    @torch.no_grad()
    def count_each(self, images: Tensor, maps: Sequence[Tensor]) -> dict[str, Ballot]:
        """The ballot of every labeller that the members make."""
        return {name: self._count(name, images, maps) for name in self.labellers}

    def rule(self, labeller: str) -> str:
        """How a labeller's members vote."""
        return "probability" if labeller == "average" else self.vote

    def _count(self, labeller: str, images: Tensor, maps: Sequence[Tensor]) -> Ballot:
        ballot = Ballot(self.calibration if labeller == self.labeller else None)
        both = labeller == "average"  # then each ensemble weighs as much as the other has members: half
        if labeller in ("features", "average"):
            for probs in classify_maps(self.classifiers, maps, images.shape[-1]):
                ballot.add(probs, len(self.image_networks) if both else 1)
        if labeller in ("image", "average"):
            for network in self.image_networks:
                ballot.add(network(images).float().softmax(1), len(self.classifiers) if both else 1)
        if labeller == "joint":
            for joint in self.joint_networks:
                hidden = project_maps(maps, joint.first.weight, joint.first.bias, images.shape[-1])
                ballot.add(joint.segment(images, hidden).float().softmax(1))
        return ballot


def load_interpreter(folder: Path, device: str = "cpu") -> Interpreter:
    """Read the interpreter that `train_interpreter` left in a folder.

    Raises:
        MedsegError: the folder holds no finished interpreter, its description was edited, or a member does not fit.
    """
    path = folder / "interpreter.json"
    if not path.is_file():
        raise MedsegError(f"{folder} holds no finished interpreter (interpreter.json is missing); train it first")
    plan = read_json(path)
    lacking = [name for name in _NAMED if name not in plan] if isinstance(plan, dict) else _NAMED
    if lacking:
        raise MedsegError(
            f"{path} does not say {lacking[0]!r}; it was cut off or edited, use --rerun train_interpreter"
        )
    try:
        return _built(folder, plan).to(device)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MedsegError(f"{path} describes no interpreter; it was edited, use --rerun train_interpreter") from error


def _built(folder: Path, plan: dict[str, Any]) -> Interpreter:
    classifiers = []
    for name in plan["classifiers"]:
        classifier = PixelClassifier(plan["depth"], plan["hidden"], plan["num_classes"], plan["order"])
        restore(folder / name, network=classifier)
        classifiers.append(classifier)
    image_networks = [load_segmenter(folder / name) for name in plan["image_networks"]]
    joint_networks = []
    for name in plan.get("joint_networks", ()):
        joint = JointSegmenter(plan["depth"], plan["num_classes"], plan["joint_width"])
        restore(folder / name, network=joint)
        joint_networks.append(joint.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return Interpreter(
        classifiers,
        image_networks,
        joint_networks=joint_networks,
        variant=plan["variant"],
        labeller=plan["labeller"],
        vote=plan["vote"],
        calibration=Calibration.from_plain(plan["calibration"]) if plan.get("calibration") else None,
    )
