"""Sections of three-dimensional shapes against their areas and volumes known by hand."""

import numpy as np
import pytest

from medseg_gan.data.phantom.shapes import (
    IN_AIR,
    Canvas,
    Column,
    Frame,
    Part,
    Pose,
    ellipsoid,
    tube,
)

STRAIGHT = Pose(0.0, (0.0, 0.0), np.zeros((1, 5)))


def canvas(depths: np.ndarray, pose: Pose = STRAIGHT, labels: bool = True) -> Canvas:
    return Canvas(Frame(160, 0.5, pose, {}), depths, -1000.0, labels)


def test_ellipsoid_has_its_volume_whichever_way_it_points():
    depths = np.arange(-30, 30, 0.5) + 0.25
    for direction in ((1, 0, 0), (0.3, -0.5, 0.8)):
        drawn = canvas(depths)
        drawn.draw(Part(ellipsoid((2, -3, 1), (20, 12, 8), direction), 50.0, 2))
        assert (drawn.ids == 2).sum() * 0.5**3 == pytest.approx(4 / 3 * np.pi * 20 * 12 * 8, rel=0.01)
        assert np.array_equal(drawn.hu == 50.0, drawn.ids == 2)


def test_straight_tube_has_round_sections():
    drawn = canvas(np.array([0.0]))
    drawn.draw(Part(tube([(3, 4, -40), (3, 4, 40)], (9, 9)), 50.0, 4))
    assert (drawn.ids == 4).sum() * 0.25 == pytest.approx(np.pi * 81, rel=0.02)


def test_oblique_tube_is_cut_as_an_ellipse():
    drawn = canvas(np.array([0.0]))
    drawn.draw(Part(tube([(-30, 0, -30), (30, 0, 30)], (6, 6)), 50.0, 4))  # at 45 degrees
    assert (drawn.ids == 4).sum() * 0.25 == pytest.approx(np.pi * 36 * np.sqrt(2), rel=0.03)


def test_column_follows_its_table_and_ends():
    shape = Column(np.array([0.0, 10.0]), np.array([[0, 0, 10, 5, 0.3], [0, 0, 20, 5, 0.3]]))
    for depth, area in ((5.0, np.pi * 15 * 5), (12.0, 0.0)):
        drawn = canvas(np.array([depth]))
        drawn.draw(Part(shape, 0.0, 1))
        assert (drawn.ids == 1).sum() * 0.25 == pytest.approx(area, rel=0.02)


def test_grown_shapes_hold_the_original():
    for shape in (ellipsoid((0, 0, 0), (9, 7, 5)), tube([(-9, 0, -9), (0, 5, 0), (9, 0, 9)], (4, 5, 4))):
        small, large = canvas(np.array([0.0, 1.0])), canvas(np.array([0.0, 1.0]))
        small.draw(Part(shape, 0.0, 1))
        large.draw(Part(shape.grown(2.0), 0.0, 1))
        assert ((large.ids == 1) >= (small.ids == 1)).all()
        assert (large.ids == 1).sum() > (small.ids == 1).sum()


def test_vessels_are_drawn_over_aerated_lung_only():
    drawn = canvas(np.array([0.0]), labels=False)
    drawn.draw(Part(ellipsoid((0, 0, 0), (20, 20, 20)), -850.0))
    drawn.draw(Part(ellipsoid((0, 0, 0), (6, 6, 6)), -990.0))  # a bronchus
    drawn.draw(Part(tube([(-40, 0, 0), (40, 0, 0)], (3, 3)), 50.0, only=IN_AIR))
    rows, columns = np.nonzero(drawn.hu[0] == 50.0)
    far = np.hypot(drawn.frame.x[rows, columns], drawn.frame.y[rows, columns])
    assert len(far)
    assert far.max() <= 20
    assert far.min() >= 6


def test_pose_leads_to_the_scanner_and_back():
    pose = Pose(0.3, (12.0, -7.0), np.array([[0.02, 0.01, 1.0, 2.5, -2.0], [-0.01, 0.02, 0.3, 1.0, 2.0]]))
    x, y = np.meshgrid(np.linspace(-150, 150, 13), np.linspace(-100, 100, 9))
    back = pose.to_patient(*pose.to_scanner(x, y))
    assert np.abs(back[0] - x).max() < 0.1
    assert np.abs(back[1] - y).max() < 0.1
