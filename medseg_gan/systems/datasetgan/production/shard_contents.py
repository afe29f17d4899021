"""Check a finished shard against its recorded hashes."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg_gan.export.pair_files import shard_name
from medseg_gan.export.shards import sample_json
from medseg_gan.systems.datasetgan.production.shards import COLUMNS, Shape, Shard, fault, read_record, record_of


def damage(folder: Path, shard: Shard, shape: Shape) -> str | None:
    """What is wrong with a shard by presence, sizes and contents of its files; None if it is as it was made.

    Every file is read and hashed once: a second for a gigabyte or two, where making as much takes minutes.

    Args:
        folder: of all shards.
        shard: which pairs.
        shape: of its files.
    """
    wrong = fault(folder, shard, shape.to)
    if wrong is not None:
        return wrong
    kept = [row for row in read_record(record_of(folder, shard)) if row["image"]]
    path = folder / shard_name(shard.number, shape.to)
    try:
        changed = _changed_in_tar(path, kept, shape) if path.suffix == ".tar" else _changed_file(folder, kept)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"has another content of {changed} than it was made with" if changed else None


def _changed_file(folder: Path, rows: list[dict[str, str]]) -> str | None:
    """The first picture or volume that is not the one of the record."""
    for row in rows:
        for kind in ("image", "label"):
            if _sha256((folder / row[kind]).read_bytes()) != row[f"{kind}_sha256"]:
                return row[kind]
    return None


def _changed_in_tar(path: Path, rows: list[dict[str, str]], shape: Shape) -> str | None:
    """The first file in a tar that is not the one of the record, or the tar itself where it cannot be followed."""
    wanted = {name: row for row in rows for name in (row["image"], row["label"], f"{row['name']}.json")}
    try:
        with tarfile.open(path, "r:") as shard:
            for entry in shard:
                row, file = wanted.pop(entry.name, None), shard.extractfile(entry)
                if row is None or file is None or not _is_recorded(entry.name, file.read(), row, shape):
                    return path.name if row is None else entry.name
    except tarfile.TarError:
        return path.name
    return next(iter(wanted), None)


def _is_recorded(name: str, content: bytes, row: Mapping[str, str], shape: Shape) -> bool:
    for kind in ("image", "label"):
        if name == row[kind]:
            return _sha256(content) == row[f"{kind}_sha256"]
    return _says_the_same(content, row, shape)


def _says_the_same(content: bytes, row: Mapping[str, str], shape: Shape) -> bool:
    """Whether a sample's `json`, of which the record has no hash, is the one that its line and the shape make."""
    try:
        facts: dict[str, Any] = json.loads(content)
        own = {"index": int(row["index"]), "z_seed": int(row["z_seed"])}
        own |= {name: facts[name] for name in row.keys() - set(COLUMNS)}  # what a judge says
        same = (
            all(str(facts[name]) == row[name] for name in own) and f"{facts['uncertainty']:.7g}" == row["uncertainty"]
        )
        return same and content == sample_json(True, row["name"], shape.spacing, facts["uncertainty"], **own)
    except (ValueError, TypeError, KeyError):
        return False


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
