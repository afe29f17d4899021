"""Test volumes on their own grid: where predicted slices lie in a scan, and the scan's label there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg_gan.data.slices import SliceStore
from medseg_gan.data.transforms import in_plane_steps, spacing_of, to_volume_grid


def volume_label_file(folder: Path, case: str) -> Path:
    """File of a case's label on its own grid, in the folder of a slice store."""
    return folder / "volumes" / f"{case}.npz"


def write_volume_label(path: Path, label: np.ndarray) -> None:
    """Keep the label `(X, Y, n)` of the n slices that the store has of a volume."""
    np.savez_compressed(path, label=label)


@dataclass(frozen=True)
class VolumeGrid:
    """The prepared slices of one test volume as a block of the scan, from the first to the last of them.

    The grid is that of the scan turned to LPS, before slices are cropped and resized; in plane it has the resolution of
    `prepare.spacing` where the scan was resampled to that.

    Attributes:
        rows: `(n,)` positions of the slices in the store, in the order of z.
        label: `(X, Y, n)` uint8 class ids.
        spacing: mm along X, Y and Z.
    """

    rows: np.ndarray
    label: np.ndarray
    spacing: tuple[float, float, float]
    case: Mapping[Any, Any]
    in_plane: Compose

    @classmethod
    def of(cls, rows: np.ndarray, label: np.ndarray, affine: np.ndarray, size: int, crop: float) -> VolumeGrid:
        """Set up from slices of `size` pixels that show the centred share `crop` of the scan with `affine`."""
        in_plane = Compose(in_plane_steps(size, crop))
        scan = MetaTensor(torch.zeros(1, *label.shape), affine=torch.as_tensor(affine))
        case = {**in_plane({"image": scan}), "slices": np.arange(label.shape[2])}
        return cls(rows, label, spacing_of(scan), case, in_plane)

    def bring_back(self, pred: np.ndarray) -> np.ndarray:
        """Predicted slices `(n, H, W)` on the volume's grid, `(X, Y, n)` uint8; 0 outside the crop."""
        return to_volume_grid(pred, self.case, self.in_plane)[0].numpy()


def volume_grids(store: SliceStore, crop: float) -> tuple[dict[str, VolumeGrid], dict[str, str]]:
    """Grids of the labelled test volumes by case, and why others have none.

    Args:
        store: of the stage `prepare`.
        crop: `prepare.crop`.
    """
    found, left_out = {}, {}
    cases: dict[str, list[int]] = {}
    for row in store.indices("test", labelled=True).tolist():
        cases.setdefault(store.records[row].case, []).append(row)
    for case, rows in cases.items():
        positions = [store.records[row].slice_index for row in rows]
        file = volume_label_file(store.folder, case)
        affine = store.records[rows[0]].affine
        gaps = positions[-1] - positions[0] + 1 - len(rows)
        if not file.is_file() or affine is None:
            left_out[case] = "the stage prepare left no label of the volume"
        elif gaps:
            left_out[case] = f"prepare left out {gaps} slices between the first and the last that it kept"
        else:
            with np.load(file) as content:
                label = content["label"]
            found[case] = VolumeGrid.of(np.array(rows), label, np.array(affine), store.size, crop)
    return found, left_out
