"""The card of every export: the source of the data, who labelled it, how it was checked, and what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg_gan import __version__
from medseg_gan.machine.atomic import write_json, write_text

RESEARCH_ONLY = "Research only: not a medical device, not for diagnosis or treatment."
SYNTHETIC = "Images marked synthetic were drawn by a generative network; none was taken of a person."
MEMORY = (
    "A generative network can repeat what it was trained on. Nothing here proves that it did not: treat the terms of "
    "the training data as binding."
)


@dataclass(frozen=True)
class Card:
    """Facts about an export; values are plain, and name no person, file or folder.

    Attributes:
        title: one line.
        kind: `synthetic`, `real`, `hybrid`, `segmenter` or `factory`.
        contents: what lies in the export: counts, sizes, units.
        made_from: recipe, data, generator, and how many slices of how many patients they saw.
        annotator: who labelled, and what that cost.
        quality: what was checked, with figures.
        licence: under which terms.
        use: how to use it, one command or sentence each.
        synthetic: whether it holds generated images, or learnt from them.
    """

    title: str
    kind: str
    contents: Mapping[str, Any]
    made_from: Mapping[str, Any]
    annotator: Mapping[str, Any]
    quality: Mapping[str, Any]
    licence: str
    use: tuple[str, ...] = ()
    synthetic: bool = True

    @property
    def notices(self) -> tuple[str, ...]:
        """What must be read before use."""
        return (SYNTHETIC, RESEARCH_ONLY, MEMORY) if self.synthetic else (RESEARCH_ONLY,)

    @property
    def summary(self) -> str:
        """One sentence for formats that have room for no more."""
        word = {"synthetic": "SYNTHETIC", "hybrid": "PARTLY SYNTHETIC", "real": "PSEUDONYMISED"}.get(self.kind, "")
        return f"{word} {self.title}. {RESEARCH_ONLY}".strip()

    def document(self) -> dict[str, Any]:
        """Everything, for `card.json`."""
        return {
            "version": 1,
            **asdict(self),
            "notices": list(self.notices),
            "medseg_gan": __version__,
        }

    def text(self) -> str:
        """Everything, as Markdown."""
        sections = {
            "Contents": self.contents,
            "Made from": self.made_from,
            "Annotator": self.annotator,
            "Quality": self.quality,
        }
        lines = [f"# {self.title}", "", *(f"**{notice}**  " for notice in self.notices)]
        for title, facts in sections.items():
            lines += ["", f"## {title}", "", *(f"* {_words(name)}: {_show(value)}" for name, value in facts.items())]
        lines += ["", "## Licence", "", self.licence]
        if self.use:
            lines += ["", "## Use", "", *(f"    {line}" for line in self.use)]
        return "\n".join([*lines, "", f"Written by medseg-gan {__version__}."]) + "\n"


def write_card(folder: Path, card: Card, readme: str = "README.md") -> None:
    """Write `card.json` and the same in words."""
    write_json(folder / "card.json", card.document())
    write_text(folder / readme, card.text())


def _words(name: str) -> str:
    return name.replace("_", " ")


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(name))} {_show(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_show, value))
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
