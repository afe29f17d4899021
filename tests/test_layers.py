"""Imports point down and never in a circle, systems do not know each other, files and functions stay short."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg_gan.running.recipe import import_object
from medseg_gan.systems import SYSTEMS as SYSTEM_TABLE

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [  # top to bottom; every other module lies below them all
    {"__main__"},
    {"cli"},
    {"api"},
    {"systems"},
    {"report", "export", "annotate", "sampling"},
    {"training"},
    {"evaluation"},
    {"losses", "networks", "data", "weights"},
    {"running"},
    {"machine"},
]
SYSTEMS = tuple(
    f"medseg_gan.systems.{path.name}." for path in (ROOT / "medseg_gan" / "systems").iterdir() if path.is_dir()
)
OURS = sorted((ROOT / "medseg_gan").rglob("*.py"))
TENSORS_ONLY = [path for path in OURS if path.parent.name in ("losses", "networks")]
THIRD_PARTY = sorted((ROOT / "third_party").rglob("*.py"))
HEAVY = {"torch", "torchvision", "monai", "ignite", "matplotlib", "PIL", "gradio", "highdicom", "onnx", "onnxruntime"}

# What main does not fulfil yet. An entry that is not needed any more fails its test: delete the line.
TWO_WAY: set[tuple[str, str]] = set()
LONG_FILES: set[str] = set()
LONG_FUNCTIONS = {
    "generate.generate_images",
    "project.project_image",
    "segmenter.train_segmenter",
    "synthesize.synthesize_pairs",
}
UNTYPED_STAGES: set[str] = set()


def layer(module: str) -> int:
    """Number of a module's layer, from the top."""
    part = [*module.split("."), ""][1]
    return next((number for number, names in enumerate(LAYERS) if part in names), len(LAYERS))


def imported(node: ast.AST) -> list[str]:
    """Modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0 and node.module, "imports are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    me = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for name in imported(node):
            if name.split(".")[0] != "medseg_gan":
                continue
            assert layer(name) >= layer(me), f"{me} imports {name}, which lies above it"
            if name.startswith("medseg_gan.systems.") and me.startswith(SYSTEMS):
                assert me.split(".")[2] == name.split(".")[2], f"{me} imports another system, {name}"


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_import_heavy_libraries_alone(path):
    """An import inside a function can hide a circle; the command line may wait for torch, nothing else may."""
    own = {"medseg_gan"} if path.name == "cli.py" else set()
    tree = ast.parse(path.read_text())
    names = {name for node in ast.walk(tree) if node not in tree.body for name in imported(node)}
    assert {name.split(".")[0] for name in names} <= HEAVY | own


def module(path: Path) -> tuple[str, ...]:
    """A file's module; a package's own is called `__init__`."""
    return path.relative_to(ROOT).with_suffix("").parts


def imports() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Pairs of modules of the package, the importing one first."""
    known = {module(path) for path in OURS}
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text())):
            for name in imported(node):
                parts = tuple(name.split("."))
                for found in (parts, parts[:-1]):  # a module, or a name in one
                    found = found if found in known else (*found, "__init__")
                    if found in known:
                        yield module(path), found
                        break


def test_folders_do_not_import_each_other():
    """Whatever lies side by side, modules and folders alike, can be put in an order of imports, at every depth."""
    needs: dict[str, set[str]] = {}
    excused = set()
    for one, other in imports():
        depth = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        pair = (".".join(one), ".".join(other))
        if pair in TWO_WAY:
            excused.add(pair)
        elif depth is not None:
            needs.setdefault(".".join(one[: depth + 1]), set()).add(".".join(other[: depth + 1]))
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")
    assert excused == TWO_WAY, "mended, delete it in TWO_WAY"


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT))
        for path in OURS
        if path.read_text().count("\n") > (350 if path.parts[-2:] == ("datasetgan", "recipe.py") else 400)
    }
    assert long == LONG_FILES, "make a new long file shorter; delete a mended one in LONG_FILES"


def test_functions_are_short():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{path.stem}.{node.name}"
        for path in OURS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno >= 60
    }
    assert long == LONG_FUNCTIONS, "make a new long function shorter; delete a mended one in LONG_FUNCTIONS"


def test_stages_are_typed():
    """Modules of stages ignore no types, nor does any other that reads a stage's settings."""
    stages = [stage for system in SYSTEM_TABLE.values() for stage in import_object(system.stages)]
    homes = {(*stage.function.partition(":")[0].split("."),) for stage in stages}
    untyped = {
        str(path.relative_to(ROOT))
        for path in OURS
        for line in path.read_text().splitlines()
        if "type: ignore" in line and (module(path) in homes or ".sections[" in line)
    }
    assert untyped == UNTYPED_STAGES, "give the stage its types; delete a mended one in UNTYPED_STAGES"


@pytest.mark.parametrize("path", TENSORS_ONLY, ids=lambda path: path.name)
def test_losses_and_networks_know_no_files_settings_or_engines(path):
    names = {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}
    unknown = (
        "ignite",
        *(f"medseg_gan.{part}" for part in ("data", "running", "machine.atomic", "machine.checkpoint")),
    )
    assert not [name for name in names if name.startswith(unknown)]


@pytest.mark.parametrize("path", THIRD_PARTY, ids=lambda path: str(path.relative_to(ROOT)))
def test_third_party_imports_torch_only(path):
    package = path.relative_to(ROOT / "third_party").parts[0]
    names = {name.split(".")[0] for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}
    assert names <= {"torch", package, *sys.stdlib_module_names}


def test_modules_are_named_after_their_subject():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in [*OURS, *THIRD_PARTY] if vague & {*path.parts, path.stem}]
