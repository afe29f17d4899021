"""CT noise: coloured spectrum, stronger in the middle of the body, and streaks between the shoulders."""

from __future__ import annotations

import numpy as np
from scipy import fft

REFERENCE_COLUMNS = 256


def noise_amplitude(matrix: int, pixel: float, peak: float) -> np.ndarray:
    """Filter that turns white noise of unit variance into CT noise of a pixel grid.

    Filtered back-projection has a noise power that rises with frequency (the ramp) until the kernel cuts it off
    (Riederer et al., 1978). The power is normalised to unit variance at 256 columns over the same field of view, so
    that a coarser matrix, whose pixels average finer ones, is less noisy, as in a scanner.

    Args:
        matrix: pixels per side.
        pixel: their size, mm.
        peak: 1/mm, frequency of the strongest noise.

    Returns:
        `(matrix, matrix // 2 + 1)` amplitudes for `rfft2`.
    """

    def power(columns: int) -> tuple[np.ndarray, np.ndarray]:
        step = pixel * matrix / columns
        fy, fx = np.fft.fftfreq(columns, step)[:, None], np.fft.rfftfreq(columns, step)[None]
        f = np.hypot(fx, fy)
        aperture = np.sinc(fx * step) * np.sinc(fy * step)
        weight = np.where((fx == 0) | (fx == fx.max()), 1.0, 2.0)  # rfft keeps one half of the plane
        spectrum = (f + 0.1 * peak) * np.exp(-0.5 * (f / peak) ** 2) * aperture**2
        return spectrum, weight

    reference, weight = power(REFERENCE_COLUMNS)
    density = (reference * weight).sum() / (pixel * matrix) ** 2  # variance of a unit density, per mm^-2 cell
    spectrum, _ = power(matrix)
    return np.sqrt(spectrum / density) / pixel


def add_noise(
    image: np.ndarray, rng: np.random.Generator, amplitude: np.ndarray, level: float, middle: np.ndarray, streak: float
) -> None:
    """Add noise in place.

    Args:
        image: `(H, W)` HU.
        rng: the slice's random stream.
        amplitude: from `noise_amplitude`.
        level: standard deviation in the body's middle at 256 columns, HU.
        middle: `(H, W)` 0 outside to 1 in the middle of the body.
        streak: extra noise along rows (photon starvation between the shoulders), relative to `level`.
    """
    white = rng.standard_normal(image.shape, dtype=np.float32)
    grain = fft.irfft2(fft.rfft2(white) * amplitude.astype(np.float32), s=image.shape)
    if streak > 0:
        rows = rng.standard_normal((image.shape[0], 1), dtype=np.float32)
        smooth = fft.irfft(
            fft.rfft(white, axis=1) * np.exp(-0.5 * (np.arange(image.shape[1] // 2 + 1) / 6) ** 2), axis=1
        )
        grain += streak * (2.5 * smooth + 0.3 * rows)
    image += level * grain * (0.35 + 0.65 * middle)
