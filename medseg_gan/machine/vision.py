"""Import torchvision even if its compiled operators do not match a CPU-only torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

_library: list[Any] = []  # the definitions live as long as this object


def torchvision() -> ModuleType:
    """Import torchvision; where its operators are missing, declare the two names it looks up at import.

    On a matching CPU or CUDA pair the first import succeeds and nothing is declared. Call before MONAI is imported
    where both are needed, or MONAI notes torchvision as absent.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.append(library)
    return importlib.import_module("torchvision")
