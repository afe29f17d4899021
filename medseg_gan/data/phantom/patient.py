"""One phantom patient: drawn from a seed, sliced into CT images and sharp labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg_gan.data.phantom import lung, mediastinum, skeleton
from medseg_gan.data.phantom.habitus import (
    FRONT,
    THETA,
    Build,
    Scan,
    Tissue,
    draw_build,
    draw_scan,
    draw_tissue,
    muscle_outline,
    rib_outline,
    skin_outline,
)
from medseg_gan.data.phantom.noise import add_noise, noise_amplitude
from medseg_gan.data.phantom.shapes import IN_FAT, Canvas, Column, Frame, Part
from medseg_gan.labels import SEGTHOR_GT
from medseg_gan.machine.seeding import numpy_rng

EDITION = 2
"""Raised whenever a patient of the same seed and number would look different."""

SUPERSAMPLING = 2
LOWEST_HU = -1024
LUNG_IDS = (SEGTHOR_GT["right_lung"], SEGTHOR_GT["left_lung"])
PLEURA_MM = 2.5
Place = tuple[Frame, np.ndarray, np.ndarray]
"""A grid, the diaphragm's depth over it and the lung tissue's HU over it."""


@dataclass(frozen=True)
class Patient:
    """Everything about one patient, in mm and HU; rendering adds nothing but noise."""

    seed: int
    number: int
    build: Build
    tissue: Tissue
    scan: Scan
    domes: tuple[lung.Dome, lung.Dome]
    abdomen: lung.Abdomen
    disease: lung.Disease
    outside: list[Part]  # arms
    wall: list[Part]  # ribs, shoulder blades, breast glands
    inner: list[Part]  # mediastinum, spine, sternum
    lungs: list[Part]  # vessels and lesions, drawn in air only
    couch: tuple[str, float, float, float]  # shape, gap below the skin (mm), shell HU, curvature radius (mm)
    clothes: tuple[float, float] | None  # distance from the skin (mm), HU


def arm_parts(rng: np.random.Generator, build: Build, tissue: Tissue) -> list[Part]:
    """Arms beside the body, in some patients."""
    if rng.random() > 0.13:
        return []
    parts, depth = [], np.array([-0.1, 1.1]) * build.lung_length
    for side in (-1, 1):
        if rng.random() < 0.12:
            continue  # only one arm down
        radius = rng.uniform(33, 42) + 0.6 * build.fat
        x = side * (build.half_width + build.wall + build.fat + radius + rng.uniform(14, 30))
        y, drift = rng.uniform(-10, 35), rng.uniform(-20, 20)

        def column(a: float, x: float = x, y: float = y, drift: float = drift) -> Column:
            return Column(depth, np.array([[x, y, a, 0.92 * a, 0.0], [x, y + drift, a, 0.92 * a, 0.0]]))

        fat = 3 + 0.6 * build.fat
        parts += [Part(column(radius), tissue.fat), Part(column(radius - fat), tissue.muscle)]
        parts += [Part(column(12.0), tissue.bone + 200), Part(column(7.0), tissue.marrow - 60)]
    return parts


def soft_wall_parts(rng: np.random.Generator, build: Build, tissue: Tissue) -> list[Part]:
    """Fat planes between the muscles and, in women, glandular tissue."""
    L, W, D = build.lung_length, build.half_width, build.half_depth
    parts = []
    for _ in range(rng.integers(5, 12)):
        angle = rng.uniform(0, 2 * np.pi)
        depth = np.sort(rng.uniform(-0.1, 0.8, 2)) * L
        x, y = (W + build.wall * 0.8) * np.cos(angle), (D + build.wall * 0.8) * np.sin(angle)
        table = np.array([[x, y, rng.uniform(10, 28), rng.uniform(1, 2.5), angle + np.pi / 2 + rng.normal(0, 0.2)]] * 2)
        parts.append(Part(Column(depth, table), tissue.fat + 10))
    if build.breast > 11:
        depth = np.array([0.3, 0.55, 0.75]) * L
        for side in (-1, 1):
            x, y = side * 0.66 * (W + 20), -0.85 * D - build.wall - 0.4 * build.fat - 0.4 * build.breast
            size = build.breast * rng.uniform(0.15, 0.5)
            table = np.array([[x, y, s * 1.8 * size, s * size, side * 0.5] for s in (0.5, 1.0, 0.5)])
            parts.append(Part(Column(depth, table), tissue.muscle - 20, only=IN_FAT))
    return parts


def draw_patient(seed: int, number: int, phase: str | None = None) -> Patient:
    """Draw a patient: a pure function of the two numbers (and the contrast phase, when one is asked for)."""
    rng = numpy_rng("thorax phantom", EDITION, seed, number)
    build, tissue = draw_build(rng), draw_tissue(rng, phase)
    scan = draw_scan(rng, build)
    disease = lung.draw_disease(rng, build, tissue)
    marks = mediastinum.draw_landmarks(rng, build, disease.shift)
    domes = lung.draw_domes(rng, build)
    bend = (rng.normal(0, 3.0) if rng.random() > 0.1 else rng.uniform(8, 18), rng.uniform(0, 2 * np.pi))
    spine_y = float(skeleton.spine_centre(build, bend, np.array([0.6 * build.lung_length]))[1][0])
    shoulders = skeleton.front_and_shoulder_parts(rng, build, tissue)
    return Patient(
        seed=seed, number=number, build=build, tissue=tissue, scan=scan, domes=domes, disease=disease,
        abdomen=lung.draw_abdomen(rng, build, tissue, domes),
        outside=arm_parts(rng, build, tissue),
        wall=[*soft_wall_parts(rng, build, tissue), *skeleton.rib_parts(rng, build, tissue), *shoulders[2:]],
        inner=[*mediastinum.mediastinum_parts(rng, build, tissue, marks, spine_y),
               *skeleton.spine_parts(rng, build, tissue, bend), *shoulders[:2]],
        lungs=[*lung.vessel_tree_parts(rng, build, tissue, marks), *disease.parts],
        couch=(str(rng.choice(("flat", "curved", "cradle"))), float(rng.uniform(3, 14)), float(rng.uniform(-250, 250)),
               float(rng.uniform(260, 600))),
        clothes=(float(rng.uniform(4, 16)), float(rng.uniform(-950, -780))) if rng.random() < 0.6 else None,
    )  # fmt: skip


class Slicer:
    """Cuts one patient into slices of a given matrix.

    Args:
        patient: whom to cut.
        matrix: pixels per side; the field of view is the scan's, whatever the matrix.
        sub_slices: sections averaged over the slice thickness.
    """

    def __init__(self, patient: Patient, matrix: int, sub_slices: int = 3) -> None:
        self.patient, self.matrix, self.sub_slices = patient, matrix, sub_slices
        self.pixel = patient.scan.pixel * 256 / matrix
        placed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.fine = self._prepare(Frame(matrix * SUPERSAMPLING, self.pixel / SUPERSAMPLING, patient.scan.pose, placed))
        self.coarse = self._prepare(Frame(matrix, self.pixel, patient.scan.pose, placed))
        self.background = self._couch(self.fine[0])
        self.amplitude = noise_amplitude(matrix, self.pixel, patient.scan.noise_frequency)
        axis = (np.arange(matrix) - (matrix - 1) / 2) / (matrix / 2)
        self.circle = np.hypot(axis[:, None], axis[None]) > 1.0 if patient.scan.circle else None

    def _prepare(self, frame: Frame) -> Place:
        """The frame with two maps over it: the diaphragm's depth, and the lung tissue's HU."""
        patient, W = self.patient, self.patient.build.half_width
        right, left = (dome.depth(frame.x, frame.y) for dome in patient.domes)
        lung_hu = patient.tissue.lung + patient.tissue.lung_slope * (-frame.y if patient.scan.prone else frame.y)
        lung_hu += 10 * np.sin(frame.x * (7 / W) + patient.number) * np.sin(frame.y * (9 / W) + patient.seed % 7)
        return frame, np.where(frame.x < 0, right, left), lung_hu.astype(np.float32)

    def _couch(self, frame: Frame) -> np.ndarray:
        """`(H, W)` HU of air and couch, the same in all slices of a patient."""
        shape, gap, shell, bow = self.patient.couch
        hu = np.full((frame.size, frame.size), -1000.0, np.float32)
        below = -1 if self.patient.scan.prone else 1  # rows run to the back, and a prone patient lies on the front
        skin = skin_outline(self.patient.build, 0.6)
        top = (
            float((below * self.patient.scan.pose.to_scanner(skin * np.cos(THETA), skin * np.sin(THETA))[1]).max())
            + gap
        )
        x, y = frame.scanner[None], below * frame.scanner[:, None]
        fall = 0 * x if shape == "flat" else bow - np.sqrt(np.maximum(bow**2 - x**2, 1.0))
        level = y - top + fall  # depth below the couch's upper face; a curved couch rises at the sides
        half = 205.0 if shape == "flat" else min(0.85 * bow, 235.0)
        inside = np.abs(x) < half
        thick = 22.0 if shape == "flat" else 34.0
        np.copyto(hu, -965, where=(level > 0) & (level < thick) & inside)
        lines = [(0.0, 1.3), (thick, 1.6)]
        if shape == "cradle":
            floor = y - top - 45
            np.copyto(hu, shell, where=(np.abs(floor) < 1.4) & (np.abs(x) < 0.6 * half))
        for at, width in lines:
            np.copyto(hu, shell, where=(np.abs(level - at) < width) & inside)
        return hu

    def _body(self, canvas: Canvas, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Skin, fat, muscle; returns the skin's distance from the axis and the rib cage's inside, `(H, W)`."""
        build, tissue, t = self.patient.build, self.patient.tissue, canvas.middle / self.patient.build.lung_length
        skin = skin_outline(build, t).astype(np.float32)
        skin_at, rho = skin[frame.sector], frame.rho
        if canvas.ids is None:
            for part in self.patient.outside:
                canvas.draw(part)
            if self.patient.clothes:
                away, hu = self.patient.clothes
                wavy = skin + away * (1 + 0.6 * np.sin(3 * THETA + away) + 0.25 * np.sin(11 * THETA)) + 900 * ~FRONT
                canvas.where(np.abs(rho - wavy.astype(np.float32)[frame.sector]) < 1.2, hu, None)
        canvas.where(rho < skin_at, tissue.muscle - 25, None)
        canvas.where(rho < skin_at - 2, tissue.fat, None)
        canvas.where(rho < muscle_outline(build, t).astype(np.float32)[frame.sector], tissue.muscle, None)
        cage = rho < rib_outline(build, t).astype(np.float32)[frame.sector]
        return skin_at, cage

    def _chest(self, canvas: Canvas, frame: Frame, dome: np.ndarray, lung_hu: np.ndarray, cage: np.ndarray) -> None:
        """What fills the rib cage: abdomen below the diaphragm, lungs above it, fluid and airless lung in them."""
        patient, build = self.patient, self.patient.build
        W, D = build.half_width, build.half_depth
        depth, t = canvas.depths[:, None, None], canvas.middle / build.lung_length
        if canvas.depths[-1] > min(d.top for d in patient.domes):
            canvas.where(cage, patient.abdomen.background, None)
            for part in patient.abdomen.parts:
                canvas.draw(part)
            canvas.where(cage & (frame.x < patient.abdomen.liver_edge - 0.35 * frame.y), patient.tissue.liver, None)
        elif t < 0.1:
            canvas.where(cage, patient.tissue.muscle - 8, None)
        else:
            canvas.where(cage, patient.tissue.mediastinal_fat, None)
        for part in patient.wall:
            canvas.draw(part)
        air = cage & (frame.rho < rib_outline(build, t).astype(np.float32)[frame.sector] - PLEURA_MM)
        if t < 0.4:  # two rounded tops
            rise = np.sqrt(max(1 - (1 - t / 0.4) ** 2, 0.0)) * (1 + 1.2 * (t / 0.4) ** 3)
            u = (np.abs(frame.x) - 0.48 * W) / max(0.48 * W * rise, 1.0)
            v = (frame.y - 0.02 * D) / max(0.72 * D * rise, 1.0)
            air &= u * u + v * v < 1
        for side, ident in enumerate(LUNG_IDS):
            half = air & ((frame.x < 0) if side == 0 else (frame.x >= 0))
            aerated = half & (depth < dome)
            canvas.where(aerated, lung_hu, ident)
            self._airless(canvas, frame, aerated, side)

    def _airless(self, canvas: Canvas, frame: Frame, aerated: np.ndarray, side: int) -> None:
        """Pleural fluid at the back and lung without air below."""
        disease, build = self.patient.disease, self.patient.build
        t = canvas.middle / build.lung_length
        if disease.white[side] > 0:
            start = build.lung_length * (1 - disease.white[side] - 0.15 * frame.y / build.half_depth)
            collapsed = self.patient.tissue.myocardium if self.patient.tissue.phase != "none" else 38.0
            canvas.where(aerated & (canvas.depths[:, None, None] > start), collapsed, 0)
        if disease.fluid[side] > 0:
            height = disease.fluid[side] * float(np.interp(t, (0.1, 0.5, 1.0), (0.15, 0.7, 1.5)))
            level = build.half_depth * 0.98 - height
            curve = level - 0.005 * (np.abs(frame.x) - 0.45 * build.half_width) ** 2  # a meniscus at both walls
            heavy = -frame.y if self.patient.scan.prone else frame.y
            canvas.where(aerated & (heavy > curve), disease.fluid_hu, 0)

    def _paint(
        self, place: tuple[Frame, np.ndarray, np.ndarray], depths: np.ndarray, labels: bool
    ) -> tuple[Canvas, np.ndarray]:
        frame, dome, lung_hu = place
        canvas = Canvas(frame, depths, -1000.0 if labels else self.background, labels)
        skin, cage = self._body(canvas, frame)
        self._chest(canvas, frame, dome, lung_hu, cage)
        for part in (*self.patient.inner, *self.patient.lungs):
            canvas.draw(part)
        return canvas, skin

    def image(self, depth: float, index: int) -> np.ndarray:
        """The CT slice at a depth.

        Args:
            depth: of the slice's middle below the lungs' top, mm.
            index: of the slice; it seeds the noise.

        Returns:
            `(matrix, matrix)` int16 HU, row 0 in front, column 0 at the patient's right.
        """
        scan, build = self.patient.scan, self.patient.build
        offsets = ((np.arange(self.sub_slices) + 0.5) / self.sub_slices - 0.5) * scan.thickness
        canvas, skin = self._paint(self.fine, (depth + offsets).astype(np.float32), labels=False)
        M, k = self.matrix, SUPERSAMPLING
        image = canvas.hu.sum(0).reshape(M, k, M, k).sum((1, 3)) * np.float32(1 / (len(offsets) * k * k))
        image = ndimage.gaussian_filter(image, scan.blur / self.pixel, truncate=3.0)
        middle = np.clip(1 - (self.fine[0].rho / skin)[::k, ::k] ** 2, 0, 1)
        rng = numpy_rng("thorax phantom noise", EDITION, self.patient.seed, self.patient.number, index)
        streak = float(np.interp(depth / build.lung_length, (0.0, 0.1, 0.2), (0.35, 0.2, 0.0)))
        add_noise(image, rng, self.amplitude, scan.noise, middle, streak)
        if self.circle is not None:
            image[self.circle] = LOWEST_HU
        return np.clip(np.rint(image), LOWEST_HU, 3071).astype(np.int16)

    def truth(self, depth: float) -> np.ndarray:
        """Sharp labels at a depth: `(matrix, matrix)` uint8 of SegTHOR's ids, lungs included as 5 (left), 6 (right)."""
        canvas, _ = self._paint(self.coarse, np.array([depth], np.float32), labels=True)
        assert canvas.ids is not None
        truth = canvas.ids[0]
        if self.circle is not None:
            truth[self.circle] = 0
        return truth


def slice_depths(patient: Patient, count: int) -> np.ndarray:
    """`(count,)` depths in mm, evenly over the lungs from above downwards; the ends keep 2 % clear."""
    share = 0.02 + 0.94 * (np.arange(count) + 0.5) / count
    return patient.build.lung_length * share
