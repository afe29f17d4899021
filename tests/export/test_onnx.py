"""ONNX segmenters give torch's logits for any batch, and carry what they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from export_example import TABLE, WINDOW, card

from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.networks.segmenters import build_segmenter

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
exporter = pytest.importorskip("medseg_gan.export.onnx")


def test_any_batch_gives_torchs_logits_and_the_file_says_what_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_segmenter("unet", TABLE.num_classes).eval()
    folder = exporter.write_onnx(
        tmp_path / "x", network, card("segmenter"), size=16, window=WINDOW, classes=TABLE.classes
    )
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        image = torch.randn(batch, 1, 16, 16)
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, network(image).numpy(), atol=1e-4, rtol=1e-4)
    assert not re.search(rb"segmenters\.py|site-packages", (folder / "model.onnx").read_bytes())  # no path
    facts = json.loads((folder / "model.json").read_text())
    assert facts["classes"] == list(TABLE.classes) and facts["input"]["window_hu"] == list(WINDOW)
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == list(TABLE.classes) and "Research only" in kept["notices"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "card.json", "model.json", "model.onnx"]
    with pytest.raises(UsageError, match="not overwritten"):
        exporter.write_onnx(folder, network, card(), size=16, window=WINDOW, classes=TABLE.classes)


def test_a_network_beyond_onnx_is_told_in_one_line(tmp_path: Path) -> None:
    class Unfit(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum().item() > 0 else -image  # decided by values, which a graph does not know

    with pytest.raises(MedsegError, match=r"x\.onnx: this network cannot be written as ONNX") as told:
        exporter.export_onnx(Unfit(), tmp_path / "x.onnx", size=16)
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())
