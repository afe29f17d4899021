"""Label maps like the annotated ones raise no objection; missing, torn, swapped and misplaced organs do."""

import numpy as np
import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.plausibility import Plausibility, areas, components
from medseg_gan.labels import lookup_table

PAPER = lookup_table("paper")
HEART, AORTA, TRACHEA, LEFT, RIGHT = 1, 2, 3, 4, 5


def chest(rng):
    """A chest of 40 x 40 pixels: the left lung at the right of the picture, the heart between."""
    label = np.zeros((40, 40), np.uint8)
    a, b, c = rng.integers(0, 3, 3)
    label[8 : 30 + a, 26:37] = LEFT
    label[8 : 30 + b, 3:14] = RIGHT
    label[10 : 20 + c, 15:25] = HEART
    label[24:28, 18 : 22 + a % 2] = AORTA
    return label


@pytest.fixture
def annotated():
    rng = np.random.default_rng(0)
    return np.stack([chest(rng) for _ in range(30)])


@pytest.fixture
def plausible(annotated):
    return Plausibility.learned(annotated, PAPER)


def test_annotated_maps_raise_no_objection(annotated, plausible):
    assert [plausible.objections(label) for label in annotated] == [[]] * len(annotated)


def test_a_mirrored_map_has_its_lungs_swapped_and_nothing_else(annotated, plausible):
    assert plausible.objections(annotated[0][:, ::-1]) == ["left lung not at the patient's left of right lung"]


def change(label, pixels, value):
    changed = label.copy()
    changed[pixels] = value
    return changed


@pytest.mark.parametrize(
    ("broken", "objection"),
    [
        (lambda x: np.where(x == HEART, 0, x), "no heart"),
        (lambda x: change(x, np.s_[33, 16], HEART), "heart in 2 pieces"),
        (lambda x: np.where(x == LEFT, HEART, x), "heart too large"),
        (lambda x: change(x, np.s_[8:33, 27:37], 0), "left lung too small"),
        (lambda x: change(np.where(x == HEART, 0, x), np.s_[30:40, 30:40], HEART), "heart not between left lung and"),
        (lambda x: change(x, np.s_[0:2, 19], TRACHEA), "trachea, which no annotated map has"),
    ],
)
def test_what_is_unusual_is_named(annotated, plausible, broken, objection):
    assert any(text.startswith(objection) for text in plausible.objections(broken(annotated[0])))


def test_an_empty_map_lacks_everything_that_is_required(plausible):
    found = plausible.objections(np.zeros((40, 40), np.uint8))
    assert found == ["no heart", "no aorta", "no left lung", "no right lung"]


def test_a_rule_that_annotated_maps_break_is_not_applied(annotated):
    mirrored = Plausibility.learned(annotated[:, :, ::-1], PAPER)
    assert mirrored.sides == () and mirrored.objections(annotated[0]) == []


@pytest.mark.parametrize("name", ["paper", "all", "segthor", "lungs"])
def test_every_label_table_has_the_rules_of_its_classes(name, annotated):
    table = lookup_table(name)
    labels = np.zeros_like(annotated)
    for source, organ in ((HEART, "heart"), (LEFT, "left_lung"), (RIGHT, "right_lung")):
        if organ in table.classes:
            labels[annotated == source] = table.id_of(organ)
    learned = Plausibility.learned(labels, table)
    assert len(learned.sides) == ("left_lung" in table.classes)
    assert len(learned.between) == ({"heart", "left_lung"} <= set(table.classes))
    assert learned.objections(labels[0]) == []


def test_unlabelled_pixels_are_no_class(annotated):
    half = annotated.copy()
    half[:, :4] = 255
    learned = Plausibility.learned(half, PAPER)
    assert learned.objections(half[0]) == []
    assert areas(half, 6).sum(axis=1).max() < 1


def test_components_touch_at_corners_and_leave_out_the_background():
    label = np.zeros((1, 6, 6), np.uint8)
    label[0, 0, 0] = label[0, 1, 1] = label[0, 4, 4] = 2
    assert components(label, 4).tolist() == [[0, 0, 2, 0]]


def test_nothing_to_learn_from_is_told_in_one_line():
    with pytest.raises(MedsegError, match=r"shape \(0, 40, 40\); wanted") as caught:
        Plausibility.learned(np.zeros((0, 40, 40), np.uint8), PAPER)
    assert "\n" not in str(caught.value)
