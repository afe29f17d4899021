"""Help for the person who paints: pre-labels, and the order in which images are worth painting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_gan.annotate.work import AnnotationWork, Item
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import atomic_path, read_json, write_json

LEAST = 3
"""Painted images from which an interpreter is trained; fewer would only repeat them."""


@dataclass(frozen=True)
class Predictions:
    """An interpreter's answer to all exported images.

    Attributes:
        labels: `(N, H, W)` uint8 class ids, by the images' numbers.
        scores: `(N,)` uncertainty of each image, any unit.
    """

    labels: np.ndarray
    scores: np.ndarray


Rule = Callable[[np.ndarray], "np.ndarray | None"]
"""From HU `(H, W)` to class ids `(H, W)`; None where the rule finds nothing."""

Train = Callable[[Sequence[int], np.ndarray, Path, Callable[[str], None]], Predictions]
"""From the painted images' numbers, their labels `(n, H, W)`, a new folder and where to say how far it is, to an
interpreter's predictions for every exported image."""


class Guide:
    """Pre-labels and order for an annotation folder.

    Interpreters lie in `interpreter-1/`, `interpreter-2/`, ... of the folder; the last finished one counts, also after
    a restart, and is read without what trained it.

    Args:
        work: the folder.
        rules: pre-labels that need no training, by name.
        train: makes an interpreter; None where none can be made.
    """

    def __init__(self, work: AnnotationWork, rules: Mapping[str, Rule], train: Train | None = None) -> None:
        self.work, self.rules, self.train = work, dict(rules), train
        self.said = ""
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> int | None:
        """Number of the last finished interpreter."""
        return max((number for number in self._numbers() if self._done(number).is_file()), default=None)

    @property
    def running(self) -> bool:
        """Whether one is being trained."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def kinds(self) -> list[str]:
        """Pre-labels that can be had now; the best first."""
        return [*([] if self.current is None else [f"interpreter {self.current}"]), *self.rules]

    def pre_label(self, name: str, kind: str) -> np.ndarray:
        """Labels `(H, W)` uint8 to begin an image from.

        Raises:
            MedsegError: the rule finds nothing there, or the interpreter has not seen the image.
        """
        if kind in self.rules:
            found = self.rules[kind](self.work.open(name).image)
            if found is None:
                raise MedsegError(f"{kind} finds nothing in {name[:4]}; paint it, or reject it if it shows no anatomy")
            return found.astype(np.uint8)
        known, predictions = self._predictions()
        if name not in known:
            raise MedsegError(f"{name[:4]} was exported after the interpreter was trained; train it again")
        label: np.ndarray = predictions.labels[known.index(name)]
        return label

    def scores(self) -> dict[str, float]:
        """Uncertainty by image; empty before there is an interpreter."""
        if self.current is None:
            return {}
        known, predictions = self._predictions()
        return dict(zip(known, predictions.scores.tolist(), strict=True))

    def order(self, items: Sequence[Item]) -> list[Item]:
        """Images to do first, among them the most uncertain first; without an interpreter by number."""
        scores = self.scores()
        groups = ("to do", "painted", "rejected")
        return sorted(items, key=lambda item: (groups.index(item.state), -scores.get(item.name, 0.0), item.name))

    def start(self) -> None:
        """Train an interpreter in the background from what is painted now; `said` tells how far it is.

        Raises:
            MedsegError: too little is painted, one is being trained already, or none can be made here.
        """
        if self.train is None:
            raise MedsegError("this run has no generator to train an interpreter with; paint without one")
        if self.running:
            raise MedsegError("an interpreter is being trained already; wait for it")
        painted = [item.name for item in self.work.items() if item.state == "painted"]
        if len(painted) < LEAST:
            raise MedsegError(f"{len(painted)} images are painted; an interpreter needs at least {LEAST}")
        labels = np.stack([self.work.open(name).label for name in painted])
        number = max(self._numbers(), default=0) + 1
        self.said = f"interpreter {number}: starting with {len(painted)} painted images"
        self._thread = threading.Thread(target=self._train, args=(number, painted, labels), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being trained."""
        if self._thread is not None:
            self._thread.join()

    def _train(self, number: int, painted: Sequence[str], labels: np.ndarray) -> None:
        """Train and keep the predictions; whatever goes wrong is said on the page, where the person looks."""
        assert self.train is not None
        names = self.work.names
        folder = self._folder(number)

        def say(text: str) -> None:
            self.said = f"interpreter {number}: {text}"

        try:
            made = self.train([names.index(name) for name in painted], labels, folder, say)
            with atomic_path(folder / "predictions.npz") as temporary:
                np.savez(temporary, labels=made.labels, scores=made.scores)
            write_json(self._done(number), {"images": names[: len(made.scores)], "painted": list(painted)})
            say(f"ready, from {len(painted)} painted images")
        except MedsegError as error:
            say(f"failed: {error}")
        except Exception as error:  # a thread has nobody else to tell
            say(f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _predictions(self) -> tuple[list[str], Predictions]:
        number = self.current
        if number is None:
            raise MedsegError("there is no interpreter yet; train one first")
        known = read_json(self._done(number))["images"]
        with np.load(self._folder(number) / "predictions.npz") as stored:
            return known, Predictions(stored["labels"], stored["scores"])

    def _folder(self, number: int) -> Path:
        return self.work.folder / f"interpreter-{number}"

    def _done(self, number: int) -> Path:
        return self._folder(number) / "predictions.json"

    def _numbers(self) -> list[int]:
        found = (path.name.removeprefix("interpreter-") for path in self.work.folder.glob("interpreter-*"))
        return [int(number) for number in found if number.isdigit()]
