"""The shelf phantom: APC's layout, one object and background a scene, another pose in each frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medseg_gan.data.phantom.shelf import OBJECTS, SURFACES, draw_frame, write_shelf_phantom
from medseg_gan.errors import MedsegError

SETTINGS = {"objects": 2, "scenes": 2, "frames": 2, "size": 24}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    root = tmp_path_factory.mktemp("shelf")
    write_shelf_phantom(root, **SETTINGS)
    return root


def test_layout_is_apcs(shelf):
    found = {path.relative_to(shelf).as_posix() for path in shelf.rglob("*.png")}
    scenes = [f"training/{surface}/{kind}" for surface in SURFACES for kind in OBJECTS[:2]]
    frames = ("frame-000000", "frame-000001")
    full = [f"{scene}/scene-000{k}" for scene in scenes for k in (0, 1)]
    assert found == {
        *(f"{scene}/scene-empty/{frame}.color.png" for scene in scenes for frame in frames),
        *(f"{scene}/{frame}.color.png" for scene in full for frame in frames),
        *(f"{scene}/masks/{frame}.mask.png" for scene in full for frame in frames),
    }


def test_files_hold_the_frames(shelf):
    folder = shelf / "training/tray" / OBJECTS[1] / "scene-0001"
    image, mask = draw_frame(0, "tray", 1, 1, 1, 24)
    assert np.array_equal(np.asarray(Image.open(folder / "frame-000001.color.png")), image)
    assert np.array_equal(np.asarray(Image.open(folder / "masks/frame-000001.mask.png")), mask * 255)


def test_frames_of_a_scene_share_colours_and_differ_in_pose():
    for surface in SURFACES:
        for kind in range(len(OBJECTS)):
            (one, first), (other, second) = (draw_frame(5, surface, kind, 0, frame, 32) for frame in (0, 1))
            overlap = (first & second).sum() / (first | second).sum()
            assert overlap < 0.95
            middle = (slice(6, 26), slice(6, 26))  # of the wall or floor, whatever the camera
            tones = [
                np.median(image[middle][mask[middle] == 0], axis=0) for image, mask in ((one, first), (other, second))
            ]
            assert np.abs(tones[0] - tones[1]).max() < 40
    scenes = [np.median(draw_frame(5, "tray", 0, scene, 0, 32)[0].reshape(-1, 3), axis=0) for scene in range(6)]
    assert max(np.abs(a - scenes[0]).max() for a in scenes[1:]) > 60


def test_every_object_is_seen_whole_and_an_empty_scene_has_none():
    for kind in range(len(OBJECTS)):
        _, mask = draw_frame(0, "shelf", kind, 3, 0, 48)
        assert 0.07 < mask.mean() < 0.26
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
    assert not draw_frame(0, "shelf", 0, None, 0, 48)[1].any()


def test_a_complete_phantom_is_kept_and_another_refused(shelf):
    path = next(shelf.rglob("*.color.png"))
    before = path.stat().st_mtime_ns
    write_shelf_phantom(shelf, **SETTINGS)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(MedsegError, match="other settings"):
        write_shelf_phantom(shelf, **{**SETTINGS, "frames": 3})
    with pytest.raises(MedsegError, match="1 to 15"):
        write_shelf_phantom(shelf / "more", objects=16)
