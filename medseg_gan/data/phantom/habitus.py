"""A patient's build, tissue values and scan: everything drawn at random once per patient, and the body's outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg_gan.data.phantom.shapes import Pose, sector_angles

PHASES = ("none", "arterial", "venous")
PHASE_ODDS = (0.30, 0.36, 0.34)
THETA = sector_angles()  # 0 patient's left, pi / 2 back, -pi / 2 front
FRONT, BACK = THETA < 0, THETA >= 0


@dataclass(frozen=True)
class Build:
    """Size and proportions; lengths in mm."""

    half_width: float  # of the rib cage inside, at mid chest
    half_depth: float
    lung_length: float  # apex to the lowest recess
    wall: float  # muscle on the ribs
    fat: float
    breast: float  # 0: none
    roundness: tuple[float, float]  # superellipse powers of the rib cage, front and back
    sides: tuple[float, float]  # right and left half relative to each other
    lumps: np.ndarray  # (K, 3): waves of the skin outline: count, phase, height


@dataclass(frozen=True)
class Tissue:
    """HU of this patient in this scan."""

    phase: str
    muscle: float
    fat: float
    lung: float
    lung_slope: float  # HU per mm towards the back: blood sinks
    blood: float  # aorta and left heart
    right_blood: float  # right heart, pulmonary arteries
    vein: float  # superior vena cava
    myocardium: float
    liver: float
    spleen: float
    bone: float
    marrow: float
    esophagus: float
    mediastinal_fat: float


@dataclass(frozen=True)
class Scan:
    """How the patient was scanned."""

    pixel: float  # mm at 256 columns
    pose: Pose
    thickness: float  # mm
    noise: float  # HU in the middle of the body at 256 columns
    noise_frequency: float  # 1/mm, where the noise spectrum peaks
    blur: float  # mm, standard deviation of the point spread
    axes: str  # how the voxels lie in the file, as nibabel's codes
    circle: bool  # reconstruction circle visible
    prone: bool  # lying on the front: the couch is there


def clipped_normal(rng: np.random.Generator, mean: float, sd: float, width: float = 2.5) -> float:
    """A normal draw within `width` standard deviations."""
    return float(mean + sd * np.clip(rng.standard_normal(), -width, width))


def draw_build(rng: np.random.Generator) -> Build:
    """Draw a build; the spread follows the body areas measured on real slices (518/670/828 cm2)."""
    size = clipped_normal(rng, 0.03, 0.055)
    woman = rng.random() < 0.45
    count = 4
    return Build(
        half_width=137 * np.exp(size + clipped_normal(rng, 0, 0.04)) * (0.96 if woman else 1.02),
        half_depth=89 * np.exp(size + clipped_normal(rng, 0, 0.08)),
        lung_length=clipped_normal(rng, 262, 24) * (0.95 if woman else 1.03),
        wall=clipped_normal(rng, 12, 2.5) * (0.85 if woman else 1.1),
        fat=float(np.clip(14 * np.exp(0.5 * rng.standard_normal()), 4, 34)),
        breast=float(rng.uniform(6, 36)) if woman else float(rng.uniform(0, 6)),
        roundness=(rng.uniform(1.9, 2.4), rng.uniform(2.1, 2.9)),
        sides=(clipped_normal(rng, 1, 0.03), clipped_normal(rng, 1, 0.03)),
        lumps=np.stack(
            [rng.integers(2, 8, count), rng.uniform(0, 2 * np.pi, count), rng.normal(0, 1.2, count)], axis=1
        ),
    )


def draw_tissue(rng: np.random.Generator, phase: str | None = None) -> Tissue:
    """Draw HU values; the contrast phase decides those of the blood."""
    phase = phase or str(rng.choice(PHASES, p=PHASE_ODDS))
    muscle = clipped_normal(rng, 42, 12)
    plain = clipped_normal(rng, 42, 5)
    if phase == "none":
        blood = right = vein = plain
        myocardium, liver, spleen = plain + rng.uniform(-2, 8), clipped_normal(rng, 55, 7), clipped_normal(rng, 48, 4)
    elif phase == "arterial":
        early = rng.random() < 0.4  # the bolus still in the right heart, or already past it
        blood = rng.uniform(150, 210) if early else rng.uniform(210, 350)
        right = rng.uniform(280, 450) if early else rng.uniform(60, 200)
        vein = rng.uniform(300, 520) if early else rng.uniform(60, 300)
        myocardium, liver, spleen = rng.uniform(56, 84), rng.uniform(46, 70), rng.uniform(65, 125)
    else:
        blood = rng.uniform(150, 200)
        right, vein = blood + rng.uniform(-15, 15), blood + rng.uniform(-15, 30)
        myocardium, liver, spleen = rng.uniform(60, 84), rng.uniform(54, 78), rng.uniform(65, 95)
    fat = clipped_normal(rng, -102, 7)
    lung = clipped_normal(rng, -885, 28)
    if rng.random() < 0.25:
        lung += rng.uniform(80, 290)  # breathed out, oedema, fibrosis
    return Tissue(
        phase=phase, muscle=muscle, fat=fat, lung=lung, lung_slope=float(rng.uniform(0.05, 0.55)), blood=blood,
        right_blood=right, vein=vein, myocardium=myocardium, liver=liver, spleen=spleen,
        bone=rng.uniform(330, 620), marrow=rng.uniform(110, 240), esophagus=clipped_normal(rng, 36, 7),
        mediastinal_fat=fat + rng.uniform(2, 25),
    )  # fmt: skip


def draw_scan(rng: np.random.Generator, build: Build) -> Scan:
    """Draw the scan; pixels follow 1.13/1.48/1.95 mm at 256 columns and lean towards the patient's width."""
    width = (build.half_width + build.wall + build.fat) / 163
    pixel = 1.46 * width**0.5 * np.exp(0.145 * rng.standard_normal())
    angle = np.deg2rad(5.0) * rng.standard_normal()
    if rng.random() < 0.20:
        angle = float(np.deg2rad(rng.uniform(10, 19)) * rng.choice((-1, 1)))  # lying half on a side
    count = 3
    waves = np.stack(
        [
            *(rng.normal(0, 2 * np.pi / 300, (2, count))),
            rng.uniform(0, 2 * np.pi, count),
            *rng.normal(0, 2.2, (2, count)),
        ],
        axis=1,
    )
    return Scan(
        pixel=float(np.clip(pixel, 2 * (build.half_width + 14) / 256, 2.1)),  # skin may be cut off, lungs not
        pose=Pose(float(angle), (clipped_normal(rng, 0, 8), clipped_normal(rng, -8, 12)), waves),
        thickness=float(rng.choice((2.5, 3.0, 5.0))),
        noise=float(np.clip(20 * np.exp(0.5 * rng.standard_normal()), 7, 60)),
        noise_frequency=float(rng.uniform(0.12, 0.28)),
        blur=float(rng.uniform(0.5, 1.2)),
        axes=str(rng.choice(("LPS", "RAS", "LAS", "RPS"), p=(0.4, 0.3, 0.15, 0.15))),
        circle=bool(rng.random() < 0.25 and 128 * pixel > 1.25 * build.half_width),
        prone=bool(rng.random() < 0.10),
    )


def bump(centre: float, width: float) -> np.ndarray:
    """`(SECTORS,)` a bell of height 1 about a direction; both in degrees."""
    difference = np.angle(np.exp(1j * (THETA - np.deg2rad(centre))))
    return np.exp(-((difference / np.deg2rad(width)) ** 2))


_DENT = bump(90, 15)
_SIDE = np.cos(THETA) ** 2
_PARASPINAL = 0.7 * (bump(62, 26) + bump(118, 26)) + bump(90, 20)
_PECTORAL = bump(-42, 24) + bump(-138, 24)
_BREAST = bump(-46, 24) + bump(-134, 24)
_BACK_FLAT = bump(90, 40)


def rib_outline(build: Build, t: float) -> np.ndarray:
    """Inside of the rib cage.

    Args:
        build: the patient's build.
        t: depth relative to the lungs' length, 0 at the apex.

    Returns:
        `(SECTORS,)` distance from the body axis, mm.
    """
    across = build.half_width * np.interp(t, (-0.1, 0, 0.1, 0.25, 0.5, 0.8, 1.1), (0.62, 0.68, 0.8, 0.92, 1, 1.03, 1))
    front = build.half_depth * np.interp(t, (-0.1, 0, 0.2, 0.5, 0.8, 1.1), (0.35, 0.5, 0.8, 1.0, 1.08, 1.06))
    back = build.half_depth * np.interp(t, (-0.1, 0, 0.2, 0.5, 0.8, 1.1), (0.65, 0.75, 0.95, 1.0, 0.98, 0.9))
    wide = across * np.where(np.cos(THETA) > 0, build.sides[1], build.sides[0])
    deep = np.where(FRONT, front, back)
    power = np.where(FRONT, *build.roundness)
    radius = (np.abs(np.cos(THETA) / wide) ** power + np.abs(np.sin(THETA) / deep) ** power) ** (-1 / power)
    return radius * (1 - 0.15 * _DENT)


def muscle_outline(build: Build, t: float) -> np.ndarray:
    """Outside of the chest wall's muscles, `(SECTORS,)` mm; thick at the shoulders."""
    shoulder = float(np.interp(t, (-0.1, 0.0, 0.12, 0.3, 0.5, 0.7), (44, 38, 24, 13, 4, 0)))
    pectoral = float(np.interp(t, (-0.1, 0.1, 0.3, 0.5), (4, 12, 10, 0)))
    inner = rib_outline(build, t)
    return inner + build.wall * (0.75 + 0.55 * _PARASPINAL) + shoulder * _SIDE**2 + pectoral * _PECTORAL


def skin_outline(build: Build, t: float) -> np.ndarray:
    """Skin, `(SECTORS,)` mm: fat over the muscles, thicker at the flanks, with breasts and irregularities."""
    level = float(np.interp(t, (-0.1, 0.2, 0.6, 1.0), (0.8, 0.9, 1.0, 1.2)))
    fat = build.fat * level * (0.75 + 0.45 * _SIDE + 0.15 * _BACK_FLAT)
    breast = build.breast * float(np.interp(t, (0.15, 0.4, 0.6, 0.85), (0, 0.8, 1, 0)))
    lumps = sum(height * np.sin(count * THETA + phase + 2 * t) for count, phase, height in build.lumps)
    return muscle_outline(build, t) + fat + breast * _BREAST + lumps + 2.0
