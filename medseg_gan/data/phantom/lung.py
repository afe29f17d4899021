"""Inside and around the lungs: vessel trees, disease, diaphragm and what lies below it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from medseg_gan.data.phantom.habitus import Build, Tissue, clipped_normal
from medseg_gan.data.phantom.mediastinum import Landmarks
from medseg_gan.data.phantom.shapes import IN_AIR, Part, ellipsoid, tube_from_points

FORK_EXPONENT = 0.42
"""Radius over end points supplied: between Murray's 1/3 and the 1/2 of constant speed; gives 6-7 mm at the hilum."""

SIDES = (-1, 1)  # the patient's right, left


@dataclass(frozen=True)
class Dome:
    """One half of the diaphragm: a paraboloid, in mm."""

    top: float  # depth of its highest point
    centre: tuple[float, float]
    reach: tuple[float, float, float]  # distance at which it has fallen by `drop`: sideways, front, back
    drop: float

    def depth(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Depth of the dome over patient coordinates, float32."""
        dy = y - np.float32(self.centre[1])
        v = np.where(dy < 0, dy * np.float32(1 / self.reach[1]), dy * np.float32(1 / self.reach[2]))
        u = (x - np.float32(self.centre[0])) * np.float32(1 / self.reach[0])
        return np.float32(self.top) + np.float32(self.drop) * (u * u + v * v)


def draw_domes(rng: np.random.Generator, build: Build) -> tuple[Dome, Dome]:
    """Right and left; the right one is usually higher, the recesses reach the lungs' lower end."""
    L, W, D = build.lung_length, build.half_width, build.half_depth
    right = L * clipped_normal(rng, 0.70, 0.07)
    left = right + L * clipped_normal(rng, 0.04, 0.03)
    return tuple(
        Dome(
            top=float(top),
            centre=(side * W * rng.uniform(0.44, 0.54), -D * rng.uniform(0.02, 0.25)),
            reach=(W * rng.uniform(0.60, 0.74), D * rng.uniform(1.5, 2.1), D * rng.uniform(0.95, 1.2)),
            drop=float(1.06 * L - top) * rng.uniform(0.75, 1.0),
        )
        for side, top in zip(SIDES, (right, left), strict=True)
    )  # type: ignore[return-value]


def grow_tree(
    rng: np.random.Generator, root: np.ndarray, ends: np.ndarray, tip: float
) -> tuple[np.ndarray, np.ndarray]:
    """A branching vessel that supplies every end point, radii growing with what they supply.

    Args:
        rng: random stream.
        root: `(3,)` start, mm.
        ends: `(N, 3)` points to supply, mm.
        tip: radius of the last branches, mm.

    Returns:
        `(P, 3)` points and `(P,)` radii.
    """
    nodes = np.concatenate([root[None], ends[np.argsort(((ends - root) ** 2).sum(1))]])
    count = len(nodes)
    parent, path = np.zeros(count, np.int64), np.zeros(count)
    for i in range(1, count):  # near points first; each hangs on the node that gives a short and direct way
        gap = np.sqrt(((nodes[:i] - nodes[i]) ** 2).sum(1))
        parent[i] = int(np.argmin(gap + 0.55 * path[:i]))
        path[i] = path[parent[i]] + gap[parent[i]]
    load = np.ones(count)
    for i in range(count - 1, 0, -1):
        load[parent[i]] += load[i]
    radius = tip * load[1:] ** FORK_EXPONENT
    start, way = nodes[parent[1:]], nodes[1:] - nodes[parent[1:]]
    length = np.linalg.norm(way, axis=1)
    steps = np.maximum(length / np.maximum(0.6 * radius, 0.8), 2).astype(np.int64)
    edge = np.repeat(np.arange(count - 1), steps)
    s = (np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[edge]
    bow = rng.normal(0, 0.10, way.shape) * length[:, None]
    return start[edge] + way[edge] * s[:, None] + bow[edge] * np.sin(np.pi * s)[:, None], radius[edge]


def vessel_tree_parts(rng: np.random.Generator, build: Build, tissue: Tissue, marks: Landmarks) -> list[Part]:
    """Arteries and veins of both lungs, drawn only where there is aerated lung."""
    L, W, D = build.lung_length, build.half_width, build.half_depth
    count, tip = int(rng.integers(170, 270)), rng.uniform(0.62, 0.86)
    parts = []
    for lift, hu in (((0.0, 0.0, 0.0), tissue.right_blood), ((0.0, -4.0, 12.0), tissue.blood)):
        trees = []
        for side, hilum in zip(SIDES, marks.hila, strict=True):
            turn, far = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
            x, y = side * W * (0.52 + 0.43 * far * np.cos(turn)), 0.9 * D * far * np.sin(turn)
            ends = np.stack([x, y, L * rng.uniform(0.02, 1.0, count)], axis=1)
            trees.append(grow_tree(rng, hilum + np.array(lift), ends, tip))
        points, radii = (np.concatenate(arrays) for arrays in zip(*trees, strict=True))
        parts.append(Part(tube_from_points(points, radii), hu, only=IN_AIR))
    return parts


@dataclass(frozen=True)
class Disease:
    """What is wrong with the lungs; `fluid` and `white` are per side (right, left)."""

    parts: list[Part] = field(default_factory=list)
    fluid: tuple[float, float] = (0.0, 0.0)  # height of pleural fluid lying at the back, mm
    fluid_hu: float = 10.0
    white: tuple[float, float] = (0.0, 0.0)  # share of the lung's length that is airless from below
    shift: float = 0.0  # of the mediastinum to the left, mm


def draw_airless(rng: np.random.Generator) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Fluid heights, airless shares and the shift they cause: towards a collapsed lung, away from much fluid."""
    fluid, white, shift = [0.0, 0.0], [0.0, 0.0], clipped_normal(rng, 0, 9)
    for side in (0, 1):
        if rng.random() < 0.12:
            fluid[side] = float(rng.uniform(8, 70))
        if rng.random() < 0.07:
            white[side] = float(rng.uniform(0.1, 0.45))
    if rng.random() < 0.05:  # a whole lung without air, as after collapse or surgery
        side = int(rng.integers(2))
        white[side] = float(rng.uniform(0.5, 0.8))
        shift += SIDES[side] * float(rng.uniform(10, 30))
    return (fluid[0], fluid[1]), (white[0], white[1]), shift


def lesion_parts(rng: np.random.Generator, build: Build, tissue: Tissue) -> list[Part]:
    """Nodules, masses with spikes, consolidation and emphysema, drawn only in aerated lung."""
    L, W, D = build.lung_length, build.half_width, build.half_depth

    def spot() -> np.ndarray:
        side = rng.choice(SIDES)
        return np.array([side * W * rng.uniform(0.35, 0.9), D * rng.uniform(-0.6, 0.8), L * rng.uniform(0.12, 0.85)])

    parts = []
    soft = tissue.muscle + (rng.uniform(0, 40) if tissue.phase != "none" else 0.0)
    for _ in range(rng.poisson(1.2)):
        parts.append(Part(ellipsoid(spot(), rng.uniform(2, 8) * rng.uniform(0.8, 1.2, 3)), soft, only=IN_AIR))
    if rng.random() < 0.30:  # a mass: overlapping balls
        centre, size = spot(), rng.uniform(9, 28)
        points = centre + rng.normal(0, 0.45 * size, (40, 3))
        parts.append(Part(tube_from_points(points, size * rng.uniform(0.15, 0.7, 40)), soft, only=IN_AIR))
    if rng.random() < 0.25:  # patchy consolidation or ground glass
        centre, hu = spot(), rng.uniform(-650, -150)
        points = centre + rng.normal(0, rng.uniform(14, 30), (150, 3))
        parts.append(Part(tube_from_points(points, rng.uniform(1.5, 8, 150)), hu, only=IN_AIR))
    if rng.random() < 0.25:  # emphysema, mostly above
        count = int(rng.integers(60, 400))
        points = np.stack([rng.choice(SIDES, count) * W * rng.uniform(0.2, 0.95, count),
                           D * rng.uniform(-0.8, 0.9, count), L * rng.beta(1.2, 2.0, count)], axis=1)  # fmt: skip
        parts.append(Part(tube_from_points(points, rng.uniform(1.5, 8, count)), tissue.lung - 60, only=IN_AIR))
    return parts


def draw_disease(rng: np.random.Generator, build: Build, tissue: Tissue) -> Disease:
    """Draw this patient's findings; many have none."""
    fluid, white, shift = draw_airless(rng)
    return Disease(lesion_parts(rng, build, tissue), fluid, float(rng.uniform(2, 25)), white, shift)


@dataclass(frozen=True)
class Abdomen:
    """What lies under the domes."""

    parts: list[Part]  # on the left: fat, spleen, stomach, its gas
    liver_edge: float  # x at the body axis up to which the liver reaches, mm
    background: float  # HU where no organ is drawn


def draw_abdomen(rng: np.random.Generator, build: Build, tissue: Tissue, domes: tuple[Dome, Dome]) -> Abdomen:
    """The liver is drawn by its edge; spleen, stomach and fat are ellipsoids under the left dome."""
    W, D, top = build.half_width, build.half_depth, domes[1].top
    spleen = ellipsoid((0.62 * W, 0.42 * D, top + 45), (0.34 * W, 0.42 * D, 42), (1, -0.5, 0))
    stomach = ellipsoid((0.45 * W, -0.15 * D, top + 34), (0.40 * W, 0.46 * D, 36), (1, 0.2, 0))
    parts = [Part(spleen, tissue.spleen), Part(stomach, rng.uniform(15, 50))]
    if rng.random() < 0.5:
        gas = ellipsoid((0.45 * W, -0.42 * D, top + 32), (0.24 * W, 0.16 * D, 24), (1, 0.1, 0))
        parts.append(Part(gas, -960))
    if rng.random() < 0.3:
        colon = ellipsoid((0.72 * W, -0.35 * D, top + 50), (20, 18, 26))
        parts.append(Part(colon, rng.uniform(-930, 0)))
    background = tissue.fat + 5 if rng.random() < 0.6 else tissue.muscle
    return Abdomen(parts, float(rng.uniform(5, 0.45 * W)), background)
