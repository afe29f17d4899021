"""Geometric part of adaptive augmentation: one affine map per image, resampled without aliasing."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2_ada_pytorch.resample import apply_separable, resampling_matrix

# Low-pass filter of the wavelet sym6 (Daubechies, 1992), before its scaling to sum one.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)


def matrices(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """Matrices `(B, n, n)` from rows of entries, each a number or a `(B,)` tensor."""
    result = like.new_zeros(len(like), len(rows), len(rows))
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            if isinstance(entry, Tensor) or entry != 0:
                result[:, i, j] = entry
    return result


def translation(x: Tensor, y: Tensor) -> Tensor:
    """`(B, 3, 3)` translations by `(B,)` x and y."""
    return matrices([[1, 0, x], [0, 1, y], [0, 0, 1]], like=x)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """`(B, 3, 3)` scalings by `(B,)` x and y."""
    return matrices([[x, 0, 0], [0, y, 0], [0, 0, 1]], like=x)


def rotation(angle: Tensor) -> Tensor:
    """`(B, 3, 3)` rotations by `(B,)` angles in radians."""
    cos, sin = angle.cos(), angle.sin()
    return matrices([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], like=angle)


def inverse_transform(parameters: dict[str, Tensor], height: int, width: int) -> Tensor | None:
    """Map from output to input pixels, origin at the image centre (Karras et al., 2020b, appendix B).

    Args:
        parameters: any of `xflip` (B,) in {0, 1}; `rotate90` (B,) in {0..3} quarter turns; `xint` (B, 2) fractions of
            the image, rounded to pixels; `scale` (B,) factors; `rotate_before` and `rotate_after` (B,) radians;
            `aniso` (B,) factors of x against y; `xfrac` (B, 2) fractions of the image.
        height: of the image.
        width: of the image.

    Returns:
        `(B, 3, 3)`, or None when no parameter is geometric.
    """
    steps = []
    if "xflip" in parameters:
        flip = 1 - 2 * parameters["xflip"]
        steps.append(scaling(flip, torch.ones_like(flip)))
    if "rotate90" in parameters:
        steps.append(rotation(parameters["rotate90"] * (math.pi / 2)))
    if "xint" in parameters:
        x, y = parameters["xint"].unbind(dim=1)
        steps.append(translation(-(x * width).round(), -(y * height).round()))
    if "scale" in parameters:
        factor = 1 / parameters["scale"]
        steps.append(scaling(factor, factor))
    if "rotate_before" in parameters:
        steps.append(rotation(parameters["rotate_before"]))
    if "aniso" in parameters:
        steps.append(scaling(1 / parameters["aniso"], parameters["aniso"]))
    if "rotate_after" in parameters:
        steps.append(rotation(parameters["rotate_after"]))
    if "xfrac" in parameters:
        x, y = parameters["xfrac"].unbind(dim=1)
        steps.append(translation(-x * width, -y * height))
    return functools.reduce(torch.matmul, steps) if steps else None


def reflect_columns(matrix: Tensor, size: int, before: int) -> Tensor:
    """Fold the columns of a matrix for a reflect-padded signal back onto the signal itself.

    Args:
        matrix: `(..., M, before + N + after)`.
        size: N samples of the signal.
        before: samples of padding in front.

    Returns:
        `(..., M, N)`: the product with the signal equals that of `matrix` with the padded one.
    """
    period = max(2 * (size - 1), 1)
    index = (torch.arange(matrix.shape[-1], device=matrix.device) - before) % period
    index = torch.where(index < size, index, period - index)
    folded = matrix.new_zeros(*matrix.shape[:-1], size)
    return folded.index_add(folded.dim() - 1, index, matrix)


def padding_for(inverse: Tensor, height: int, width: int, extra: int) -> tuple[int, int, int, int]:
    """Margins (left, top, right, bottom) that every image of the batch needs, at most its size minus one."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-cx, cx, cx, -cx], [-cy, -cy, cy, cy], [1, 1, 1, 1]])
    reach = (inverse @ corners)[:, :2]  # (B, 2, 4)
    x, y = reach.amax(dim=(0, 2)).tolist()
    left, top = (-reach).amax(dim=(0, 2)).tolist()
    ask = ((left - cx, width), (top - cy, height), (x - cx, width), (y - cy, height))
    margins = [math.ceil(min(max(beyond + 2 * extra, 0), size - 1)) for beyond, size in ask]
    return margins[0], margins[1], margins[2], margins[3]


def warp(images: Tensor, inverse: Tensor, taps: Tensor) -> Tensor:
    """Transform images: reflect-pad, upsample by two, sample bilinearly, downsample by two.

    Padding and upsampling are one matrix per axis, so the padded images are never made.

    Args:
        images: `(B, C, H, W)`.
        inverse: `(B, 3, 3)` maps from output to input pixels, origin at the image centre.
        taps: `(T,)` low-pass filter of sum one.

    Returns:
        `(B, C, H, W)`.
    """
    height, width = images.shape[2:]
    extra, half = len(taps) // 4, len(taps) // 2
    left, top, right, bottom = padding_for(inverse, height, width, extra)

    def upsampling(size: int, before: int, after: int) -> Tensor:
        padded = resampling_matrix(taps * 2, size + before + after, up=2, padding=(half, half - 1))
        return reflect_columns(padded, size, before).to(images.dtype)

    big = apply_separable(images, upsampling(height, top, bottom), upsampling(width, left, right))

    # The same map between the coordinates of grid_sample: [-1, 1] across the canvas to [-1, 1] across the big images,
    # through pixels: 2 (inverse(q / 2 + 1/4) + shift) - 1/2, shift half the difference of the margins.
    canvas_height, canvas_width = 2 * (height + 2 * extra), 2 * (width + 2 * extra)
    big_height, big_width = big.shape[2:]
    x = [4 / big_width, 0, (2 * (left - right) - 1) / big_width]
    y = [0, 4 / big_height, (2 * (top - bottom) - 1) / big_height]
    to_grid = inverse.new_tensor([x, y, [0, 0, 1]])
    from_grid = inverse.new_tensor([[canvas_width / 4, 0, 0.25], [0, canvas_height / 4, 0.25], [0, 0, 1]])
    theta = (to_grid @ inverse @ from_grid)[:, :2]
    big = sample(big, affine_grid(theta, canvas_height, canvas_width).to(images.dtype))

    def downsampling(size: int) -> Tensor:
        return resampling_matrix(taps, size, down=2, padding=(-1, -1), flip=True).to(images.dtype)

    rows = downsampling(canvas_height)
    columns = rows if canvas_width == canvas_height else downsampling(canvas_width)
    return apply_separable(big, rows, columns)


def affine_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """`F.affine_grid` as sums of two lines: its products of many rows with three columns take ten times as long.

    Args:
        theta: `(B, 2, 3)`.
        height: of the output, H.
        width: of the output, W.

    Returns:
        `(B, H, W, 2)`.
    """
    x, y = ((2 * torch.arange(size, device=theta.device, dtype=theta.dtype) + 1) / size - 1 for size in (width, height))
    along_x = x[None, :, None] * theta[:, None, :, 0]  # (B, W, 2)
    along_y = torch.addcmul(theta[:, None, :, 2], y[None, :, None], theta[:, None, :, 1])  # (B, H, 2)
    return along_y[:, :, None] + along_x[:, None]


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear sampling, zeros outside, twice differentiable with respect to the images (as R1 needs).

    Args:
        images: `(B, C, H, W)`.
        grid: `(B, H', W', 2)` x and y in [-1, 1] across the image.

    Returns:
        `(B, C, H', W')`.
    """
    if grid_sample_differentiates_twice(images.device.type):
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sample_by_gather(images, grid)


@functools.cache
def grid_sample_differentiates_twice(device_type: str) -> bool:
    """Whether this torch has the second derivative of `grid_sample` on a device; tried once."""
    with torch.enable_grad():
        image = torch.ones(1, 1, 2, 2, device=device_type, requires_grad=True)
        grid = torch.zeros(1, 1, 1, 2, device=device_type)
        value = F.grid_sample(image, grid, align_corners=False).square().sum()
        try:
            (gradient,) = torch.autograd.grad(value, image, create_graph=True)
            torch.autograd.grad(gradient.sum(), image)
        except RuntimeError:
            return False
    return True


def sample_by_gather(images: Tensor, grid: Tensor) -> Tensor:
    """`sample` from gathers and products alone, differentiable to any order on any torch."""
    batch, channels, height, width = images.shape
    x = (grid[..., 0] + 1) * (width / 2) - 0.5
    y = (grid[..., 1] + 1) * (height / 2) - 0.5
    x0, y0 = x.floor(), y.floor()
    flat = images.flatten(2)
    result = torch.zeros(batch, channels, *grid.shape[1:3], dtype=images.dtype, device=images.device)
    for xi, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
        for yi, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
            inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < height)
            index = yi.clamp(0, height - 1).long() * width + xi.clamp(0, width - 1).long()
            corner = flat.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1)).view_as(result)
            result = result + corner * torch.where(inside, wx * wy, 0.0)[:, None]
    return result
