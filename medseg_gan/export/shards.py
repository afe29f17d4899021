"""webdataset shards: tar files of generated pairs with reproducible bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg_gan.errors import MedsegError
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.folder import new_folder
from medseg_gan.export.slices import LabelledSlice, Selection
from medseg_gan.machine.atomic import write_json


def write_shards(out: Path, parts: Sequence[Selection], card: Card, *, samples: int = 1000) -> Path:
    """Write `shard-000000.tar`, ... which webdataset reads: `image.npy` (int16 HU), `label.png` and `json` per slice.

    Example (reading):
        webdataset.WebDataset("shard-{000000..000001}.tar", shardshuffle=False).decode("l8")

    Args:
        out: folder to make.
        parts: slices to write.
        card: facts about the data.
        samples: slices of one shard.

    Raises:
        MedsegError: nothing to write, or the disk is full.
    """
    if not sum(map(len, parts)):
        raise MedsegError("there is no labelled slice to write into shards; wanted at least one")
    stream = (item for part in parts for item in part)
    counts: dict[str, int] = {}
    with new_folder(out) as folder:
        while batch := list(islice(stream, samples)):
            name = f"shard-{len(counts):06d}.tar"
            with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as shard:
                for item in batch:
                    for ending, content in sample_files(item).items():
                        add_file(shard, f"{item.name}.{ending}", content)
            counts[name] = len(batch)
        write_json(folder / "shards.json", {"version": 1, "shards": counts, "samples": sum(counts.values())})
        write_card(folder, card)
    return out


def add_file(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without time or owner: what is in it decides the bytes of the shard."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    shard.addfile(entry, io.BytesIO(content))


def sample_files(item: LabelledSlice, **facts: Any) -> dict[str, bytes]:
    """Files of one sample by their endings.

    Args:
        item: the slice.
        facts: what `json` says besides, plain values.
    """
    image = io.BytesIO()
    np.save(image, item.image, allow_pickle=False)
    return {
        "image.npy": image.getvalue(),
        "label.png": png_bytes(item.label),
        "json": sample_json(item.synthetic, item.group, item.spacing, item.uncertainty, **facts),
    }


def sample_json(
    synthetic: bool, group: str, spacing: Sequence[float], uncertainty: float | None, **facts: Any
) -> bytes:
    """What is said of one sample, see `LabelledSlice`; `facts` are what else there is, plain values."""
    facts |= {
        "synthetic": synthetic,
        "group": group,
        "spacing_mm": list(spacing),
        "uncertainty": uncertainty,
        "notice": "research only",
    }
    return json.dumps(facts, sort_keys=True).encode()


def png_bytes(image: np.ndarray) -> bytes:
    """`(H, W)` uint8 as a lossless PNG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()
