"""The style interpreter: an ensemble that labels generated images from the generator's features (DatasetGAN, 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg_gan.atomic import read_json
from medseg_gan.checkpoint import restore
from medseg_gan.errors import MedsegError
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.features import project_maps
from medseg_gan.systems.datasetgan.vote import Ballot, image_score
from medseg_gan.training.segmenter import load_segmenter

LABELLERS = ("features", "image", "average")

PROJECTION_BYTES = 64 * 2**20
"""Members are projected together as long as their hidden maps stay below this."""


@dataclass(frozen=True)
class Prediction:
    """Labels of generated images.

    Attributes:
        labels: `(N, R, R)` uint8.
        uncertainty: `(N, R, R)` float32 Jensen-Shannon divergence of the members, nats.
        scores: `(N,)` float32, mean of the 10 % most uncertain pixels.
    """

    labels: Tensor
    uncertainty: Tensor
    scores: Tensor


class Interpreter:
    """Classifiers on features, U-Nets on the image alone, or both.

    Args:
        classifiers: of feature vectors; may be empty for the labeller `image`.
        image_networks: from images to logits; may be empty for the labeller `features`.
        variant: of the features, see `FeatureExtractor`.
        labeller: `features`, `image`, or `average`: the mean of both ensembles' probabilities, each weighing half.
        vote: `majority` or `probability`, within an ensemble; `average` always goes by probability.

    Raises:
        MedsegError: the labeller has no members.
    """

    def __init__(
        self,
        classifiers: Sequence[PixelClassifier],
        image_networks: Sequence[nn.Module] = (),
        *,
        variant: str = "editgan",
        labeller: str = "features",
        vote: str = "majority",
    ) -> None:
        self.classifiers = [classifier.eval() for classifier in classifiers]
        self.image_networks = [network.eval() for network in image_networks]
        self.variant, self.labeller, self.vote = variant, labeller, vote
        if labeller not in self.labellers:
            raise MedsegError(
                f"the labeller {labeller!r} has no members; {len(classifiers)} classifiers and {len(image_networks)} "
                f"image networks make {', '.join(self.labellers) or 'none'}"
            )

    @property
    def labellers(self) -> tuple[str, ...]:
        """Labellers that these members can make."""
        have = {"features": bool(self.classifiers), "image": bool(self.image_networks)}
        have["average"] = all(have.values())
        return tuple(name for name in LABELLERS if have[name])

    def to(self, device: str) -> Interpreter:
        """Move all members."""
        for network in [*self.classifiers, *self.image_networks]:
            network.to(device)
        return self

    @torch.no_grad()
    def predict(self, images: Tensor, maps: Sequence[Tensor]) -> Prediction:
        """Label images from their features.

        Args:
            images: `(N, 1, R, R)` in [-1, 1].
            maps: their feature maps, equal sizes merged.
        """
        ballot, rule = self._count(self.labeller, images, maps), self._rule(self.labeller)
        uncertainty = ballot.uncertainty()
        return Prediction(ballot.label(rule), uncertainty, image_score(uncertainty))

    @torch.no_grad()
    def predict_each(self, images: Tensor, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Labels `(N, R, R)` by every labeller that the members make; for comparing them."""
        return {name: self._count(name, images, maps).label(self._rule(name)) for name in self.labellers}

    def _rule(self, labeller: str) -> str:
        return "probability" if labeller == "average" else self.vote

    def _count(self, labeller: str, images: Tensor, maps: Sequence[Tensor]) -> Ballot:
        ballot = Ballot()
        both = labeller == "average"  # then each ensemble weighs as much as the other has members: half
        if labeller in ("features", "average"):
            for probs in self._feature_probs(maps, images.shape[-1]):
                ballot.add(probs, len(self.image_networks) if both else 1)
        if labeller in ("image", "average"):
            for network in self.image_networks:
                ballot.add(network(images).float().softmax(1), len(self.classifiers) if both else 1)
        return ballot

    def _feature_probs(self, maps: Sequence[Tensor], resolution: int) -> Iterator[Tensor]:
        """Probabilities `(N, K, R, R)` of each classifier; the features are read once for several of them."""
        width = self.classifiers[0].first.out_features
        member_bytes = 4 * len(maps[0]) * width * resolution**2
        at_once = max(1, PROJECTION_BYTES // member_bytes)
        for start in range(0, len(self.classifiers), at_once):
            members = self.classifiers[start : start + at_once]
            weight = torch.cat([member.first.weight for member in members])
            bias = torch.cat([member.first.bias for member in members])
            hidden = project_maps(maps, weight, bias, resolution)
            for member, part in zip(members, hidden.split(width, dim=1), strict=True):
                yield member.classify(part).float().softmax(1)


def load_interpreter(folder: Path, device: str = "cpu") -> Interpreter:
    """Read the interpreter that `train_interpreter` left in a folder.

    Raises:
        MedsegError: the folder holds no finished interpreter, or a member does not fit.
    """
    path = folder / "interpreter.json"
    if not path.is_file():
        raise MedsegError(f"{folder} holds no finished interpreter (interpreter.json is missing); train it first")
    plan = read_json(path)
    classifiers = []
    for name in plan["classifiers"]:
        classifier = PixelClassifier(plan["depth"], plan["hidden"], plan["num_classes"], plan["order"])
        restore(folder / name, network=classifier)
        classifiers.append(classifier)
    image_networks = [load_segmenter(folder / name) for name in plan["image_networks"]]
    interpreter = Interpreter(
        classifiers, image_networks, variant=plan["variant"], labeller=plan["labeller"], vote=plan["vote"]
    )
    return interpreter.to(device)
