"""How often things happen in a training: recipes count thousands of images, an engine counts steps."""

from __future__ import annotations


def steps_of(kimg: float, batch_size: int) -> int:
    """Steps in so many thousand images, to the nearest whole one and at least one.

    Args:
        kimg: thousands of real images.
        batch_size: real images of a step, of all processes together.
    """
    return max(1, round(kimg * 1000 / batch_size))
