"""webdataset shards: tar files of generated pairs, the same bytes whenever they are written."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_gan.atomic import write_json
from medseg_gan.errors import MedsegError
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.folder import new_folder
from medseg_gan.export.slices import LabelledSlice, Selection


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
                    for ending, content in _files(item):
                        entry = tarfile.TarInfo(f"{item.name}.{ending}")
                        entry.size = len(content)
                        shard.addfile(entry, io.BytesIO(content))
            counts[name] = len(batch)
        write_json(folder / "shards.json", {"version": 1, "shards": counts, "samples": sum(counts.values())})
        write_card(folder, card)
    return out


def _files(item: LabelledSlice) -> Iterator[tuple[str, bytes]]:
    image, label = io.BytesIO(), io.BytesIO()
    np.save(image, item.image, allow_pickle=False)
    Image.fromarray(item.label).save(label, format="PNG")
    facts = {
        "synthetic": item.synthetic,
        "group": item.group,
        "spacing_mm": list(item.spacing),
        "uncertainty": item.uncertainty,
        "notice": "research only",
    }
    yield "image.npy", image.getvalue()
    yield "label.png", label.getvalue()
    yield "json", json.dumps(facts, sort_keys=True).encode()
