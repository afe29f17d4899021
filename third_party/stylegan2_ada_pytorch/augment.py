"""Adaptive discriminator augmentation: the pipe of transformations and the controller of its strength."""

import math

import torch
from torch import Tensor, nn

from stylegan2_ada_pytorch.geometry import SYM6, inverse_transform, warp
from stylegan2_ada_pytorch.intensity import (
    NUM_BANDS,
    apply_colour,
    apply_filter,
    band_gains,
    colour_transform,
    cut_out,
    wavelet_bank,
)

_BLIT: dict[str, float] = {"xflip": 1, "rotate90": 1, "xint": 1}
_GEOM: dict[str, float] = {"scale": 1, "rotate": 1, "aniso": 1, "xfrac": 1}
_COLOUR: dict[str, float] = {"brightness": 1, "contrast": 1, "lumaflip": 1, "hue": 1, "saturation": 1}
_FILTER: dict[str, float] = {"imgfilter": 1}
_NOISE: dict[str, float] = {"noise": 1}
_CUTOUT: dict[str, float] = {"cutout": 1}

# Transformations of each pipe, for `AugmentPipe(**AUGMENT_PIPES[name])`. "medical" leaves out what teaches wrong
# anatomy if it leaks into the generator: mirroring (situs inversus), quarter turns, negated intensities.
AUGMENT_PIPES: dict[str, dict[str, float]] = {
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOUR,
    "filter": _FILTER,
    "noise": _NOISE,
    "cutout": _CUTOUT,
    "bg": {**_BLIT, **_GEOM},
    "bgc": {**_BLIT, **_GEOM, **_COLOUR},
    "bgcf": {**_BLIT, **_GEOM, **_COLOUR, **_FILTER},
    "bgcfn": {**_BLIT, **_GEOM, **_COLOUR, **_FILTER, **_NOISE},
    "bgcfnc": {**_BLIT, **_GEOM, **_COLOUR, **_FILTER, **_NOISE, **_CUTOUT},
    "medical": {"xint": 1, **_GEOM, "brightness": 1, "contrast": 1},
}


class AugmentPipe(nn.Module):
    """Random differentiable transformations of image batches (Karras et al., 2020b).

        pipe = AugmentPipe(**AUGMENT_PIPES["medical"])
        pipe.p.fill_(0.3)
        logits = D(pipe(images))

    Each transformation has a strength (0 off, 1 on): it happens to an image with probability `strength * p`. All
    random numbers are drawn by `draw`; `apply` is a deterministic function of images and parameters.

    Args:
        xflip: mirroring left to right.
        rotate90: quarter turns.
        xint: shifts by whole pixels.
        scale: isotropic scaling.
        rotate: rotation by any angle.
        aniso: stretching of one axis against the other.
        xfrac: shifts by fractions of pixels.
        brightness: offsets.
        contrast: factors around zero.
        lumaflip: negative of the luma.
        hue: rotation of the hue (colour images only).
        saturation: factors of the saturation (colour images only).
        imgfilter: gains of four frequency bands.
        noise: additive white noise.
        cutout: a square set to zero.
        xint_max: largest shift by whole pixels, fraction of the image.
        scale_std: deviation of log2 of the scale.
        rotate_max: largest angle, fraction of half a turn.
        aniso_std: deviation of log2 of the stretch.
        xfrac_std: deviation of the fractional shift, fraction of the image.
        brightness_std: deviation of the offset.
        contrast_std: deviation of log2 of the factor.
        hue_max: largest rotation of the hue, fraction of half a turn.
        saturation_std: deviation of log2 of the factor.
        imgfilter_bands: strength of each band, lowest first.
        imgfilter_std: deviation of log2 of a band's gain.
        noise_std: deviation of the noise's own deviation.
        cutout_size: side of the square, fraction of the image.
    """

    def __init__(
        self,
        xflip: float = 0,
        rotate90: float = 0,
        xint: float = 0,
        scale: float = 0,
        rotate: float = 0,
        aniso: float = 0,
        xfrac: float = 0,
        brightness: float = 0,
        contrast: float = 0,
        lumaflip: float = 0,
        hue: float = 0,
        saturation: float = 0,
        imgfilter: float = 0,
        noise: float = 0,
        cutout: float = 0,
        *,
        xint_max: float = 0.125,
        scale_std: float = 0.2,
        rotate_max: float = 1,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1,
        saturation_std: float = 1,
        imgfilter_bands: tuple[float, ...] = (1, 1, 1, 1),
        imgfilter_std: float = 1,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
    ) -> None:
        super().__init__()
        self.xflip, self.rotate90, self.xint = float(xflip), float(rotate90), float(xint)
        self.scale, self.rotate, self.aniso, self.xfrac = float(scale), float(rotate), float(aniso), float(xfrac)
        self.brightness, self.contrast, self.lumaflip = float(brightness), float(contrast), float(lumaflip)
        self.hue, self.saturation = float(hue), float(saturation)
        self.imgfilter, self.noise, self.cutout = float(imgfilter), float(noise), float(cutout)
        self.xint_max, self.scale_std, self.rotate_max = xint_max, scale_std, rotate_max
        self.aniso_std, self.xfrac_std = aniso_std, xfrac_std
        self.brightness_std, self.contrast_std = brightness_std, contrast_std
        self.hue_max, self.saturation_std = hue_max, saturation_std
        self.imgfilter_bands, self.imgfilter_std = tuple(imgfilter_bands), imgfilter_std
        self.noise_std, self.cutout_size = noise_std, cutout_size
        sym6 = torch.tensor(SYM6)
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("Hz_geom", sym6 / sym6.sum())
        self.register_buffer("Hz_fbank", wavelet_bank())
        self.p: Tensor
        self.Hz_geom: Tensor
        self.Hz_fbank: Tensor

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment images; at p = 0 they are returned as they are.

        Args:
            images: `(B, C, H, W)`, nominally in [-1, 1].
            generator: source of all random numbers; the global one of the images' device by default.

        Returns:
            `(B, C, H, W)`.
        """
        if self.p.item() <= 0:
            return images
        return self.apply_parameters(images, self.draw(images, generator))

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the parameters of one batch, for images of this shape, precision and device; see `apply_parameters`."""
        batch, device = len(images), images.device if generator is None else generator.device
        p = float(self.p)
        result: dict[str, Tensor] = {}

        def uniform(*shape: int) -> Tensor:
            return torch.rand(batch, *shape, device=device, generator=generator)

        def normal(*shape: int) -> Tensor:
            return torch.randn(batch, *shape, device=device, generator=generator)

        def keep(name: str, value: Tensor, probability: float, identity: float = 0.0) -> None:
            gate = uniform(*[1] * (value.dim() - 1)) < probability
            result[name] = torch.where(gate, value, identity)

        if self.xflip:
            keep("xflip", (uniform() * 2).floor(), self.xflip * p)
        if self.rotate90:
            keep("rotate90", (uniform() * 4).floor(), self.rotate90 * p)
        if self.xint:
            keep("xint", (uniform(2) * 2 - 1) * self.xint_max, self.xint * p)
        if self.scale:
            keep("scale", torch.exp2(normal() * self.scale_std), self.scale * p, 1)
        # One of the two rotations happens with probability p.
        p_rotate = 1 - math.sqrt(min(max(1 - self.rotate * p, 0), 1))
        if self.rotate:
            keep("rotate_before", (uniform() * 2 - 1) * (math.pi * self.rotate_max), p_rotate)
        if self.aniso:
            keep("aniso", torch.exp2(normal() * self.aniso_std), self.aniso * p, 1)
        if self.rotate:
            keep("rotate_after", (uniform() * 2 - 1) * (math.pi * self.rotate_max), p_rotate)
        if self.xfrac:
            keep("xfrac", normal(2) * self.xfrac_std, self.xfrac * p)
        if self.brightness:
            keep("brightness", normal() * self.brightness_std, self.brightness * p)
        if self.contrast:
            keep("contrast", torch.exp2(normal() * self.contrast_std), self.contrast * p, 1)
        if self.lumaflip:
            keep("lumaflip", (uniform() * 2).floor(), self.lumaflip * p)
        if self.hue:
            keep("hue", (uniform() * 2 - 1) * (math.pi * self.hue_max), self.hue * p)
        if self.saturation:
            keep("saturation", torch.exp2(normal() * self.saturation_std), self.saturation * p, 1)
        if self.imgfilter:
            amplitudes = torch.exp2(normal(NUM_BANDS) * self.imgfilter_std)
            bands = torch.tensor(self.imgfilter_bands, device=device) * (self.imgfilter * p)
            result["bands"] = torch.where(uniform(NUM_BANDS) < bands, amplitudes, 1.0)
        if self.noise:
            keep("noise_std", normal().abs() * self.noise_std, self.noise * p)
            result["noise"] = normal(*images.shape[1:]) * result["noise_std"][:, None, None, None]
        if self.cutout:
            result["cutout_centre"] = uniform(2)
            keep("cutout_size", torch.full((batch,), self.cutout_size, device=device), self.cutout * p)
        return {name: value.to(images.device) for name, value in result.items()}

    def apply_parameters(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Apply given parameters.

        Args:
            images: `(B, C, H, W)`.
            parameters: those of `geometry.inverse_transform` and `intensity.colour_transform`; `bands` (B, 4)
                amplitudes of the frequency bands; `noise` (B, C, H, W) to be added; `cutout_centre` (B, 2) and
                `cutout_size` (B,) as fractions of the image. What is missing is left undone.

        Returns:
            `(B, C, H, W)`.
        """
        inverse = inverse_transform(parameters, *images.shape[2:])
        if inverse is not None:
            images = warp(images, inverse, self.Hz_geom)
        colours = colour_transform(parameters, images.shape[1])
        if colours is not None:
            images = apply_colour(images, colours)
        if "bands" in parameters:
            images = apply_filter(images, band_gains(parameters["bands"]) @ self.Hz_fbank)
        if "noise" in parameters:
            images = images + parameters["noise"].to(images.dtype)
        if "cutout_size" in parameters:
            images = cut_out(images, parameters["cutout_centre"], parameters["cutout_size"])
        return images


def update_p(p: float, mean_sign: float, images: int, *, target: float, ada_kimg: float, p_max: float) -> float:
    """One step of the controller (Karras et al., 2020b, section 3.2), held within 0 and `p_max`.

    Args:
        p: probability before.
        mean_sign: mean of sign(D(real)) since the last step, in [-1, 1].
        images: real images shown since the last step.
        target: mean sign to hold.
        ada_kimg: thousands of images in which p can go from 0 to 1.
        p_max: upper bound; near 1 the transformations leak into the generated images.

    Returns:
        The probability after.
    """
    direction = (mean_sign > target) - (mean_sign < target)
    return min(max(p + direction * images / (ada_kimg * 1000), 0.0), p_max)


class AdaController:
    """Adapts `pipe.p` so that the discriminator's mean sign on real images stays at a target.

        controller = AdaController(pipe, ada_kimg=500)
        controller.report(D(pipe(real)))   # after every discriminator pass on real images
        controller.update(images=4 * batch_size)  # every fourth iteration

    Args:
        pipe: whose p to adapt.
        target: mean sign to hold.
        ada_kimg: thousands of images in which p can go from 0 to 1.
        p_max: upper bound of p.
    """

    def __init__(self, pipe: AugmentPipe, *, target: float = 0.6, ada_kimg: float = 500, p_max: float = 0.8) -> None:
        self.pipe, self.target, self.ada_kimg, self.p_max = pipe, target, ada_kimg, p_max
        self.sum_of_signs: float | Tensor = 0.0  # on the logits' device, so that no step waits for it
        self.count = 0

    def report(self, real_logits: Tensor) -> None:
        """Take note of `(B, 1)` logits of real images."""
        self.sum_of_signs = real_logits.detach().sign().sum() + self.sum_of_signs
        self.count += real_logits.numel()

    @property
    def mean_sign(self) -> float:
        """Mean sign since the last update; the target itself before anything was reported."""
        return float(self.sum_of_signs) / self.count if self.count else self.target

    def update(self, images: int) -> float:
        """Change p after `images` real images since the last update, forget the signs, and return the new p."""
        settings = {"target": self.target, "ada_kimg": self.ada_kimg, "p_max": self.p_max}
        p = update_p(float(self.pipe.p), self.mean_sign, images, **settings)
        self.pipe.p.fill_(p)
        self.sum_of_signs, self.count = 0.0, 0
        return p

    def state_dict(self) -> dict[str, float]:
        """Plain values that an interrupted training needs to go on."""
        return {"p": float(self.pipe.p), "sum_of_signs": float(self.sum_of_signs), "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up values of `state_dict`."""
        self.pipe.p.fill_(state["p"])
        self.sum_of_signs, self.count = float(state["sum_of_signs"]), int(state["count"])
