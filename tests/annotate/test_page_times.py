"""Seconds and Dice are noted line by line, and a damaged line costs that line only."""

import numpy as np
import pytest

from medseg_gan.annotate.times import Saving, append_saving, dice_by_class, read_savings, spent


def saving(image="0000-a", seconds=10.0, began="nothing", answer="painted", dice=None):
    return Saving(image, seconds, began, answer, dice, {}, "2026-01-01T00:00:00+00:00")


def test_dice_by_hand():
    ours = np.array([[1, 1, 2, 0]])
    theirs = np.array([[1, 0, 2, 0]])
    assert dice_by_class(ours, theirs, ("background", "a", "b", "c")) == {"a": pytest.approx(2 / 3), "b": 1.0}


def test_lines_come_back_and_a_line_cut_off_is_left_out(tmp_path):
    append_saving(tmp_path, saving())
    path = tmp_path / "times.jsonl"
    with path.open("a") as file:
        file.write('{"image": "0001')  # the machine went down here
    append_saving(tmp_path, saving("0002-c"))
    assert [one.image for one in read_savings(tmp_path)] == ["0000-a", "0002-c"]
    assert read_savings(tmp_path / "nowhere") == []


def test_the_seconds_of_an_image_add_up_and_medians_go_by_what_was_corrected():
    rows = spent(
        [
            saving("a", 30.0),
            saving("a", 10.0, began="the stored mask"),
            saving("b", 60.0),
            saving("c", 8.0, began="interpreter 1", dice=0.95),
            saving("d", 20.0, began="interpreter 1", dice=0.5),
            saving("e", 2.0, answer="rejected"),
        ]
    )
    found = {row.began: (row.images, row.median_seconds) for row in rows}
    assert found["from nothing"] == (2, 50.0)
    assert found["from a pre-label, Dice 0.9 or more"] == (1, 8.0)
    assert found["from a pre-label, Dice below 0.7"] == (1, 20.0)
    assert found["rejected"] == (1, 2.0) and found["all"] == (5, 20.0)
