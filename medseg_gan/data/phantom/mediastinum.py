"""Heart, great vessels, airways and esophagus, with the fat they lie in.

Labels follow SegTHOR's manner: the heart with its fat and sac, the aorta from its root to below the diaphragm, the
trachea with the main bronchi down to 20 mm below the carina, the esophagus with its air.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg_gan.data.phantom.habitus import Build, Tissue, clipped_normal
from medseg_gan.data.phantom.shapes import IN_AIR, Column, Part, Tube, ellipsoid, tube, tube_from_points
from medseg_gan.labels import SEGTHOR_GT

HEART, AORTA = SEGTHOR_GT["heart"], SEGTHOR_GT["aorta"]
TRACHEA, ESOPHAGUS = SEGTHOR_GT["trachea"], SEGTHOR_GT["esophagus"]
BRONCHUS_LABEL_MM = 20.0
AIRWAY_AIR = -990.0


@dataclass(frozen=True)
class Landmarks:
    """Places the other organs hang on, mm."""

    carina: np.ndarray  # (3,)
    arch_top: float  # depth
    heart: np.ndarray  # (3,) centre of the ventricles
    heart_size: float
    hila: tuple[np.ndarray, np.ndarray]  # right, left
    spread: float  # how widely organs scatter about their usual places, mm
    shift: float  # of the whole mediastinum to the left, mm


def at(point: np.ndarray, dx: float, dy: float, dz: float) -> np.ndarray:
    """A point some mm to the left, back and down of another."""
    return point + np.array([dx, dy, dz])


def draw_landmarks(rng: np.random.Generator, build: Build, shift: float) -> Landmarks:
    """Draw where the carina, the arch, the heart and the hila lie."""
    L, W, D = build.lung_length, build.half_width, build.half_depth
    spread = float(rng.uniform(2.0, 9.0))
    size = float(np.exp(0.16 * clipped_normal(rng, 0, 1, 2))) * (W / 137) ** 0.5
    if rng.random() < 0.15:
        size *= rng.uniform(1.12, 1.3)  # enlarged heart
    carina = np.array(
        [2.0 + shift + rng.normal(0, 7), 0.10 * D + rng.normal(0, 6), L * clipped_normal(rng, 0.36, 0.04)]
    )
    heart = np.array(
        [shift + 20 + rng.normal(0, 12), -0.36 * D + rng.normal(0, 8), carina[2] + L * clipped_normal(rng, 0.30, 0.035)]
    )
    hilum = carina[2] + 0.09 * L
    right = np.array([-0.36 * W + shift, 0.10 * D + rng.normal(0, 4), hilum + rng.normal(4, 5)])
    left = np.array([0.36 * W + shift, 0.16 * D + rng.normal(0, 4), hilum + rng.normal(-4, 5)])
    arch = carina[2] - L * clipped_normal(rng, 0.13, 0.035)
    return Landmarks(carina, float(arch), heart, size, (right, left), spread, shift)


def fat_parts(build: Build, tissue: Tissue, marks: Landmarks, spine_y: float, rng: np.random.Generator) -> list[Part]:
    """The mediastinum's connective tissue, which parts the lungs before any organ is drawn into it."""
    L, D = build.lung_length, build.half_depth
    depth = np.array([-0.1, 0.0, 0.12, 0.25, 0.4, 0.6, 0.8, 1.1]) * L
    narrow = rng.uniform(0.75, 1.25)
    wedge = (float(np.exp(rng.uniform(-0.5, 1.9))), rng.normal(0, 6), rng.uniform(6, 30), rng.uniform(3, 9))
    x = marks.shift + np.array([0, 0, 0, 2, 3, 6, 8, 8.0])
    y = np.array([0.0, 0.05, 0.02, 0.0, 0.0, 0.05, 0.22, 0.3]) * D
    a = np.array([34, 31, 29, 30, 33, 34, 36, 40]) * narrow
    b = np.array([0.55, 0.55, 0.62, 0.66, 0.68, 0.66, 0.4, 0.3]) * D
    core = Column(depth, np.stack([x, y, a, b, 0 * a], axis=1))
    gap = np.array([10, 8, 5, 3, 2.0, 3, 6, 4]) * wedge[0]
    lean = 0.7 * x + wedge[1]
    front = np.interp(depth / L, (-0.1, 0.0, 0.2, 0.5, 0.8, 1.1), (0.35, 0.5, 0.8, 1.0, 1.08, 1.06)) * D
    junction = Column(depth, np.stack([lean, -0.65 * front, gap, 0.36 * front, 0 * y + wedge[1] / 90], axis=1), 4)
    thymus = Column(depth, np.stack([lean, 4 - front, wedge[2] + 0 * y, wedge[3] + 0 * y, 0 * y], axis=1))
    retro = Column(depth, np.stack([x + 4, 0 * y + 0.75 * spine_y, 0 * y + 25, 0 * y + 20.0, 0 * y], axis=1))
    fat = tissue.mediastinal_fat
    upper = [Column(c.depth[:-1], c.table[:-1], c.power) for c in (junction, thymus)]  # further down lies the liver
    return [Part(shape, fat, 0) for shape in (core, *upper, retro)]


def heart_parts(rng: np.random.Generator, tissue: Tissue, marks: Landmarks) -> list[Part]:
    """Sac and fat, myocardium, four chambers."""
    s, c = marks.heart_size, marks.heart
    apex = np.array([0.72, -0.50, 0.48]) + rng.normal(0, 0.20, 3)
    apex /= np.linalg.norm(apex)
    fatness = rng.uniform(1.5, 6.0)
    squash = rng.uniform(0.92, 1.08, 3)
    ventricles = ellipsoid(c, s * squash * (60, 45, 42), apex)
    right_atrium = ellipsoid(c + s * np.array([-44, 10, -8]), s * np.array([36, 24, 27]), (0.1, 0.1, 1))
    left_atrium = ellipsoid(c + s * np.array([-20, 33, -20]), s * np.array([37, 19, 23]), (1, 0.1, -0.1))
    outer = [shape.grown(fatness) for shape in (ventricles, right_atrium, left_atrium)]
    # Fat parts heart and lung, but not heart and liver: there the muscle lies on the dome without an edge.
    margin = [Part(shape.grown(3.0), tissue.mediastinal_fat, 0, only=IN_AIR) for shape in outer]
    drop = np.array([0, 0, 1.3 * fatness])
    left = ellipsoid(c + s * (9 * apex + np.array([9, 10, 0])), s * squash * (40, 22, 21), apex)
    right = ellipsoid(c + s * np.array([-9, -18, 6]), s * squash * (42, 17, 26), apex + np.array([0.1, 0.25, 0.3]))
    blood, other, muscle = tissue.blood, tissue.right_blood, tissue.myocardium
    around = tissue.mediastinal_fat + 15
    if rng.random() < 0.08:  # fluid in the sac
        outer, around = [shape.grown(rng.uniform(3, 10)) for shape in outer], rng.uniform(5, 30)
    return [
        *margin,
        *(Part(shape, around, HEART) for shape in outer),
        *(Part(shape.moved(drop), muscle, HEART) for shape in (ventricles, right_atrium, left_atrium)),
        Part(right_atrium.grown(-3), other, HEART),
        Part(left_atrium.grown(-2.5), blood, HEART),
        Part(right, other, HEART),
        Part(left.grown(9), muscle, HEART),
        Part(left, 0.97 * blood, HEART),
    ]


def aorta_tube(rng: np.random.Generator, build: Build, marks: Landmarks, spine_y: float) -> Tube:
    """From the root in the heart over the arch down in front of the spine."""
    L, D, c, s = build.lung_length, build.half_depth, marks.heart, marks.heart_size
    age = rng.random()  # the older the wider and the more winding
    up, down = 15.0 + 4.0 * age + rng.normal(0, 1), 11.8 + 3.5 * age + rng.normal(0, 0.8)
    if rng.random() < 0.06:
        up *= rng.uniform(1.2, 1.5)
    x, back = marks.shift, spine_y - rng.uniform(6, 16)
    wind = rng.normal(0, 4 + 13 * age, 3)
    top = marks.arch_top + up
    nodes = np.array([
        c + s * np.array([-20, 0, -18]), (0.5 * (x + c[0]) - 20, -0.40 * D, 0.5 * (c[2] + top) + 4),
        (x - 12, -0.38 * D, top + 22), (x + 3, -0.16 * D, top + 2), (x + 19, 0.16 * D, top + 1),
        (x + 27 + wind[0], back - 12, top + 20), (x + 27 + wind[0], back - 2, top + 48),
        (x + 24 + wind[1], back + 2, 0.62 * L), (x + 16 + wind[2], back, 0.85 * L), (x + 6, back - 4, 1.12 * L),
    ])  # fmt: skip
    nodes[1:5] += rng.normal(0, marks.spread, (4, 3)) * (1, 1, 0.5)
    if rng.random() < 0.10:  # an arch, and what follows, on the right
        nodes[3:, 0] = 2 * x - nodes[3:, 0]
    radii = [up * 0.98, up, up * 0.97, 0.5 * (up + down), 0.45 * up + 0.55 * down, down * 1.03, down, down, 0.95 * down,
             0.9 * down]  # fmt: skip
    return tube(nodes, radii)


def aorta_parts(rng: np.random.Generator, tissue: Tissue, aorta: Tube) -> list[Part]:
    """Wall and blood; calcium in some walls, clot along the wall in a few."""
    wall = tissue.muscle + 10 if tissue.phase == "none" else 0.5 * tissue.blood
    parts = [Part(aorta, wall, AORTA), Part(aorta.grown(-1.2), tissue.blood, AORTA)]
    if rng.random() < 0.3:
        chosen = rng.random(len(aorta.radii)) < 0.10
        way = rng.normal(0, 1, (int(chosen.sum()), 3)) * (1, 1, 0.3)
        way *= (aorta.radii[chosen, None] - 1) / np.linalg.norm(way, axis=1, keepdims=True)
        calcium = tube_from_points(aorta.points[chosen] + way, rng.uniform(0.8, 2.2, len(way)))
        parts.append(Part(calcium, rng.uniform(400, 900)))
    if rng.random() < 0.08:
        side = rng.normal(0, 1, 3) * (1, 1, 0)
        lumen = Tube(aorta.points + (4 * side / np.linalg.norm(side)).astype(np.float32), aorta.radii - 5, 1.0)
        parts += [Part(aorta, rng.uniform(30, 50), AORTA), Part(lumen, tissue.blood, AORTA)]
    return parts


def vessel_parts(rng: np.random.Generator, build: Build, tissue: Tissue, marks: Landmarks) -> list[Part]:
    """Pulmonary arteries, caval veins, arch branches and the soft tissue of the hila."""
    L, D, c, x = build.lung_length, build.half_depth, marks.heart, marks.shift
    right_hilum, left_hilum = marks.hila
    fork = np.array([x + 14, -0.20 * D, marks.carina[2] + 0.10 * L])
    w = rng.uniform(0.85, 1.2)
    pulmonary = [
        tube([c + np.array([10, -22, -20]), (x + 18, -0.50 * D, c[2] - 52), fork], (13 * w, 13 * w, 12 * w)),
        tube([fork, (x - 8, -0.08 * D, fork[2] + 4), right_hilum, at(right_hilum, -12, 4, 16)],
             (10.5 * w, 10 * w, 9 * w, 7 * w)),
        tube([fork, (x + 30, 0.02 * D, fork[2] - 4), at(left_hilum, 2, 8, 0), at(left_hilum, 8, 12, 22)],
             (11 * w, 10.5 * w, 9.5 * w, 7 * w)),
    ]  # fmt: skip
    atrium = c + marks.heart_size * np.array([-20, 33, -20])
    lung_veins = [
        tube([atrium, at(atrium, side * 36, -4, dz), at(atrium, side * 56, 0.2 * dz, 1.6 * dz)], (7, 6.5, 5))
        for side in (-1, 1)
        for dz in (-14, 14)
    ]
    caval = [
        tube([(x - 22, -0.35 * D, 0.04 * L), (x - 26, -0.30 * D, 0.25 * L), (x - 28, -0.16 * D, c[2] - 34),
              c + np.array([-42, 8, -8])], (7, 8, 9.5, 10)),
        tube([c + np.array([-42, 12, 2]), c + np.array([-40, 22, 36]), (x - 26, 0.18 * D, 1.1 * L)], (11, 12, 12)),
        tube([(x - 24, -0.36 * D, 0.2 * L), (x + 8, -0.52 * D, 0.15 * L), (x + 36, -0.42 * D, 0.02 * L)],
             (7.5, 6.5, 6)),
    ]  # fmt: skip
    top = marks.arch_top + 12
    branches = [
        tube([(x - 4, -0.2 * D, top), (x - 14, -0.14 * D, 0.1 * L), (x - 26, -0.1 * D, -0.1 * L)], (7.5, 6.5, 5.5)),
        tube([(x + 8, -0.1 * D, top), (x + 14, 0.0, 0.1 * L), (x + 24, -0.05 * D, -0.1 * L)], (4.8, 4, 4)),
        tube([(x + 18, 0.06 * D, top), (x + 26, 0.14 * D, 0.1 * L), (x + 42, 0.1 * D, -0.04 * L)], (6, 5.2, 5)),
    ]
    hilum = [
        ellipsoid(at(h, 0, 2, 2), rng.uniform(0.7, 1.15) * np.array([26, 11, 13]), (0.15, 0.1, 1)) for h in marks.hila
    ]
    azygos = tube([(x - 7, 0.42 * D, 1.1 * L), (x - 8, 0.42 * D, 0.45 * L), (x - 12, 0.3 * D, marks.carina[2] - 8),
                   (x - 24, -0.1 * D, marks.carina[2] - 4)], (4, 4, 4.5, 5))  # fmt: skip
    soft = tissue.muscle - 5
    return [
        *(Part(shape.grown(3.5), tissue.mediastinal_fat, 0) for shape in (*pulmonary, *caval[:2], *branches)),
        *(Part(shape, soft, 0) for shape in hilum),
        Part(azygos, tissue.vein if tissue.phase == "venous" else soft, 0),
        *(Part(shape, tissue.blood, 0) for shape in (*lung_veins, *branches)),
        *(Part(shape, tissue.right_blood, 0) for shape in pulmonary),
        Part(caval[1], 0.6 * tissue.vein + 0.4 * soft if tissue.phase == "venous" else soft + 12, 0),
        *(Part(shape, tissue.vein, 0) for shape in (caval[0], caval[2])),
    ]


def cut_below(shape: Tube, depth: float) -> Tube:
    """The balls above a depth."""
    kept = shape.points[:, 2] <= depth
    return Tube(shape.points[kept], shape.radii[kept], shape.stretch)


def airway_parts(rng: np.random.Generator, build: Build, tissue: Tissue, marks: Landmarks) -> list[Part]:
    """Trachea, main and lobar bronchi: walls first, then air."""
    L, D = build.lung_length, build.half_depth
    carina = marks.carina
    r = clipped_normal(rng, 8.8, 1.8, 1.8)
    lean, push = clipped_normal(rng, 0, 13), clipped_normal(rng, 0, 8)  # goitres and scars pull the trachea about
    trachea = tube([(lean - 2, -0.16 * D, -0.12 * L), (0.5 * carina[0] + 0.9 * lean, -0.06 * D + push, 0.5 * carina[2]),
                    at(carina, 0, 0, -4)], (0.95 * r, r, 1.05 * r))  # fmt: skip
    right_hilum, left_hilum = marks.hila
    right = tube([at(carina, -3, 0, -6), at(carina, -16, 3, 12), at(right_hilum, 6, 4, 0), at(right_hilum, -4, 10, 34)],
                 (0.8 * r, 0.75 * r, 0.66 * r, 0.5 * r))  # fmt: skip
    left = tube([at(carina, 3, 0, -6), at(carina, 18, 5, 13), at(left_hilum, -8, 6, 8), at(left_hilum, 2, 12, 40)],
                (0.75 * r, 0.68 * r, 0.6 * r, 0.48 * r))  # fmt: skip
    upper = [
        tube([at(right_hilum, 10, 0, -6), at(right_hilum, -14, -4, -14)], (0.5 * r, 0.4 * r)),
        tube([at(left_hilum, -6, 4, 8), at(left_hilum, 14, -8, 0)], (0.5 * r, 0.4 * r)),
    ]
    middle = tube([at(right_hilum, 0, 6, 12), at(right_hilum, -10, -14, 34)], (0.42 * r, 0.33 * r))
    airways, wall = (trachea, right, left, *upper, middle), 1.1
    label_end = carina[2] + BRONCHUS_LABEL_MM
    return [
        *(Part(shape.grown(wall + 1.5), tissue.mediastinal_fat + 40, 0) for shape in airways[:3]),
        *(Part(shape.grown(wall), tissue.muscle - 10, 0) for shape in airways),
        *(Part(shape, AIRWAY_AIR, 0) for shape in airways),
        *(Part(cut_below(shape, label_end), AIRWAY_AIR, TRACHEA) for shape in (trachea, right, left)),
    ]


def esophagus_parts(
    rng: np.random.Generator, build: Build, tissue: Tissue, marks: Landmarks, spine_y: float
) -> list[Part]:
    """A flat tube before the spine, nearly as dense as its surroundings, with air in some."""
    L, D = build.lung_length, build.half_depth
    depth = np.array([-0.12, 0.1, 0.36, 0.5, 0.7, 0.9, 1.08]) * L
    x = marks.shift + np.array([3, 5, 7, 3, 4, 12, 22]) + rng.normal(0, 2.5, 7)
    behind_airway = marks.carina[1] + 15
    y = np.array(
        [0.12 * D, 0.18 * D, behind_airway, 0.5 * spine_y + 0.25 * D, spine_y - 24, spine_y - 32, spine_y - 42]
    )
    wide = np.array([7.5, 8, 8.5, 9.5, 10, 10.5, 12]) * (rng.uniform(0.85, 1.2) if rng.random() < 0.9 else 1.8)
    flat = wide * rng.uniform(0.5, 0.85)
    turn = rng.normal(0, 0.25, 7)
    wall = Column(depth, np.stack([x, y, wide, flat, turn], axis=1))
    parts = [Part(wall.grown(2.5), tissue.mediastinal_fat, 0), Part(wall, tissue.esophagus, ESOPHAGUS)]
    if rng.random() < 0.55:
        start = rng.uniform(0.0, 0.7) * L
        level = np.linspace(start, start + rng.uniform(0.08, 0.35) * L, 6)
        at = [np.interp(level, depth, column) for column in (x, y, wide, flat)]
        share = rng.uniform(0.35, 0.95) * np.array([0.3, 1, 1, 1, 1, 0.3])
        air = Column(level, np.stack([at[0], at[1], at[2] * share, at[3] * share, 0 * level], axis=1))
        parts.append(Part(air, -850, ESOPHAGUS))
    return parts


def confusing_parts(
    rng: np.random.Generator, build: Build, tissue: Tissue, marks: Landmarks, spine_y: float
) -> list[Part]:
    """Findings that look like organs: masses and bulky nodes, a hernia behind the heart."""
    L, D = build.lung_length, build.half_depth
    soft = tissue.muscle + (rng.uniform(0, 45) if tissue.phase != "none" else 0.0)
    places = (
        (marks.shift, -0.62 * D, rng.uniform(0.2, 0.45) * L),  # in front of the great vessels
        (marks.carina[0] + rng.choice((-1, 1)) * 30, 0.0, marks.carina[2] + rng.uniform(-45, 10)),  # beside the trachea
        (marks.carina[0], marks.carina[1] + 4, marks.carina[2] + 26),  # under the carina
        (marks.shift + rng.choice((-1, 1)) * 40, 0.6 * spine_y, rng.uniform(0.3, 0.8) * L),  # beside the spine
    )
    parts = []
    for place in places:
        if rng.random() < 0.14:
            parts.append(
                Part(ellipsoid(place, rng.uniform(10, 28) * rng.uniform(0.7, 1.3, 3), rng.normal(0, 1, 3)), soft, 0)
            )
    if rng.random() < 0.12:
        centre, size = np.array([marks.shift + 8, spine_y - 30, 0.8 * L]), rng.uniform(20, 38)
        parts.append(Part(ellipsoid(centre, (size, 0.8 * size, 1.2 * size)), rng.uniform(10, 60), 0))
        parts.append(
            Part(ellipsoid(at(centre, 0, -0.3 * size, 0), 0.5 * size * np.ones(3)), rng.uniform(-950, -300), 0)
        )
    return parts


def mediastinum_parts(
    rng: np.random.Generator, build: Build, tissue: Tissue, marks: Landmarks, spine_y: float
) -> list[Part]:
    """Everything between the lungs, in the order it is painted."""
    aorta = aorta_tube(rng, build, marks, spine_y)
    nodes = [
        Part(ellipsoid(marks.carina + rng.normal(0, (16, 10, 25)), rng.uniform(3, 9, 3)), tissue.muscle, 0)
        for _ in range(rng.integers(2, 9))
    ]
    return [
        *fat_parts(build, tissue, marks, spine_y, rng),
        Part(aorta.grown(3.0), tissue.mediastinal_fat, 0),
        *nodes,
        *confusing_parts(rng, build, tissue, marks, spine_y),
        *vessel_parts(rng, build, tissue, marks),
        *heart_parts(rng, tissue, marks),
        *esophagus_parts(rng, build, tissue, marks, spine_y),
        *aorta_parts(rng, tissue, aorta),
        *airway_parts(rng, build, tissue, marks),
    ]
