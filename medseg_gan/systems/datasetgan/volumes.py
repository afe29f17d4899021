"""Test-R by whole volumes: the picked segmenters' predictions on the scans' own grids, in Dice and millimetres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from medseg_gan.data.slices import SliceStore
from medseg_gan.data.volume_grid import VolumeGrid, volume_grids
from medseg_gan.evaluation.volumes import mean_volume_scores, volume_scores
from medseg_gan.machine.atomic import write_text
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.report.values import csv_text
from medseg_gan.running.stages import Inputs


@dataclass
class WholeVolumes:
    """Scores of the first training of each row on the test patients' volumes.

    Attributes:
        store: of the stage `prepare`.
        tested: `(N,)` positions in the store of test-R, which takes a part of each volume's slices alone.
        grids: of the volumes that can be scored, by case.
        left_out: why the others cannot, by case.
        lines: what was scored: row, network, seed, case, class, Dice, distance.
    """

    store: SliceStore
    tested: np.ndarray
    grids: Mapping[str, VolumeGrid]
    left_out: Mapping[str, str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, store: SliceStore, tested: np.ndarray, crop: float) -> WholeVolumes:
        """The volumes of a store; `crop` as in `prepare`."""
        return cls(store, tested, *volume_grids(store, crop))

    def score(
        self, network: nn.Module, pred: np.ndarray, which: Mapping[str, Any], inputs: Inputs
    ) -> dict[str, dict[str, Any]]:
        """Score a network, which predicts the slices of the volumes that test-R left out.

        Args:
            network: on the stage's device.
            pred: `(N, H, W)` its predictions on test-R.
            which: the first columns of its lines.
            inputs: of the stage.

        Returns:
            Means over the volumes, by class.
        """
        known = dict(zip(self.tested.tolist(), pred, strict=True))
        lines = []
        for case, grid in self.grids.items():
            slices = self._predict(network, grid.rows.tolist(), known, inputs)
            found = volume_scores(grid.bring_back(slices), grid.label, grid.spacing, self.store.table.classes)
            lines += [{"case": case, **line} for line in found]
        self.lines += [{**which, **line} for line in lines]
        return mean_volume_scores(lines)

    def _predict(
        self, network: nn.Module, rows: Sequence[int], known: Mapping[int, np.ndarray], inputs: Inputs
    ) -> np.ndarray:
        rest = [row for row in rows if row not in known]
        more: dict[int, np.ndarray] = {}
        if rest:
            images = self.store.image_tensor(rest)
            found = predict_labels(network, images, device=inputs.device, precision=inputs.precision).numpy()
            more = dict(zip(rest, found, strict=True))
        return np.stack([known[row] if row in known else more[row] for row in rows])

    def document(self) -> dict[str, Any]:
        """What `scores.json` says of them; a row's means are None where no volume could be scored."""
        rows = dict.fromkeys((line["row"], line["network"]) for line in self.lines)
        return {
            "segmenter_seed": 0,
            "cases": {case: len(grid.rows) for case, grid in self.grids.items()},
            "left_out": dict(self.left_out),
            "rows": [
                {
                    "row": row,
                    "network": network,
                    "classes": mean_volume_scores(
                        [line for line in self.lines if (line["row"], line["network"]) == (row, network)]
                    ),
                }
                for row, network in rows
            ]
            or None,
        }

    def write(self, path: Path) -> None:
        """Leave the lines as a table."""
        write_text(path, csv_text(self.lines, ("row", "network", "segmenter_seed", "case", "class", "dice", "hd95_mm")))
