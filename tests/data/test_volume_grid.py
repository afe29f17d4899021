"""Test volumes return to the scan's own grid; one whose slices are not all there is left out with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chest import affine, chest, dice, save

from medseg_gan.data.preparation import Preprocessing, prepare_store
from medseg_gan.data.records import find_cases
from medseg_gan.data.slices import SliceStore
from medseg_gan.data.volume_grid import volume_grids
from medseg_gan.evaluation.volumes import volume_scores
from medseg_gan.labels import lookup_table


def prepared(folder: Path, size: int, crop: float = 1.0) -> SliceStore:
    for k in range(5):
        hu, truth = chest(96, 3, mm=3.7, seed=k)
        name = f"Patient_{k:02d}"
        save(folder / "data" / "train" / name / f"{name}.nii.gz", hu[:, 4:92], affine(3.7), "RAS")
        save(folder / "data" / "train" / name / "GT.nii.gz", truth[:, 4:92], affine(3.7), "RAS")
    how = Preprocessing(lookup_table("paper"), size, crop)
    prepare_store(
        folder / "store", find_cases(folder / "data"), how, seed=0, window=(-1000.0, 400.0), min_test=2, workers=1
    )
    return SliceStore.open(folder / "store")


@pytest.mark.parametrize("size, crop, least", [(96, 1.0, 1.0), (48, 1.0, 0.9), (64, 0.95, 0.9)])
def test_a_phantoms_own_labels_score_as_well_as_their_resolution_allows(tmp_path, size, crop, least):
    store = prepared(tmp_path, size, crop)
    grids, left_out = volume_grids(store, crop)
    assert len(grids) == 2 and not left_out
    for grid in grids.values():
        assert grid.label.shape == (96, 88, 3) and grid.spacing == pytest.approx((3.7, 3.7, 5.0))
        back = grid.bring_back(np.asarray(store.labels[grid.rows]))
        assert back.shape == grid.label.shape
        lungs = [store.table.id_of(f"{side}_lung") for side in ("left", "right")]
        assert dice(np.isin(back, lungs), np.isin(grid.label, lungs)) >= least
        for line in volume_scores(back, grid.label, grid.spacing, store.table.classes):
            assert least < 1 or (line["dice"], line["hd95_mm"]) == (1.0, 0.0)


def test_a_volume_with_a_gap_or_without_its_label_is_left_out_with_the_reason(tmp_path):
    store = prepared(tmp_path, 48)
    (first, second), _ = volume_grids(store, 1.0)
    last = max(k for k, record in enumerate(store.records) if record.case == first)
    store.records[last] = replace(store.records[last], slice_index=store.records[last].slice_index + 2)
    (store.folder / "volumes" / f"{second}.npz").unlink()
    grids, left_out = volume_grids(store, 1.0)
    assert not grids
    assert left_out == {
        first: "prepare left out 2 slices between the first and the last that it kept",
        second: "the stage prepare left no label of the volume",
    }
