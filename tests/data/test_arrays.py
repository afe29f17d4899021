"""An array written in parts equals the whole, and an error leaves the old one."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_gan.data.arrays import GrowingArray


def test_parts_equal_the_whole(tmp_path):
    whole = np.arange(60, dtype=np.uint16).reshape(10, 2, 3)
    with GrowingArray(tmp_path / "a.npy", np.dtype("u2")) as array:
        for part in (whole[:1], whole[1:7], whole[7:]):
            array.append(part)
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert read.dtype == whole.dtype
    np.testing.assert_array_equal(read, whole)


def test_an_error_leaves_the_old_array(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(RuntimeError), GrowingArray(tmp_path / "a.npy", np.dtype("u1")) as array:
        array.append(np.ones((2, 2), np.uint8))
        raise RuntimeError
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.zeros(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_items_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit"), GrowingArray(tmp_path / "a.npy", np.dtype("u1")) as array:
        array.append(np.ones((2, 4), np.uint8))
        array.append(np.ones((2, 5), np.uint8))
