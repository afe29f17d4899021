"""Inverted slices on a GPU: rows of latents and of labels are taken where each tensor lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from feature_labels import small_source
from posing import Posing, all_posing, posing

from medseg_gan.data.slices import SliceRecord, SliceStore, to_hu, write_store
from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.annotation.inversion import Errors, keep_examples, teaching_examples
from medseg_gan.systems.datasetgan.recipe import Inversion

TABLE, WINDOW = lookup_table("paper"), (-1000.0, 400.0)


def test_posing_tensors_refuse_what_a_gpu_refuses() -> None:
    x, host = posing(torch.ones(2, 2)), torch.ones(2, 2)
    assert x.device.type == "cuda" and (x * torch.tensor(2.0)).device.type == "cuda"
    assert type(x.cpu()) is torch.Tensor and isinstance(x.to(torch.float64), Posing)
    for wrong in (lambda: x + host, lambda: torch.stack([x, host]), lambda: host[x.long()], x.numpy):
        with pytest.raises(RuntimeError, match="cuda"):
            wrong()
    assert x[torch.tensor([0])].device.type == "cuda"  # the host may say which rows


def test_what_was_found_on_a_gpu_is_kept_and_taught_as_on_the_cpu(tmp_path: Path) -> None:
    source = small_source()
    drawn = source.render(range(4))
    records = [SliceRecord(f"p{k}-01", f"p{k}", 0, (2.0, 2.0, 3.0), None, "labelled", True) for k in range(4)]
    hu = to_hu(drawn.images[:, 0].numpy(), WINDOW)
    labels = np.random.default_rng(0).integers(0, TABLE.num_classes, hu.shape).astype(np.uint8)
    write_store(tmp_path / "real", hu, labels, records, WINDOW, TABLE)
    store = SliceStore.open(tmp_path / "real")
    found = source.render_ws(drawn.ws, torch.arange(4))
    on_gpu = replace(
        found, ws=posing(found.ws), images=posing(found.images), maps=all_posing(found.maps)
    )  # `indices` and `z` stay on the CPU, as `invert` leaves them
    values = np.array([0.1, 0.4, 2.0, 0.4])
    errors, how = Errors(values, values, values, values), Inversion(max_error=1.0, max_repeats=3)
    taught = {}
    for name, rendered in (("cpu", found), ("gpu", on_gpu)):
        per_slice = keep_examples(tmp_path / name, store, source, rendered, errors, how)
        assert [item["weight"] for item in per_slice] == [3, 1, 0, 1]
        masks = torch.from_numpy(np.array(SliceStore.open(tmp_path / name).labels))
        kept = rendered.take(torch.tensor([0, 1, 3]))
        masks = posing(masks) if name == "gpu" else masks
        taught[name] = teaching_examples(tmp_path / name, kept, masks, store, "reconstruction")
    (seen, masks), (seen_on_gpu, masks_on_gpu) = taught["cpu"], taught["gpu"]
    assert isinstance(seen_on_gpu.images, Posing) and isinstance(masks_on_gpu, Posing)
    assert torch.equal(seen.images, seen_on_gpu.images.cpu()) and torch.equal(masks, masks_on_gpu.cpu())
    assert torch.equal(seen.indices, seen_on_gpu.indices) and seen.indices.tolist() == [0, 0, 0, 1, 3]
