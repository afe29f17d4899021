"""Convert between label maps and the layers of the page's editor: one pure colour per class, HU as grey."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_gan.annotate.files import window_to_grey
from medseg_gan.annotate.masks import colours_to_ids
from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable


def label_to_layer(label: np.ndarray, table: LabelTable) -> np.ndarray:
    """A label map `(H, W)` as a layer `(H, W, 4)`: each class in its opaque colour, background transparent."""
    alpha = np.where(label > 0, 255, 0).astype(np.uint8)
    return np.dstack([table.colour(label) * (label > 0)[..., None].astype(np.uint8), alpha])


def layer_to_label(layer: np.ndarray, table: LabelTable) -> np.ndarray:
    """The label map `(H, W)` uint8 that a painted layer `(H, W, 4)` shows, by exact look-up of its colours.

    Raises:
        MedsegError: a colour is that of no class; nothing is rounded to the nearest one.
    """
    ids = colours_to_ids(layer, table)
    unknown = ids < 0
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        found = ", ".join(str(int(value)) for value in layer[row, column])
        raise MedsegError(
            f"{int(unknown.sum())} pixels have colours of no class, the first ({found}) in row {row}, column {column}: "
            "this browser smooths strokes; undo them, or paint in another browser"
        )
    return ids.astype(np.uint8)


def image_to_background(image: np.ndarray, level: float, width: float) -> np.ndarray:
    """HU `(H, W)` in a window of the display as opaque grey `(H, W, 4)`."""
    grey = window_to_grey(image, (level - width / 2, level + width / 2))
    return np.dstack([grey, grey, grey, np.full_like(grey, 255)])


def editor_value(image: np.ndarray, label: np.ndarray, table: LabelTable, level: float, width: float) -> dict[str, Any]:
    """What the editor is given: our own image below, the label map as the one layer above it."""
    return {
        "background": image_to_background(image, level, width),
        "layers": [label_to_layer(label, table)],
        "composite": None,
    }


def painted_layer(value: dict[str, Any] | None, background: np.ndarray) -> np.ndarray:
    """The layer `(H, W, 4)` that the editor gives back, if it still shows the image it was given.

    The background is never taken from the editor; it only tells which image the strokes were painted on: a browser
    that is still loading the next image would hand over the strokes of the last one.

    Args:
        value: of the editor.
        background: `(H, W, 4)` that it was given.

    Raises:
        MedsegError: it shows something else, or other sizes.
    """
    shown = None if value is None else value.get("background")
    if shown is None or shown.shape != background.shape or not np.array_equal(shown[..., :3], background[..., :3]):
        raise MedsegError("the editor does not show this image yet; wait until it does, then try again")
    layers = (value or {}).get("layers") or [np.zeros_like(background)]
    if len(layers) != 1 or layers[0].shape != background.shape:
        shapes = ", ".join(f"{layer.shape[1]}x{layer.shape[0]}" for layer in layers)
        raise MedsegError(
            f"the editor gave layers of {shapes}, wanted one of {background.shape[1]}x{background.shape[0]}; "
            "open the image again"
        )
    layer: np.ndarray = layers[0]
    return layer
