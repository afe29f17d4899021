"""Exporters that need an optional package, which is imported when they are used."""

from __future__ import annotations

from typing import Any

from medseg_gan.errors import MedsegError
from medseg_gan.running.recipe import import_object

EXTRA = "pip install 'medseg-gan[export]'"


def import_exporter(name: str, wanted_for: str) -> Any:
    """Object named `"module:attribute"`.

    Args:
        name: of an exporter.
        wanted_for: what the user asked for, for the error.

    Raises:
        MedsegError: a package of the extra `export` is missing.
    """
    try:
        return import_object(name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "medseg_gan"):
            raise
        raise MedsegError(f"{wanted_for} needs the package {package}, which is not installed; {EXTRA}") from error
