"""Mistakes in settings, one line each: where it is written, which setting, what was found, what was wanted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from medseg_gan.errors import MedsegError, did_you_mean

Path = tuple[str | int, ...]
"""A setting's place, such as `("train_gan", "batch_size")`; numbers count list items."""

_PLAIN_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a finite number": "a finite number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "an object": "settings written name: value",
    "a valid dictionary": "settings written name: value",
}


def refuse_missing_file(setting: str, path: str | None) -> None:
    """Refuse a file that a setting names and that is not there.

    Raises:
        MedsegError: it does not exist.
    """
    if path and not os.path.isfile(path):
        raise MedsegError(f"{setting}: {path} does not exist; give the path of the file, or leave the setting out")


def setting_mistakes(
    error: ValidationError, model: type[BaseModel], tree: Mapping[str, Any], origins: Mapping[Path, str], file: str
) -> list[str]:
    """Word every mistake of a validation.

    Args:
        error: What pydantic found.
        model: The class that was validated.
        tree: The values that were validated.
        origins: Where overridden values were written (a profile, `--set`); all others are from `file`.
        file: The recipe file's name.

    Returns:
        One line per setting.
    """
    found: dict[Path, tuple[type[BaseModel] | None, list[dict[str, Any]]]] = {}
    for detail in error.errors(include_url=False):
        path, owner = _locate(model, tree, detail["loc"])
        if detail["type"] == "too_short" and any(inside[: len(path)] == path for inside in found):
            continue  # items that are wrong, and told, are not counted
        found.setdefault(path, (owner, []))[1].append(dict(detail))
    lines = []
    for path, (owner, details) in found.items():
        sentence = _sentence(path, owner, details, model)
        lines.append(f"{_origin(path, origins, file, tree, sentence)}: {sentence}")
    return lines


def show_path(path: Path) -> str:
    """Write a place as users do: `train_gan.widths[2]`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def show_value(value: Any, limit: int = 60) -> str:
    """Write a value as in YAML, cut to `limit` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _sentence(path: Path, owner: type[BaseModel] | None, details: list[dict[str, Any]], model: type[BaseModel]) -> str:
    """What is wrong with one setting; several details are the branches of a union."""
    name, first = show_path(path), details[0]
    if first["type"] == "extra_forbidden":
        return _unknown(path, owner or model, model)
    if first["type"] == "missing":
        field = (owner or model).model_fields.get(str(path[-1]))
        return f"{name} is missing" + (f" ({field.description})" if field and field.description else "")
    if first["type"] in ("value_error", "assertion_error"):
        reason = " ".join(str(first["ctx"]["error"]).split())
        return f"{name}: {reason}" if name else reason
    wanted, hints = [], ""
    for detail in details:
        text = detail["msg"].removeprefix("Input should be ")
        if detail["type"] in ("too_long", "too_short"):
            limit = "max_length" if detail["type"] == "too_long" else "min_length"
            text = f"{'at most' if limit == 'max_length' else 'at least'} {detail['ctx'][limit]} items"
        wanted.append(_PLAIN_WORDS.get(text, text[:1].lower() + text[1:]))
        if detail["type"] == "literal_error":
            hints += did_you_mean(str(detail["input"]), re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
    return f"{name} is {show_value(first['input'])}, wanted {' or '.join(dict.fromkeys(wanted))}{hints}"


def _unknown(path: Path, owner: type[BaseModel], model: type[BaseModel]) -> str:
    """A name that no section or setting has; the same name elsewhere in the recipe is offered too."""
    name, word = show_path(path), str(path[-1])
    kind = "section" if owner is model else "setting"
    hint = did_you_mean(word, owner.model_fields)
    if not hint:
        sections = {key: _nested(field.annotation) for key, field in model.model_fields.items()}
        elsewhere = [f"{key}.{word}" for key, section in sections.items() if section and word in section.model_fields]
        hint = f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else f"; wanted {', '.join(owner.model_fields)}"
    return f"{name} is not a {kind}{hint}"


def _origin(path: Path, origins: Mapping[Path, str], file: str, tree: Any, sentence: str) -> str:
    """Where the value was written.

    A rule over several settings names the `--set`s among them, which the user can change at once, and beside them the
    profile where a setting that the sentence names is the profile's, else the file.
    """
    above = _writer(path, origins, file)
    inside = [text for place, text in origins.items() if len(place) > len(path) and place[: len(path)] == path]
    sets = list(dict.fromkeys(text for text in (above, *inside) if _given(text)))
    words = re.findall(r"\w+", sentence)
    named = [_writer(place, origins, file) for place in _places(path, tree) if place[-1] in words]
    other = next((text for text in named if text != file and not _given(text)), above)
    return ", ".join(sets) if _given(other) else f"{other} with {', '.join(sets)}" if sets else other


def _given(origin: str) -> bool:
    """Whether a value was written on the command line."""
    return origin.startswith("--set")


def _writer(path: Path, origins: Mapping[Path, str], file: str) -> str:
    """Who wrote a value: whoever wrote the nearest place it lies in."""
    return next((origins[path[:length]] for length in range(len(path), 0, -1) if path[:length] in origins), file)


def _places(path: Path, tree: Any) -> list[Path]:
    """Every written setting below a place, sections included."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return [
        (*path, key, *below)
        for key, value in (tree.items() if isinstance(tree, dict) else ())
        for below in [(), *_places((), value)]
    ]


def _locate(model: type[BaseModel], tree: Any, loc: Path) -> tuple[Path, type[BaseModel] | None]:
    """The user's path of a pydantic location (names of union branches left out) and the class that owns its end."""
    path: list[str | int] = []
    owner: type[BaseModel] | None = None
    inside: type[BaseModel] | None = model
    for key in loc:
        fields = inside.model_fields if inside else {}
        names = {field.alias or name for name, field in fields.items()}
        written = key in tree if isinstance(tree, dict) else isinstance(key, int)
        if not written and key not in names:
            continue
        path.append(key)
        owner = inside
        if isinstance(tree, dict):
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        if key in fields:
            inside = _nested(fields[str(key)].annotation)
    return tuple(path), owner


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The section class inside an annotation such as `Section | None` or `dict[str, Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _nested(part))), None)
