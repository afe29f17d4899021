"""What is painted comes back class for class, and only from the image it was painted on."""

import numpy as np
import pytest
from annotation_example import TABLE, scribble, slices

from medseg_gan.annotate.strokes import editor_value, image_to_background, label_to_layer, layer_to_label, painted_layer
from medseg_gan.errors import MedsegError

IMAGE = slices(1)[0]


def test_a_label_survives_the_editor():
    layer = label_to_layer(scribble(), TABLE)
    np.testing.assert_array_equal(layer_to_label(layer, TABLE), scribble())
    assert set(np.unique(layer[..., 3])) == {0, 255} and not layer[layer[..., 3] == 0].any()


def test_the_window_of_the_display_changes_grey_only():
    wide = editor_value(IMAGE, scribble(), TABLE, -300, 1400)
    narrow = editor_value(IMAGE, scribble(), TABLE, 40, 400)
    assert (wide["background"] != narrow["background"]).any()
    np.testing.assert_array_equal(wide["layers"][0], narrow["layers"][0])
    assert (image_to_background(IMAGE, 40, 400)[0, 0] == (0, 0, 0, 255)).all()  # -700 lies below the window


def test_a_smoothed_colour_is_told_and_not_rounded():
    layer = label_to_layer(scribble(), TABLE)
    layer[2, 3] = (214, 69, 81, 255)
    with pytest.raises(MedsegError, match=r"1 pixels have colours of no class, the first \(214, 69, 81, 255\) in"):
        layer_to_label(layer, TABLE)
    layer[2, 3] = (214, 69, 80, 128)
    with pytest.raises(MedsegError, match="1 pixels have colours of no class"):
        layer_to_label(layer, TABLE)


def test_strokes_on_another_image_are_not_taken():
    value = editor_value(IMAGE, scribble(), TABLE, -300, 1400)
    np.testing.assert_array_equal(painted_layer(value, value["background"]), value["layers"][0])
    other = image_to_background(slices(2)[1], -300, 1400)
    for wrong in (value, None, {"background": None, "layers": [], "composite": None}):
        with pytest.raises(MedsegError, match="does not show this image yet"):
            painted_layer(wrong, other)
    small = value | {"layers": [value["layers"][0][::2]]}
    with pytest.raises(MedsegError, match="layers of 32x12, wanted one of 32x24"):
        painted_layer(small, value["background"])
    assert not painted_layer(value | {"layers": []}, value["background"]).any()
