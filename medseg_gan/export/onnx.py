"""ONNX of trained segmenters (onnx and onnxscript, an extra)."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import onnxscript
import torch
from torch import nn

from medseg_gan.errors import MedsegError
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.folder import new_folder
from medseg_gan.machine.atomic import atomic_path, write_json

MODEL_FILE = "model.onnx"


def write_onnx(
    out: Path,
    network: nn.Module,
    card: Card,
    *,
    size: int,
    window: tuple[float, float],
    classes: Sequence[str],
    in_channels: int = 1,
) -> Path:
    """Write a segmenter as `model.onnx` with any batch size, `model.json` and a card.

    Args:
        out: folder to make.
        network: from `(B, C, H, W)` in [-1, 1] to logits `(B, K, H, W)`.
        card: facts about the network.
        size: H and W.
        window: HU at -1 and 1.
        classes: name of each of the K classes.
        in_channels: C.

    Raises:
        MedsegError: the network cannot be expressed in ONNX, or the disk is full.
    """
    facts: dict[str, object] = {
        "input": {"name": "image", "shape": ["batch", in_channels, size, size], "range": [-1, 1], "window_hu": window},
        "output": {"name": "logits", "shape": ["batch", len(classes), size, size]},
        "classes": list(classes),
        "orientation": "rows from front to back, columns from the patient's right to the left",
        "notices": list(card.notices),
    }
    with new_folder(out) as folder:
        export_onnx(network, folder / MODEL_FILE, size=size, in_channels=in_channels, metadata=facts)
        write_json(folder / "model.json", facts)
        write_card(folder, card)
    return out


def export_onnx(
    network: nn.Module, path: Path, *, size: int, in_channels: int = 1, metadata: Mapping[str, object] | None = None
) -> None:
    """Write one network as ONNX; its weights lie in the same file.

    Args:
        network: from `(B, C, H, W)` to logits.
        path: of the file.
        size: H and W.
        in_channels: C.
        metadata: plain values kept in the file, as JSON.

    Raises:
        MedsegError: the network cannot be expressed in ONNX.
    """
    assert onnxscript.__version__  # torch's exporter needs it and would otherwise say so in ten lines
    network = network.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    example = torch.zeros(2, in_channels, size, size)  # one image would be taken for a constant batch
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # the exporter has many of its own
        reason = " ".join(str(error).split())[:160]
        raise MedsegError(f"{path.name}: this network cannot be written as ONNX ({reason})") from error
    finally:
        log.setLevel(level)
    assert program is not None
    model = program.model_proto
    _forget_where_it_was_written(model)
    for name, value in (metadata or {}).items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        onnx.save_model(model, str(temporary))


def _forget_where_it_was_written(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes, among them the paths of source files on this machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for function in model.functions:
        for node in (function, *function.node):
            del node.metadata_props[:]
            node.doc_string = ""
