"""Recipes: one YAML file per experiment, read into sections of checked settings, all mistakes reported at once."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from medseg_gan.errors import UsageError, did_you_mean
from medseg_gan.running.mistakes import setting_mistakes, show_value
from medseg_gan.running.plain_yaml import format_yaml, parse_yaml, read_yaml

_HEADER = ("recipe", "system", "dataset", "source", "hours")


class Section(BaseModel):
    """Settings of one stage: declared once, with unit and bounds, and frozen.

    A setting that cannot change the result (a number of processes) says so with
    `json_schema_extra={"fingerprint": False}`; one that says only how long a training lasts is marked
    `json_schema_extra={"length": True}`, and `new_length` says what becomes of a training begun with another. Defaults
    are checked like values from a file, so a file setting is `Path | None = None`.

    Example:
        class TrainGan(Section):
            total_kimg: PositiveInt = Field(25_000, description="training length, thousands of real images")
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def new_length(self, folder: Path) -> str | None:
        """Why what was begun in `folder` with other lengths cannot have these; None: it goes on, or ends there."""
        return None


def _power_of_two(size: int) -> int:
    if size < 16 or size & (size - 1):
        near = 1 << (max(size, 16) - 1).bit_length()
        raise ValueError(f"{size} is not a power of two of at least 16; use {near}")
    return size


def _ordered(window: tuple[float, float]) -> tuple[float, float]:
    if window[0] >= window[1]:
        raise ValueError(f"{list(window)} runs downwards; give the lower HU first")
    return window


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is named twice; keep one")
    return names


ImageSize = Annotated[int, AfterValidator(_power_of_two)]
"""Pixels a side: a power of two of at least 16."""
Window = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""HU mapped to -1 and 1, the lower first."""
Distinct = AfterValidator(_distinct)
"""Of names that may each come once: `Annotated[tuple[Name, ...], Distinct]`."""


class RunSettings(Section):
    """What concerns every stage."""

    seed: NonNegativeInt = Field(0, description="seed of the whole run")
    threads: NonNegativeInt = Field(
        0, description="threads of tensor work, 0: all cores", json_schema_extra={"fingerprint": False}
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the processor has it")


class SystemRecipe(Section):
    """Base of a system's recipe: `run`, then its stages in running order."""

    run: RunSettings = RunSettings()

    @classmethod
    def filled(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Written settings with those that others stand for, such as a named configuration's; none by default.

        Args:
            tree: Section name -> settings as they were written, not yet checked.
        """
        return tree

    @property
    def sections(self) -> dict[str, Section]:
        """Every stage's section by name, in running order."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "run"}


@dataclass(frozen=True)
class Header:
    """What a recipe file says about itself."""

    name: str
    system: str
    dataset: str
    source: str
    hours: str
    profiles: tuple[str, ...]
    file: Path

    @property
    def expected(self) -> dict[str, str]:
        """Hours and machine of each profile that `hours` names, such as `demo 0.25 on 2 CPU cores; paper 99`."""
        words = (part.strip().partition(" ") for part in self.hours.split(";"))
        return {profile: hours for profile, _, hours in words if hours}


@dataclass(frozen=True)
class Recipe:
    """A recipe read with its profile and overrides."""

    header: Header
    profile: str
    sets: tuple[str, ...]
    settings: Any
    """The system's `SystemRecipe`."""


def recipe_folder() -> Path:
    """Where the recipes lie: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"


def list_recipes() -> list[Header]:
    """Headers of the recipes that come with the package, by name."""
    return [_read(path)[0] for path in sorted(recipe_folder().glob("*.yaml"))]


def read_header(name: str) -> Header:
    """Header of a recipe given by name or by the path of a YAML file."""
    return _read(find_recipe(name))[0]


def find_recipe(name: str) -> Path:
    """Path of a recipe given by name or by the path of a YAML file.

    Raises:
        UsageError: there is none.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        if not Path(name).is_file():
            raise UsageError(f"{name} does not exist; give a recipe's name or the path of its YAML file")
        return Path(name)
    path = recipe_folder() / f"{name}.yaml"
    if not path.is_file():
        hint = did_you_mean(name, [other.stem for other in recipe_folder().glob("*.yaml")])
        raise UsageError(f"there is no recipe {name}{hint or '; `medseg-gan recipes` lists them'}")
    return path


def load_recipe(name: str, systems: Mapping[str, str], profile: str | None = None, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply a profile and overrides, and check every setting.

    Args:
        name: A recipe's name, or the path of a YAML file.
        systems: `"module:Class"` of the `SystemRecipe` of each system.
        profile: Named overrides in the file. `paper` and None are the base settings where the file lists no `paper`.
        sets: Overrides such as `train_gan.lr=1e-3`, stronger than the profile; the last one counts.

    Raises:
        UsageError: every mistake found, one per line.
    """
    header, document = _read(find_recipe(name))
    file = show_file(header.file)
    if header.system not in systems:
        raise UsageError(f"{file}: there is no system {header.system or '(none given)'}{_near(header.system, systems)}")
    model = import_object(systems[header.system])

    tree = {key: {} if value is None else value for key, value in document.items() if key not in _HEADER}
    profiles, made = tree.pop("profiles", {}), tree.pop("made", {})
    for section in model.model_fields:
        tree.setdefault(section, {})
    origins: dict[tuple[str | int, ...], str] = {}
    mistakes: list[str] = []
    if profile in profiles:
        # Shallow paths first: `prepare.phantom: {...}` must not undo `prepare.phantom.matrix: 64`.
        for path in sorted(profiles[profile], key=lambda path: path.count(".")):
            mistakes += _override(tree, origins, path, profiles[profile][path], f"{file}: profiles.{profile}")
    elif profile not in (None, "paper"):
        mistakes.append(f"{file}: there is no profile {profile}{_near(profile, profiles)}")
    for text in sets:
        path, equals, value = text.partition("=")
        try:
            if not equals:
                raise UsageError(f"--set {text}: wanted section.setting=value")
            mistakes += _override(tree, origins, path.strip(), parse_yaml(value, f"--set {text}"), f"--set {text}")
        except UsageError as error:
            mistakes.append(str(error))
    tree = model.filled(tree)
    try:
        # As JSON and strict: "64" is not a number and yes is not true, yet a list still fills a tuple.
        settings = model.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        mistakes += setting_mistakes(error, model, tree, origins, file)
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return Recipe(header, profile or str(made.get("profile", "paper")), tuple(sets), settings)


def resolved_text(recipe: Recipe, **made: Any) -> str:
    """YAML of a recipe with every setting written out; it can be loaded again.

    Args:
        recipe: The recipe.
        made: Further plain values about this run, kept under `made` beside the profile and the overrides.
    """
    header = recipe.header
    values = (header.name, header.system, header.dataset, header.source, header.hours)
    document: dict[str, Any] = dict(zip(_HEADER, values, strict=True))
    document |= {"made": {"profile": recipe.profile, "sets": list(recipe.sets), **made}}
    return format_yaml(document | recipe.settings.model_dump(mode="json", by_alias=True))


def import_object(name: str) -> Any:
    """Object named `"module:attribute"`; such names keep plans free of the modules that do the work."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def show_file(path: Path) -> str:
    """A recipe file's name in messages: `recipes/x.yaml` for ours, else the path as given."""
    return f"recipes/{path.name}" if path.parent == recipe_folder() else str(path)


def _read(path: Path) -> tuple[Header, dict[str, Any]]:
    """Header and content of a recipe file, its outer shape checked."""
    file = show_file(path)
    document = read_yaml(path, file)
    mistakes = [
        f"{file}: {key} is {show_value(document[key])}, wanted text"
        for key in _HEADER
        if not isinstance(document.get(key, ""), str | int | float)
    ]
    for key in ("profiles", "made"):
        if not isinstance(document.get(key, {}), dict):
            mistakes.append(f"{file}: {key} is {show_value(document[key])}, wanted name: value lines")
    profiles = document.get("profiles", {})
    for name, overrides in profiles.items() if isinstance(profiles, dict) else ():
        if overrides is None:
            profiles[name] = {}
        elif not isinstance(overrides, dict):
            mistakes.append(f"{file}: profiles.{name} is {show_value(overrides)}, wanted section.setting: value lines")
    if mistakes:
        raise UsageError("\n".join(mistakes))
    text = {key: str(document.get(key, "")) for key in _HEADER}
    header = Header(
        name=text["recipe"] or path.stem,
        system=text["system"],
        dataset=text["dataset"],
        source=text["source"],
        hours=text["hours"],
        profiles=tuple(profiles),
        file=path,
    )
    return header, document


def _override(
    tree: dict[str, Any], origins: dict[tuple[str | int, ...], str], dotted: str, value: Any, origin: str
) -> list[str]:
    """Set one dotted path in place and note where it was written; returns what is wrong with the path itself."""
    path = tuple(dotted.split("."))
    if not all(path) or dotted in tree:
        return [f"{origin}: {dotted} is not written section.setting"]
    node = tree
    for depth, key in enumerate(path[:-1], start=1):
        if key not in node:
            origins[path[:depth]] = origin
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            return [f"{origin}: {'.'.join(path[:depth])} is a single value, it has no {'.'.join(path[depth:])}"]
    for place in [place for place in origins if place[: len(path)] == path]:
        del origins[place]
    node[path[-1]] = value
    origins[path] = origin
    return []


def _near(word: str, options: Iterable[str]) -> str:
    """The nearest option, or all of them."""
    return did_you_mean(word, options) or f"; wanted {', '.join(options) or 'nothing here'}"
