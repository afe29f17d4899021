"""YAML 1.2 as plain data: `1e-3` is a number, a key is written once, and nothing in a file is executed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from medseg_gan.errors import UsageError


def read_yaml(path: Path, shown: str) -> dict[str, Any]:
    """Read a file of `name: value` lines.

    Args:
        path: The file.
        shown: Its name in error messages.

    Raises:
        UsageError: the file is unreadable, not YAML, not a mapping, or more than plain data.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown} cannot be read as UTF-8 text ({error})") from error
    document = parse_yaml(text, shown)
    if not isinstance(document, dict):
        raise UsageError(
            f"{shown} holds {'nothing' if document is None else 'a single value'}, wanted name: value lines"
        )
    return document


def parse_yaml(text: str, origin: str) -> Any:
    """Plain value of a YAML text; mistakes are one line that begins with `origin`.

    Raises:
        UsageError: a syntax error, a key written twice, a tag, or a loop.
    """
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            if tag := getattr(event, "tag", None):
                line = event.start_mark.line + 1
                raise UsageError(f"{origin}: line {line}: the tag {tag} is not plain data; write the value itself")
        value = YAML(typ="safe", pure=True).load(text)
        return json.loads(json.dumps(value, default=str))  # aliases become copies, dates text, numbers as keys text
    except ValueError as error:  # a node that contains itself
        raise UsageError(f"{origin}: not plain data ({error})") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        if isinstance(error, DuplicateKeyError):
            key = problem.split('"')[1]
            raise UsageError(f"{origin}: {where}{key} is written twice; keep one") from error
        raise UsageError(f"{origin}: {where}not valid YAML ({problem})") from error


def format_yaml(value: Any) -> str:
    """YAML text of plain values, in the order given."""
    writer = YAML(typ="rt", pure=True)
    writer.default_flow_style = False
    writer.width = 4096  # one setting, one line
    stream = io.StringIO()
    writer.dump(value, stream)
    return stream.getvalue()
