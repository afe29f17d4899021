"""Imports point down, systems do not know each other, and no module is called utils."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [  # top to bottom; every other module lies below them all
    {"__main__"},
    {"cli"},
    {"api"},
    {"systems"},
    {"report", "export", "annotate", "sampling"},
    {"evaluation", "training"},
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
            assert node in tree.body or me == "medseg_gan.cli", f"{me} imports {name} inside a function"


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
