"""Errors a user can cause: one clear line each, with the exit code the command line gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class MedsegError(Exception):
    """What was found, what was wanted, what to do; shown without a traceback."""

    exit_code = 1


class UsageError(MedsegError):
    """The command line or a recipe asks for something that does not exist."""

    exit_code = 2


class WaitingForPerson(MedsegError):  # noqa: N818 - it is a state, not a fault
    """The recipe stops here until a person has painted the masks."""

    exit_code = 3


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `"; did you mean X?"` for the nearest option, or an empty string when none is near."""
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def error_lines(error: Exception) -> tuple[int, Sequence[str]]:
    """Exit code and lines of an error, as the command line tells it."""
    if isinstance(error, WaitingForPerson):
        return error.exit_code, str(error).splitlines()
    if isinstance(error, MedsegError):
        return error.exit_code, [f"error: {line}" for line in str(error).splitlines()]
    if isinstance(error, OSError) and error.filename is not None:
        return 1, [f"error: {error.filename}: {error.strerror}; check the path and its permissions, or see --debug"]
    text = " ".join(str(error).split())
    return 1, [f"error: {type(error).__name__}: {text}; run with --debug for the traceback"]
