"""Ribs, spine, sternum, clavicles and scapulae."""

from __future__ import annotations

import numpy as np

from medseg_gan.data.phantom.habitus import THETA, Build, Tissue, rib_outline
from medseg_gan.data.phantom.shapes import Column, Part, tube, tube_from_points

RIBS = 11


def spine_centre(build: Build, bend: tuple[float, float], depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre of the vertebral bodies at depths: kyphosis, and a sideways bend (height in mm, phase)."""
    t = depth / build.lung_length
    x = bend[0] * np.sin(np.pi * t + bend[1])
    y = build.half_depth * np.interp(t, (-0.1, 0.0, 0.3, 0.6, 1.0, 1.1), (0.3, 0.36, 0.50, 0.52, 0.46, 0.42))
    return x, y


def spine_parts(rng: np.random.Generator, build: Build, tissue: Tissue, bend: tuple[float, float]) -> list[Part]:
    """Vertebral bodies with cortex and marrow, discs, canal, laminae, transverse and spinous processes."""
    L = build.lung_length
    depth = np.arange(-0.1 * L, 1.1 * L, 2.0)
    period, start = L / RIBS, rng.uniform(0, 20)
    beat = ((depth - start) / period) % 1.0  # 0..1 along a vertebra; the disc lies around 0
    bone_share = np.clip((np.minimum(beat, 1 - beat) - 0.06) / 0.06, 0, 1)
    process = np.exp(-(((beat - 0.55) / 0.2) ** 2))
    x, y = spine_centre(build, bend, depth)
    wide = np.interp(depth / L, (-0.1, 0.3, 1.1), (14.5, 16, 21)) * rng.uniform(0.92, 1.1)
    waist = 1 - 0.08 * np.sin(np.pi * beat)
    zero, one = np.zeros_like(depth), np.ones_like(depth)

    def column(dx: float, dy: float, a: np.ndarray, b: np.ndarray, turn: float = 0.0, power: int = 2) -> Column:
        return Column(depth, np.stack([x + dx, y + dy, a, b, turn * one], axis=1), power)

    body = column(0, 0, wide * waist, 0.82 * wide * waist)
    marrow = column(0, 0, (wide * waist - 1.6) * bone_share, (0.82 * wide * waist - 1.6) * bone_share)
    cortex_hu, marrow_hu = 0.55 * tissue.bone, tissue.marrow
    disc = column(0, 0, wide * (1 - bone_share), 0.82 * wide * (1 - bone_share))
    parts = [Part(body, cortex_hu, 0), Part(disc, 85, None), Part(marrow, marrow_hu, None)]
    for side in (-1, 1):
        pedicle = column(side * 13, 17, 5 * one, 9 * bone_share + 1, 0.0)
        lamina = column(side * 8.5, 28, 11 * one, 3.6 * one, side * 0.7)
        transverse = column(side * 27, 25, 17 * process, 5.0 * process, side * -0.5)
        for shape in (pedicle, lamina, transverse):
            parts += [Part(shape, 0.8 * tissue.bone, 0), Part(shape.grown(-2.2), marrow_hu, None)]
    spinous = column(0, 42, 3.4 * one, 13 * (0.45 + 0.55 * process))
    parts += [Part(spinous, 0.75 * tissue.bone, 0), Part(spinous.grown(-1.8), marrow_hu, None)]
    canal = column(0, 21, 9.0 + zero, 8.0 + zero)
    return [*parts, Part(canal, 15, 0), Part(canal.grown(-3.5), 38, None)]


def rib_parts(rng: np.random.Generator, build: Build, tissue: Tissue) -> list[Part]:
    """Ribs running down from the spine to the front, ending in cartilage."""
    L = build.lung_length
    reach = np.linspace(0, 1, 90)  # 0 at the spine, 1 at the sternum
    bone, cartilage = [], []
    slope = rng.uniform(0.26, 0.40) * L
    for rib in range(RIBS):
        top = (rib / RIBS - 0.03) * L
        end = 0.93 if rib < 7 else 0.93 - 0.1 * (rib - 6)
        depth = top + slope * min(1.0, 0.6 + 0.1 * rib) * reach**1.15
        for side in (0.0, np.pi):
            theta = np.deg2rad(90 - 22 - 150 * reach)  # right here means towards theta = 0, the patient's left
            theta = theta if side == 0 else np.pi - theta
            sector = np.rint((theta + np.pi) / (2 * np.pi) * len(THETA)).astype(int) % len(THETA)
            radius = np.array([rib_outline(build, d / L)[s] for d, s in zip(depth[::9], sector[::9], strict=True)])
            radius = np.interp(reach, reach[::9], radius) + 4.5
            points = np.stack([radius * np.cos(theta), radius * np.sin(theta), depth], axis=1)
            split = int(0.74 * len(reach))
            bone.append(points[: int(min(end, 0.74) * len(reach))])
            if end > 0.74:
                cartilage.append(points[split : int(end * len(reach))])
    solid, soft = np.concatenate(bone), np.concatenate(cartilage)
    size = rng.uniform(3.5, 4.4)
    ribs = tube_from_points(solid, np.full(len(solid), size), 1.25)
    return [
        Part(tube_from_points(soft, np.full(len(soft), size), 1.4), rng.uniform(70, 130)),
        Part(ribs, tissue.bone),
        Part(ribs.grown(-1.9), tissue.marrow + 40),
    ]


def front_and_shoulder_parts(rng: np.random.Generator, build: Build, tissue: Tissue) -> list[Part]:
    """Sternum, clavicles, scapulae and, at the very top, the humeral heads."""
    L = build.lung_length
    depth = np.linspace(0.08, 0.78, 20) * L
    front = np.array([rib_outline(build, d / L)[len(THETA) // 4] for d in depth])  # towards -pi / 2
    t = depth / L
    wide = np.interp(t, (0.08, 0.14, 0.25, 0.6, 0.78), (24, 26, 15, 17, 7)) * rng.uniform(0.9, 1.1)
    table = np.stack([0 * t, -(front + 4), wide, 0 * t + 5.8, 0 * t], axis=1)
    sternum = Column(depth, table)
    parts = [Part(sternum, 0.6 * tissue.bone, 0), Part(sternum.grown(-1.7), tissue.marrow - 20)]
    blade_t = np.array([-0.1, 0.05, 0.2, 0.4, 0.52])
    length = np.array([34, 42, 42, 26, 6.0]) * rng.uniform(0.9, 1.1)
    lift = rng.uniform(-6, 6)
    for side in (-1, 1):
        clavicle = tube(
            [(side * 20, -0.62 * build.half_depth, 0.10 * L), (side * 70, -0.55 * build.half_depth, 0.04 * L),
             (side * (build.half_width + 5), 0.1 * build.half_depth, -0.05 * L)], (7.5, 5.5, 5.5)
        )  # fmt: skip
        x = side * (build.half_width * np.interp(blade_t, (-0.1, 0.2, 0.5), (0.80, 0.80, 0.86)) + 4)
        y = build.half_depth * np.array([0.62, 0.72, 0.78, 0.8, 0.8]) + lift
        turn = side * -np.deg2rad(rng.uniform(28, 50)) + 0 * blade_t
        blade = Column(blade_t * L, np.stack([x, y, length, 0 * length + 3.2, turn], axis=1))
        ridge = Column(
            np.array([-0.1, 0.22]) * L,
            np.array([[x[0] + side * 12, y[0] + 14, 24, 4.0, side * 0.35], [x[0], y[0] + 12, 8, 3.2, side * 0.35]]),
        )
        for shape in (clavicle, blade, ridge):
            parts += [Part(shape, 0.85 * tissue.bone), Part(shape.grown(-1.6), tissue.marrow)]
    return parts
