"""Figures stay inside the picture, cover what was asked for, and look the same at every size."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_gan.data.phantom import figures
from medseg_gan.data.phantom.figures import Pose, blurred_field, draw_pose, outline, paint

FIGURES = [
    figures.disc,
    figures.square,
    figures.star,
    figures.bird,
    figures.carton,
    figures.bottle,
    figures.scissors,
]
TEXTURES = [figures.stripes, figures.dots, figures.patches]
PHASES = np.array([0.3, 2.0, 4.0])


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("turn", [25, 180])
def test_a_figure_lies_inside_and_covers_the_area_asked_for(figure, turn):
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = draw_pose(rng, figure, area=(0.1, 0.3), shift=0.18, turn=turn)
        coverage, _ = paint(figure, pose, figures.stripes, PHASES, 64)
        border = np.concatenate([coverage[[0, -1]].ravel(), coverage[:, [0, -1]].ravel()])
        assert not border.any()
        assert 0.095 < coverage.mean() < 0.305
        assert coverage.mean() == pytest.approx(outline(figure).area * pose.scale**2, rel=0.03)
        assert max(abs(pose.x - 0.5), abs(pose.y - 0.5)) <= 0.18 + 0.2  # the box may force the centre further


def test_a_disc_has_the_area_of_a_circle():
    assert outline(figures.disc).area == pytest.approx(np.pi, rel=0.01)
    coverage, _ = paint(figures.disc, Pose(0.5, 0.5, 0.25, 0), figures.dots, PHASES, 32)
    assert coverage.mean() == pytest.approx(np.pi / 16, rel=0.005)


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_smaller_picture_is_the_average_of_a_larger_one(texture):
    pose = Pose(0.45, 0.55, 0.3, 0.4, mirrored=True)
    small, large = (paint(figures.bird, pose, texture, PHASES, size) for size in (32, 64))
    coverage = large[0].reshape(32, 2, 32, 2).mean((1, 3))
    second = (large[0] * large[1]).reshape(32, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(small[0], coverage, atol=0.25)  # an edge between samples
    np.testing.assert_allclose(small[0] * small[1], second, atol=0.25)
    assert np.abs(small[0] - coverage).mean() < 0.003


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_use_both_colours(texture):
    coverage, share = paint(figures.disc, Pose(0.5, 0.5, 0.3, 0), texture, PHASES, 64)
    inside = share[coverage == 1]
    assert (inside > 0.9).mean() > 0.1
    assert (inside < 0.1).mean() > 0.1


def test_a_mirrored_figure_is_the_picture_mirrored():
    plain, mirrored = (
        paint(figures.bird, Pose(0.5, 0.5, 0.3, 0, m), figures.dots, PHASES, 32)[0] for m in (False, True)
    )
    np.testing.assert_allclose(mirrored, plain[:, ::-1], atol=0.1)
    assert np.abs(mirrored - plain).max() > 0.5


def test_the_blurred_field_is_smooth_and_the_same_at_every_size():
    small, large = (blurred_field(np.random.default_rng(1), size) for size in (32, 64))
    np.testing.assert_allclose(small, large.reshape(32, 2, 32, 2).mean((1, 3)), atol=0.05)
    assert np.abs(np.diff(large, axis=0)).max() < 0.4 * large.std()
