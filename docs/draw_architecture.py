"""Draw docs/architecture.svg from the code: stages, the way of a slice and of a setting, folders and their imports.

Run it after a change of folders, imports or stages: `python docs/draw_architecture.py`. Names in `SLICE` and `SETTING`
are looked up in the code, so that a renamed function cannot stay in the drawing.
"""

from __future__ import annotations

import ast
import graphlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from medseg_gan.running.recipe import import_object
from medseg_gan.running.stages import Stage
from medseg_gan.systems import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "architecture.svg"
WIDTH, MARGIN = 1200, 24
INK, SOFT, LINE, PAPER = "#1d2733", "#5b6876", "#8fa3b5", "#ffffff"
STAGE, VALUE, FOLDER = "#e3eefb", "#eaf5e6", "#fdf1dd"

Box = tuple[str, Sequence[str], tuple[str, str]]  # a bold word, lines below it, and at its foot the code to read

SLICE = {  # stage of datasetgan: what a slice is there, and the code to read
    "prepare": ("volume (C, X, Y, Z) in HU, LPS; then slices (H, W), front up", "data.slices:SliceStore"),
    "train_gan": ("window to [-1, 1], (B, C, H, W); D compares it with G(z)", "data.slices:to_unit"),
    "annotate": ("seed to z, ws and image; you paint its label map", "systems.datasetgan.samples.images:ImageSource"),
    "train_interpreter": (
        "features of G at each pixel, and its class",
        "systems.datasetgan.samples.features:FeatureExtractor",
    ),
    "synthesize": ("image, label and uncertainty from an ensemble", "systems.datasetgan.factory:LabelFactory"),
    "train_segmenters": ("pairs and real slices to logits (B, K, H, W)", "training.segmenter:train_segmenter"),
    "evaluate": ("predicted and true label to IoU, Dice, HD95", "evaluation.protocol:scores_document"),
    "report": ("images with outlines, tables, intervals", "report.document:Document"),
}
SETTING = (  # what happens to a setting, and the code to read
    ("recipes/NAME.yaml, its profile, then --set: train_gan.r1_gamma=2", "running.recipe:load_recipe"),
    ("A Section declares it once: type, bounds, unit, default", "systems.datasetgan.recipe:TrainGan"),
    ("A mistake is told with the nearest setting's name", "running.mistakes:setting_mistakes"),
    ("It enters the fingerprints of its stage and all later ones", "running.stages:Plan"),
    ("The stage gets its Section and passes plain values on", "systems.datasetgan.stages:train_gan"),
    ("RUN/recipe.yaml and NN-stage/started.json keep it", "running.runner:run_plan"),
)


def draw() -> str:
    """The whole drawing as SVG text."""
    parts: list[str] = []
    y = 40
    for title, draw_part in (
        ("A run: stages of each system, their functions, and the folders they write", _stages),
        ("The way of a slice through the stages of datasetgan", _slice),
        ("The way of a setting", _setting),
        ("Folders of medseg_gan: an arrow means that the upper one imports the lower one", _package),
        ("Rooms of medseg_gan/systems/datasetgan, in the same way", _rooms),
    ):
        parts.append(_text(MARGIN, y, title, size=17, weight="bold"))
        elements, y = draw_part(y + 16)
        parts += elements
        y += 46
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - 30}" '
        f'font-family="Helvetica, Arial, sans-serif">\n'
        f"<title>Architecture of medseg-gan</title>\n"
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{y - 30}" fill="{PAPER}"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _stages(y: int) -> tuple[list[str], int]:
    """One row of boxes for each system."""
    parts = []
    for name, system in SYSTEMS.items():
        stages: Sequence[Stage] = import_object(system.stages)
        parts.append(_text(MARGIN, y + 16, f"medseg_gan/systems/{name}", size=12, colour=SOFT))
        home = f"medseg_gan.systems.{name}."
        boxes: list[Box] = []
        for number, stage in enumerate(stages, start=1):
            module = stage.function.partition(":")[0].removeprefix(home)
            folder = stage.folder or f"{number:02d}-{stage.name}"
            boxes.append((stage.name, [], (f"{module.replace('.', '/')}.py", f"RUN/{folder}/")))
        parts += _chain(y + 24, boxes, STAGE, height=60)
        y += 106
    return parts, y - 22


def _slice(y: int) -> tuple[list[str], int]:
    stages = [stage.name for stage in import_object(SYSTEMS["datasetgan"].stages)]
    assert stages == list(SLICE), "SLICE has an entry for each stage of datasetgan"
    boxes = [(name, textwrap.wrap(text, 22), _known(code)) for name, (text, code) in SLICE.items()]
    return _chain(y, boxes, VALUE, height=116), y + 116


def _setting(y: int) -> tuple[list[str], int]:
    boxes = [("", textwrap.wrap(text, 29), _known(code)) for text, code in SETTING]
    return _chain(y, boxes, VALUE, height=88), y + 88


def _package(y: int) -> tuple[list[str], int]:
    return _layers(y, ("medseg_gan",))


def _rooms(y: int) -> tuple[list[str], int]:
    return _layers(y, ("medseg_gan", "systems", "datasetgan"))


def _chain(y: int, boxes: Sequence[Box], colour: str, height: int) -> list[str]:
    """Boxes in a row, each with an arrow to the next."""
    gap = 14
    width = (WIDTH - 2 * MARGIN - gap * (len(boxes) - 1)) / len(boxes)
    parts = []
    for number, (name, lines, code) in enumerate(boxes):
        x = MARGIN + number * (width + gap)
        parts.append(_box(x, y, width, height, colour))
        if name:
            parts.append(_text(x + 8, y + 20, name, size=13, weight="bold"))
        top = y + (37 if name else 20)
        parts += [_text(x + 8, top + 14 * row, line, size=10.5) for row, line in enumerate(lines)]
        end = y + height - 22
        parts += [_text(x + 8, end + 13 * row, line, size=10.5, colour=SOFT) for row, line in enumerate(code)]
        if number:
            parts.append(_arrow((x - gap, y + height / 2), (x, y + height / 2)))
    return parts


def _layers(y: int, package: tuple[str, ...]) -> tuple[list[str], int]:
    """What lies in a package, above what it imports; arrows that follow from others are left out."""
    needs = imports_between(package)
    level = {name: 0 for name in needs}
    for name in graphlib.TopologicalSorter(needs).static_order():  # what is imported comes first
        level[name] = 1 + max((level[other] for other in needs[name]), default=-1)
    rows = [sorted(name for name in needs if level[name] == row) for row in range(max(level.values()), -1, -1)]
    place, boxes = {}, []
    widest = max(map(len, rows))
    box, step, height = min(208.0, (WIDTH - 2 * MARGIN + 20) / widest - 20), 84, 54
    for row, names in enumerate(rows):
        left = (WIDTH - len(names) * box - (len(names) - 1) * 20) / 2
        for number, name in enumerate(names):
            place[name] = (left + number * (box + 20), y + row * step)
            boxes += _module(package, name, *place[name], box, height)
    arrows = []
    for name, others in needs.items():
        for other in sorted(others - {far for near in others for far in _reach(needs, near)}):
            (x1, y1), (x2, y2) = place[name], place[other]
            arrows.append(_arrow((x1 + box / 2, y1 + height), (x2 + box / 2, y2), bend=True))
    return arrows + boxes, y + len(rows) * step - (step - height)


def _module(package: Sequence[str], name: str, x: float, y: float, width: float, height: float) -> list[str]:
    """A box with a folder's or module's name and its first sentence."""
    path = ROOT.joinpath(*package, name)
    is_folder = path.is_dir()
    source = (path / "__init__.py" if is_folder else path.with_suffix(".py")).read_text()
    sentence = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
    told = textwrap.wrap(sentence.rstrip("."), int(width / 5.6), max_lines=2, placeholder=" ...")
    parts = [_box(x, y, width, height, FOLDER if is_folder else PAPER)]
    parts.append(_text(x + 8, y + 17, f"{name}/" if is_folder else f"{name}.py", size=13, weight="bold"))
    return [*parts, *(_text(x + 8, y + 32 + 13 * row, line, size=10.5, colour=SOFT) for row, line in enumerate(told))]


def imports_between(package: tuple[str, ...]) -> dict[str, set[str]]:
    """What lies in a package, modules and folders alike, and which of it each imports."""
    folder, depth = ROOT.joinpath(*package), len(package)
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    needs: dict[str, set[str]] = {name: set() for name in sorted(names) if not name.startswith("__")}
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder).with_suffix("").parts[0]
        for other in _imported(path):
            parts = other.split(".")
            if name in needs and tuple(parts[:depth]) == package and len(parts) > depth:
                needs[name] |= {parts[depth]} & needs.keys() - {name}
    return needs


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _reach(needs: Mapping[str, set[str]], name: str) -> set[str]:
    """All that a name imports, over others."""
    return needs[name].union(*(_reach(needs, other) for other in needs[name]))


def _known(code: str) -> tuple[str, str]:
    """The file of a piece of code and its name.

    Raises:
        ValueError: there is no such piece.
    """
    module, _, name = code.partition(":")
    tree = ast.parse(ROOT.joinpath("medseg_gan", *module.split(".")).with_suffix(".py").read_text())
    if name not in {getattr(node, "name", None) for node in tree.body}:
        raise ValueError(f"{code} is named in {__file__}, but medseg_gan has it no more; name what took its place")
    return f"{'/'.join(module.split('.')[-2:])}.py", name


def _text(x: float, y: float, words: str, size: float, weight: str = "normal", colour: str = INK) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{colour}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} rx="6" fill="{colour}" stroke="{LINE}"/>'


def _arrow(start: tuple[float, float], end: tuple[float, float], bend: bool = False) -> str:
    (x1, y1), (x2, y2) = start, end
    way = f"C{x1:g} {y1 + 26:g} {x2:g} {y2 - 26:g}" if bend else "L"
    return f'<path d="M{x1:g} {y1:g} {way} {x2:g} {y2:g}" fill="none" stroke="{LINE}" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    TARGET.write_text(draw())
    print(f"drawn: {TARGET}")
