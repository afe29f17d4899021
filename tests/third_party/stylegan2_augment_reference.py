"""Adaptive augmentation written plainly from its definition (Karras et al., 2020b, appendix B): the pipe's oracle.

Parameters are those of `AugmentPipe.apply_parameters`; nothing here uses the package.
"""

import math

import torch
import torch.nn.functional as F
from stylegan2_reference import upfirdn
from torch import Tensor

Parameters = dict[str, Tensor]

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
PAD = len(SYM6) // 4


def augment(images: Tensor, parameters: Parameters) -> Tensor:
    """Geometry, colour, bands of frequency, noise, cutout; what has no parameter is left out."""
    inverse = inverse_matrices(parameters, images)
    if inverse is not None:
        images = transform(images, inverse)
    images = colour(images, parameters)
    if "bands" in parameters:
        images = filter_bands(images, parameters["bands"])
    if "noise" in parameters:
        images = images + parameters["noise"]
    if "cutout_size" in parameters:
        images = cutout(images, parameters["cutout_centre"], parameters["cutout_size"])
    return images


def translate(x: float, y: float) -> Tensor:
    return torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def stretch(x: float, y: float) -> Tensor:
    return torch.tensor([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def inverse_matrices(parameters: Parameters, images: Tensor) -> Tensor | None:
    """From output to input pixels, origin in the middle, one sample and one inverse after the other."""
    names = ("xflip", "rotate90", "xint", "scale", "rotate_before", "aniso", "rotate_after", "xfrac")
    if not any(name in parameters for name in names):
        return None
    height, width = images.shape[2:]
    result = []
    for n in range(len(images)):
        given = {name: parameters[name][n].tolist() for name in names if name in parameters}
        G = torch.eye(3)
        if "xflip" in given:
            G = G @ stretch(1 - 2 * given["xflip"], 1)
        if "rotate90" in given:
            G = G @ turn(math.pi / 2 * given["rotate90"])
        if "xint" in given:
            x, y = (parameters["xint"][n] * torch.tensor([width, height])).round().tolist()
            G = G @ translate(-x, -y)
        if "scale" in given:
            G = G @ stretch(1 / given["scale"], 1 / given["scale"])
        if "rotate_before" in given:
            G = G @ turn(given["rotate_before"])
        if "aniso" in given:
            G = G @ stretch(1 / given["aniso"], given["aniso"])
        if "rotate_after" in given:
            G = G @ turn(given["rotate_after"])
        if "xfrac" in given:
            G = G @ translate(-given["xfrac"][0] * width, -given["xfrac"][1] * height)
        result.append(G)
    return torch.stack(result)


def transform(images: Tensor, G: Tensor) -> Tensor:
    """Reflect-pad, double with sym6, sample bilinearly, halve with sym6 turned round."""
    batch, channels, height, width = images.shape
    taps = torch.tensor(SYM6)
    fir = torch.outer(taps, taps) / taps.sum().square()

    # Margins in which every image of the batch has all that it shows.
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor([[-cx, -cy, 1], [cx, -cy, 1], [cx, cy, 1], [-cx, cy, 1]])
    reached = (G @ corners.T)[:, :2].transpose(0, 1).flatten(1)  # (2, 4 B)
    margins = torch.cat([-reached, reached]).amax(dim=1)  # left, top, right, bottom
    margins = margins + torch.tensor([2 * PAD - cx, 2 * PAD - cy] * 2)
    margins = margins.clamp(min=0).minimum(torch.tensor([width - 1.0, height - 1.0] * 2)).ceil()
    left, top, right, bottom = (int(margin) for margin in margins)
    images = F.pad(images, (left, right, top, bottom), mode="reflect")
    G = translate((left - right) / 2, (top - bottom) / 2) @ G

    images = upfirdn(images, fir, up=2, padding=(6, 5), gain=4)
    G = stretch(2, 2) @ G @ stretch(0.5, 0.5)
    G = translate(-0.5, -0.5) @ G @ translate(0.5, 0.5)

    canvas = [batch, channels, (height + 2 * PAD) * 2, (width + 2 * PAD) * 2]
    G = stretch(2 / images.shape[3], 2 / images.shape[2]) @ G @ stretch(canvas[3] / 2, canvas[2] / 2)
    grid = F.affine_grid(G[:, :2], canvas, align_corners=False).to(images.dtype)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return upfirdn(images, fir.flip((0, 1)), down=2, padding=(-1, -1))


def colour(images: Tensor, parameters: Parameters) -> Tensor:
    """One 4 x 4 matrix per sample on homogeneous RGB; grey takes the mean of its rows."""
    channels = images.shape[1]
    names = ["brightness", "contrast", "lumaflip", *(["hue", "saturation"] if channels > 1 else [])]
    if not any(name in parameters for name in names):
        return images
    luma = torch.tensor([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)
    onto_luma, eye = torch.outer(luma, luma), torch.eye(4)
    result = []
    for n, image in enumerate(images):
        given = {name: float(parameters[name][n]) for name in names if name in parameters}
        C = eye
        if "brightness" in given:
            offset = eye.clone()
            offset[:3, 3] = given["brightness"]
            C = offset @ C
        if "contrast" in given:
            C = torch.diag(torch.tensor([given["contrast"]] * 3 + [1.0])) @ C
        if "lumaflip" in given:
            C = (eye - 2 * onto_luma * given["lumaflip"]) @ C
        if "hue" in given:
            C = about_luma(given["hue"]) @ C
        if "saturation" in given:
            C = (onto_luma + (eye - onto_luma) * given["saturation"]) @ C
        C = C.to(image.dtype)
        if channels == 1:
            row = C[:3].mean(dim=0)
            result.append(image * row[:3].sum() + row[3])
        else:
            result.append(torch.einsum("ij,jhw->ihw", C[:3, :3], image) + C[:3, 3, None, None])
    return torch.stack(result)


def about_luma(angle: float) -> Tensor:
    """Rotation about the grey axis: the exponential of its generator."""
    n = 1 / math.sqrt(3)
    generator = torch.tensor([[0, -n, n, 0], [n, 0, -n, 0], [-n, n, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(generator * angle).to(torch.get_default_dtype())


def filter_bank() -> Tensor:
    """`(4, 43)`: three times, spread every row, smooth it, and add the high pass to the next."""
    low = list(SYM2)
    high = [tap * (-1) ** n for n, tap in enumerate(low)]
    low2 = [tap / 2 for tap in polynomial(low, low[::-1])]
    high2 = [tap / 2 for tap in polynomial(high, high[::-1])]
    rows = [[1.0], [0.0], [0.0], [0.0]]
    for i in (1, 2, 3):
        spread = [[row[n // 2] if n % 2 == 0 else 0.0 for n in range(2 * len(row) - 1)] for row in rows]
        rows = [polynomial(row, low2) for row in spread]
        start = (len(rows[0]) - len(high2)) // 2
        for n, tap in enumerate(high2):
            rows[i][start + n] += tap
    return torch.tensor(rows)


def polynomial(a: list[float], b: list[float]) -> list[float]:
    """Product of two polynomials, that is the full convolution of their coefficients."""
    result = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            result[i + j] += x * y
    return result


def filter_bands(images: Tensor, amplitudes: Tensor) -> Tensor:
    """Every image with its own filter along both axes, reflected at the borders."""
    bank, power = filter_bank(), torch.tensor([10.0, 1.0, 1.0, 1.0]) / 13
    result = []
    for image, amplitude in zip(images, amplitudes, strict=True):
        gains = torch.ones(4)
        for i in range(4):
            t = torch.ones(4)
            t[i] = amplitude[i]
            gains = gains * (t / (power * t.square()).sum().sqrt())
        taps = (gains @ bank).to(image.dtype)
        half = len(taps) // 2
        padded = F.pad(image[None], (half, half, half, half), mode="reflect").transpose(0, 1)  # (C, 1, H', W')
        rows = F.conv2d(padded, taps.flip(0)[None, None, None, :])
        result.append(F.conv2d(rows, taps.flip(0)[None, None, :, None])[:, 0])
    return torch.stack(result)


def cutout(images: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    height, width = images.shape[2:]
    x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
    result = []
    for image, centre, size in zip(images, centres, sizes, strict=True):
        inside = ((y - centre[1]).abs() < size / 2)[:, None] & ((x - centre[0]).abs() < size / 2)[None]
        result.append(torch.where(inside, 0.0, image))
    return torch.stack(result)
