"""Colour, frequency, noise and cutout parts of adaptive augmentation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2_ada_pytorch.geometry import matrices, reflect_columns

# Low-pass filter of the wavelet sym2 (Daubechies, 1992).
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
NUM_BANDS = 4
# Share of each band in the power of natural images, lowest first (Karras et al., 2020b, appendix B).
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


def colour_transform(parameters: dict[str, Tensor], channels: int) -> Tensor | None:
    """Affine colour map of each image (Karras et al., 2020b, appendix B).

    Args:
        parameters: any of `brightness` (B,) offsets; `contrast` (B,) factors; `lumaflip` (B,) in {0, 1}; `hue` (B,)
            radians; `saturation` (B,) factors. The last two have no meaning for one channel and are passed over.
        channels: of the images.

    Returns:
        `(B, 4, 4)`, or None when no parameter is a colour's.
    """
    steps = []
    if "brightness" in parameters:
        b = parameters["brightness"]
        steps.append(matrices([[1, 0, 0, b], [0, 1, 0, b], [0, 0, 1, b], [0, 0, 0, 1]], like=b))
    if "contrast" in parameters:
        c = parameters["contrast"]
        steps.append(matrices([[c, 0, 0, 0], [0, c, 0, 0], [0, 0, c, 0], [0, 0, 0, 1]], like=c))
    if "lumaflip" in parameters:
        flip = parameters["lumaflip"]
        steps.append(torch.eye(4).to(flip) - 2 * luma_projection(flip) * flip[:, None, None])
    if "hue" in parameters and channels > 1:
        steps.append(luma_rotation(parameters["hue"]))
    if "saturation" in parameters and channels > 1:
        factor = parameters["saturation"]
        luma = luma_projection(factor)
        steps.append(luma + (torch.eye(4).to(factor) - luma) * factor[:, None, None])
    result = None
    for step in steps:
        result = step if result is None else step @ result
    return result


def luma_projection(like: Tensor) -> Tensor:
    """`(4, 4)` projection onto the grey axis."""
    axis = torch.tensor([1.0, 1.0, 1.0, 0.0]).to(like) / math.sqrt(3)
    return torch.outer(axis, axis)


def luma_rotation(angle: Tensor) -> Tensor:
    """`(B, 4, 4)` rotations about the grey axis by `(B,)` radians (Rodrigues' formula)."""
    n = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -n, n, 0], [n, 0, -n, 0], [-n, n, 0, 0], [0, 0, 0, 0]]).to(angle)
    luma = luma_projection(angle)
    space = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])).to(angle)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    rotation = cos * space + (1 - cos) * luma + sin * cross
    return rotation + torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0])).to(angle)


def apply_colour(images: Tensor, transform: Tensor) -> Tensor:
    """Map colours.

    Args:
        images: `(B, C, H, W)`, C 1 or 3. One channel takes the mean of the three rows, as if it were grey RGB.
        transform: `(B, 4, 4)`.

    Returns:
        `(B, C, H, W)`.

    Raises:
        ValueError: for other numbers of channels.
    """
    transform = transform.to(images.dtype)
    if images.shape[1] == 3:
        mixed = transform[:, :3, :3] @ images.flatten(2) + transform[:, :3, 3:]
        return mixed.view_as(images)
    if images.shape[1] == 1:
        row = transform[:, :3].mean(dim=1)  # (B, 4)
        return images * row[:, :3].sum(dim=1)[:, None, None, None] + row[:, 3][:, None, None, None]
    raise ValueError(f"colour augmentation of {images.shape[1]} channels: wanted 1 or 3; choose a pipe without colour")


def wavelet_bank() -> Tensor:
    """`(4, 43)` symmetric filters, lowest band first, that sum to a unit impulse."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    low2, high2 = convolve(low[None], low.flip(0))[0] / 2, convolve(high[None], high.flip(0))[0] / 2
    bank = torch.eye(NUM_BANDS, 1, dtype=torch.float64)
    for band in range(1, NUM_BANDS):
        spread = bank.new_zeros(NUM_BANDS, 2 * bank.shape[1] - 1)
        spread[:, ::2] = bank
        bank = convolve(spread, low2)
        start = (bank.shape[1] - len(high2)) // 2
        bank[band, start : start + len(high2)] += high2
    return bank.float()


def convolve(rows: Tensor, taps: Tensor) -> Tensor:
    """Full convolution of each row of `(R, N)` with `(T,)` taps: `(R, N + T - 1)`."""
    return F.conv1d(rows[:, None], taps.flip(0)[None, None], padding=len(taps) - 1)[:, 0]


def band_gains(amplitudes: Tensor) -> Tensor:
    """Gains of the bands from one amplitude per band, each normalised to keep the expected power.

    Args:
        amplitudes: `(B, 4)`, 1 for a band left alone.

    Returns:
        `(B, 4)`.
    """
    power = torch.tensor(BAND_POWER).to(amplitudes)
    eye = torch.eye(NUM_BANDS).to(amplitudes)
    alone = amplitudes[:, :, None] * eye + (1 - eye)  # (B, band that changes, band)
    alone = alone / (power * alone.square()).sum(dim=2, keepdim=True).sqrt()
    return alone.prod(dim=1)


def apply_filter(images: Tensor, filters: Tensor) -> Tensor:
    """Filter both axes of each image with its own symmetric filter, mirrored at the borders.

    Args:
        images: `(B, C, H, W)`.
        filters: `(B, T)`, T odd.

    Returns:
        `(B, C, H, W)`.
    """
    rows, columns = (filter_matrix(filters.to(images.dtype), n)[:, None] for n in images.shape[2:])
    return rows @ images @ columns.transpose(2, 3)


def filter_matrix(filters: Tensor, size: int) -> Tensor:
    """`(B, T)` filters as matrices `(B, N, N)` on a mirrored signal of N samples."""
    length = filters.shape[1]
    index = torch.arange(size + length - 1, device=filters.device) - torch.arange(size, device=filters.device)[:, None]
    taps = filters[:, index.clamp(0, length - 1)] * ((index >= 0) & (index < length))
    return reflect_columns(taps, size, length // 2)


def cut_out(images: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    """Set a rectangle to zero.

    Args:
        images: `(B, C, H, W)`.
        centres: `(B, 2)` x and y as fractions of the image.
        sizes: `(B,)` side as a fraction of the image; 0 for no cut.

    Returns:
        `(B, C, H, W)`.
    """
    outside = []
    for centre, length in zip(centres.T, (images.shape[3], images.shape[2]), strict=True):
        position = (torch.arange(length, device=images.device) + 0.5) / length
        outside.append((position - centre[:, None]).abs() >= sizes[:, None] / 2)
    keep = outside[0][:, None, :] | outside[1][:, :, None]
    return images * keep[:, None].to(images.dtype)
