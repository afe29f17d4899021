"""Stanford Dogs and Cars are read from their MATLAB lists; pictures without a pseudo mask stay, unscored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from medseg_gan.data.picture_preparation import prepare_pictures
from medseg_gan.data.stanford import find_cars, find_dogs, holds_cars, holds_dogs, read_mat
from medseg_gan.errors import MedsegError

BREEDS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")


def picture(path: Path, shape: tuple[int, ...] = (20, 30, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, 200, np.uint8)).save(path)


def cells(names: list[str]) -> np.ndarray:
    array = np.empty((len(names), 1), object)
    array[:, 0] = names
    return array


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    (tmp_path / "lists").mkdir()
    for split, numbers in (("train", (1, 2, 3)), ("test", (4, 5))):
        names = [f"{breed}/{breed.split('-')[0]}_{k}.jpg" for breed in BREEDS for k in numbers]
        for name in names:
            picture(tmp_path / "Images" / name)
            picture(tmp_path / f"{split}_masks" / f"{Path(name).stem}.png", (20, 30))
        savemat(
            tmp_path / "lists" / f"{split}_list.mat", {"file_list": cells(names), "labels": np.ones((len(names), 1))}
        )
    return tmp_path


def annotations(names: list[str], classes: list[int] | None, first: float = 3) -> dict[str, np.ndarray]:
    kinds = [(f"bbox_{side}", object) for side in ("x1", "y1", "x2", "y2")]
    kinds += [("class", object)] if classes else []
    rows = np.empty((1, len(names)), [*kinds, ("fname", object)])
    for k, name in enumerate(names):
        rows[0, k] = (first, 2.0, 22.0, 18.0, *([classes[k]] if classes else []), name)
    return {"annotations": rows}


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    devkit = tmp_path / "devkit"
    devkit.mkdir()
    savemat(devkit / "cars_meta.mat", {"class_names": cells(["AM General Hummer", "Acura RL"]).T})
    names = [f"{k:05d}.jpg" for k in (1, 2, 3)]
    for split, number in (("train", 3), ("test", 2)):
        for name in names[:number]:
            picture(tmp_path / f"cars_{split}" / name)
            picture(tmp_path / f"{split}_masks" / f"{Path(name).stem}.png", (20, 30))
    savemat(devkit / "cars_train_annos.mat", annotations(names, [1, 2, 1]))
    savemat(devkit / "cars_test_annos.mat", annotations(names[:2], None))
    return tmp_path


def test_dogs_are_found_by_their_lists(dogs):
    assert holds_dogs(dogs) and not holds_cars(dogs)
    found = find_dogs(dogs)
    assert found.classes == BREEDS
    assert [item.split for item in found.pictures] == ["train"] * 6 + ["test"] * 4
    assert found.pictures[4].name == f"Images/{BREEDS[1]}/n02085782_2.jpg"
    assert found.pictures[4].class_id == 1
    assert found.pictures[4].mask == dogs / "train_masks" / "n02085782_2.png"
    assert found.notes == ()


def test_lists_may_lie_in_the_folder_itself(dogs):
    for path in list((dogs / "lists").iterdir()):
        path.rename(dogs / path.name)
    assert len(find_dogs(dogs).pictures) == 10


def test_pictures_without_a_detection_are_listed_and_unscored(dogs, tmp_path):
    (dogs / "test_masks" / "n02085620_4.png").unlink()
    found = find_dogs(dogs)
    assert "1 of 4 test pictures have no mask" in found.notes[0]
    counts = prepare_pictures(tmp_path / "s", found.pictures, size=8, dataset=found.dataset)
    assert counts["without_mask"] == [f"Images/{BREEDS[0]}/n02085620_4.jpg"]
    assert counts["splits"]["test"] == {"pictures": 4, "labelled": 3}


def test_masks_may_lie_elsewhere(dogs, tmp_path):
    (dogs / "train_masks").rename(tmp_path / "masks")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "masks").rename(tmp_path / "elsewhere" / "train_masks")
    found = find_dogs(dogs, masks=tmp_path / "elsewhere")
    assert [item.mask is not None for item in found.pictures] == [True] * 6 + [False] * 4


def test_cars_have_classes_names_and_boxes(cars):
    assert holds_cars(cars) and not holds_dogs(cars)
    found = find_cars(cars)
    assert found.classes == ("AM General Hummer", "Acura RL")
    assert [item.name for item in found.pictures][2:4] == ["cars_train/00003.jpg", "cars_test/00001.jpg"]
    assert [item.class_id for item in found.pictures] == [0, 1, 0, None, None]
    assert found.pictures[0].box == (2, 1, 20, 17)
    assert found.pictures[3].mask == cars / "test_masks" / "00001.png"


def test_test_classes_come_from_the_labelled_list(cars):
    for folder in (cars, cars / "devkit"):
        savemat(folder / "cars_test_annos_withlabels.mat", annotations(["00001.jpg", "00002.jpg"], [2, 1]))
        assert [item.class_id for item in find_cars(cars).pictures][3:] == [1, 0]


def test_classes_with_gaps_are_refused(cars):
    savemat(cars / "devkit" / "cars_train_annos.mat", annotations(["00001.jpg", "00003.jpg"], [1, 1]))
    with pytest.raises(MedsegError, match="no picture has class 2 of the 2"):
        find_cars(cars)
    savemat(cars / "devkit" / "cars_train_annos.mat", annotations(["00001.jpg", "00003.jpg"], [1, 3]))
    with pytest.raises(MedsegError, match="uses class 3"):
        find_cars(cars)


def test_boxes_outside_are_refused(cars, tmp_path):
    savemat(cars / "devkit" / "cars_train_annos.mat", annotations(["00001.jpg", "00002.jpg"], [1, 2], first=23))
    with pytest.raises(MedsegError, match="ends before it begins"):
        find_cars(cars)
    savemat(cars / "devkit" / "cars_train_annos.mat", annotations(["00001.jpg", "00002.jpg"], [1, 2], first=-9))
    with pytest.raises(MedsegError, match="lies outside"):
        prepare_pictures(tmp_path / "s", find_cars(cars).pictures, size=8, dataset="cars")


def test_missing_pictures_and_lists_are_named(dogs):
    (dogs / "Images" / BREEDS[0] / "n02085620_1.jpg").unlink()
    with pytest.raises(MedsegError, match=r"the train list names .*n02085620_1"):
        find_dogs(dogs)
    (dogs / "lists" / "test_list.mat").unlink()
    with pytest.raises(MedsegError, match=r"test_list\.mat does not exist"):
        find_dogs(dogs)


def test_a_picture_listed_twice_is_refused(dogs):
    names = [f"{BREEDS[0]}/n02085620_{k}.jpg" for k in (1, 4)]
    savemat(dogs / "lists" / "test_list.mat", {"file_list": cells(names)})
    with pytest.raises(MedsegError, match=r"n02085620_1\.jpg is listed twice"):
        find_dogs(dogs)


def test_lists_of_one_picture_are_read(dogs):
    for split, k in (("train", 1), ("test", 4)):
        savemat(dogs / "lists" / f"{split}_list.mat", {"file_list": cells([f"{BREEDS[0]}/n02085620_{k}.jpg"])})
    assert len(find_dogs(dogs).pictures) == 2


def test_matlab_files_of_the_wrong_kind_are_one_line(dogs, cars, tmp_path):
    # A v7.3 file: the text header says 2.0 at byte 124, an HDF5 file follows at byte 512.
    header = b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM"
    (tmp_path / "new.mat").write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(MedsegError, match=r"version 7\.3 \(HDF5\), wanted version 7"):
        read_mat(tmp_path / "new.mat")
    (tmp_path / "text.mat").write_text("<html>not found, try again later</html>" * 9)
    with pytest.raises(MedsegError, match="cannot be read as a MATLAB file") as caught:
        read_mat(tmp_path / "text.mat")
    assert "\n" not in str(caught.value)
    savemat(dogs / "lists" / "train_list.mat", {"files": [1]})
    with pytest.raises(MedsegError, match="no variable file_list, it holds files"):
        find_dogs(dogs)
    savemat(cars / "devkit" / "cars_train_annos.mat", {"annotations": [1, 2]})
    with pytest.raises(MedsegError, match="have no field"):
        find_cars(cars)
