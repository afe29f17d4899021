"""Stages of the layered GAN: pairs by block, the ceiling's masks, CT as pictures, scores of trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from layered_example import build, write_squares

from medseg_gan.data.pictures import PictureRecord, PictureStore, write_picture_store
from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.labels import lookup_table
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.systems.layered.ct import as_pictures
from medseg_gan.systems.layered.evaluation import clustering, mask_scores, summary, unit_of
from medseg_gan.systems.layered.recipe import Network, Objective, Prepare, TrainGan
from medseg_gan.systems.layered.stages import ceiling_job, has_ceiling, train_gan
from medseg_gan.systems.layered.training import MODEL, TrainedLayers, save_layered
from medseg_gan.systems.plan import plan_recipe
from medseg_gan.training.labelled import SOFT_MASKS
from medseg_gan.training.pairs import write_foreground_pairs


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> TrainedLayers:
    folder = tmp_path_factory.mktemp("model")
    step = build()
    torch.nn.init.normal_(step.G.mask.weight, std=0.5)  # masks with both classes
    save_layered(folder / MODEL, step, [])
    return TrainedLayers.load(folder, seed=5)


def test_every_arm_begins_anew_after_a_trivial_solution(tmp_path: Path) -> None:
    """And each attempt of an arm begins as that of the others, so that they still compare in pairs."""
    config = TrainGan(
        objective=Objective(c_dim=6, group=2, mask_bias=-30.0, rounds=1, kimg=0.016),  # masks stay empty
        arms={"main": {}, "no_mi": {"gamma_mi": 0}},
        network=Network(z_dim=4, base=8, widest=1, blocks=1, smallest=8, d_first=8, pi_first=4),
        batch_size=4,
        segmenter="unet",
        segmenter_width=16,
        segmenter_steps=1,
        restarts=1,
        workers=1,
    )
    inputs = plan_recipe("cub_layered", profile="smoke", out=tmp_path / "run").inputs("cpu")
    train_gan(config, tmp_path, replace(inputs, folders={"prepare": write_squares(tmp_path / "store")}))
    main, other = (load_checkpoint(tmp_path / f"{arm}-0" / MODEL)["attempts"] for arm in config.arms)
    assert len(main) == len(other) == 2 and main[0]["trivial"] and other[0]["trivial"]
    assert [one["seed"] for one in main] == [one["seed"] for one in other]


def pairs(folder: Path) -> tuple[PictureStore, np.ndarray]:
    return PictureStore.open(folder), np.load(folder / SOFT_MASKS)


def write_pairs(folder: Path, layers: TrainedLayers, count: int, val_share: float, block: int) -> None:
    write_foreground_pairs(folder, layers.render_pairs, count, val_share=val_share, block=block, description="pairs")


def test_pairs_do_not_depend_on_how_many_are_made(layers: TrainedLayers, tmp_path: Path) -> None:
    """The last block is rendered whole and cut, so that a longer run begins with the same bits."""
    write_pairs(tmp_path / "few", layers, 10, 0.1, block=4)
    write_pairs(tmp_path / "more", layers, 14, 0.1, block=4)
    (few, soft), (more, more_soft) = pairs(tmp_path / "few"), pairs(tmp_path / "more")
    assert (len(few), len(more)) == (10, 14) == (len(soft), len(more_soft))
    assert np.array_equal(few.images, more.images[:10]) and np.array_equal(few.masks, more.masks[:10])
    assert np.array_equal(soft, more_soft[:10])


def test_every_block_is_rendered_whole(layers: TrainedLayers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another batch size may give other bits, whatever it does on this machine."""
    rendered, render = [], layers.render
    monkeypatch.setattr(layers, "render", lambda chosen: rendered.append(chosen) or render(chosen))
    write_pairs(tmp_path, layers, 10, 0.1, block=4)
    assert rendered == [range(0, 4), range(4, 8), range(8, 12)]


def test_pairs_made_again_are_the_same(layers: TrainedLayers, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_pairs(tmp_path / name, layers, 6, 0.2, block=4)
    for name in ("images.npy", "masks.npy", SOFT_MASKS, "pictures.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_pairs_are_what_the_generator_renders(layers: TrainedLayers, tmp_path: Path) -> None:
    write_pairs(tmp_path, layers, 8, 0.25, block=4)
    store, soft = pairs(tmp_path)
    image, mask, _, _ = layers.render(range(4, 8))
    torch.testing.assert_close(store.image_tensor(range(4, 8)), image, atol=1.1 / 127.5, rtol=0)
    assert np.array_equal(store.masks[4:], (mask[:, 0] > 0.5).numpy())
    torch.testing.assert_close(torch.from_numpy(soft[4:]).float() / 255, mask[:, 0], atol=0.5 / 255 + 1e-4, rtol=0)
    assert set(np.unique(store.masks)) == {0, 1}
    assert soft.dtype == np.uint8


@pytest.mark.parametrize(("share", "kept"), [(0.25, 2), (0.5, 4), (0.01, 1)])
def test_the_last_share_is_val(layers: TrainedLayers, tmp_path: Path, share: float, kept: int) -> None:
    write_pairs(tmp_path, layers, 8, share, block=5)
    store, _ = pairs(tmp_path)
    assert store.indices("val").tolist() == list(range(8 - kept, 8))
    assert store.indices("train").tolist() == list(range(8 - kept))


def test_the_ceiling_trains_on_masks_of_train_and_is_picked_on_val(tmp_path: Path) -> None:
    images, masks = np.zeros((6, 16, 16, 3), np.uint8), np.zeros((6, 16, 16), np.uint8)
    splits = ["train", "train", "val", "val", "test", "train"]
    records = [PictureRecord(str(k), split, None, k not in (1, 3)) for k, split in enumerate(splits)]
    write_picture_store(tmp_path / "store", images, masks, records, dataset="test")
    job = ceiling_job(tmp_path / "store")
    assert job is not None
    assert job["sources"][0].slices.indices.tolist() == [0, 5]
    assert job["val"].indices.tolist() == [2] and not job["val"].soft


def test_no_training_masks_no_ceiling(tmp_path: Path) -> None:
    records = [PictureRecord(str(k), split, None, split == "test") for k, split in enumerate(("train", "test"))]
    blank = np.zeros((2, 16, 16, 3), np.uint8)
    write_picture_store(tmp_path / "store", blank, blank[..., 0], records, dataset="test")
    assert ceiling_job(tmp_path / "store") is None
    assert not has_ceiling(tmp_path)


# CT.


def slices(folder: Path) -> SliceStore:
    """Slices of three pools: a body of soft tissue with two lungs, the label left out where nobody gave one."""
    table = lookup_table("lungs")
    hu = np.full((3, 32, 32), -1000, np.int16)
    hu[:, 6:26, 4:28] = 40
    label = np.zeros((3, 32, 32), np.uint8)
    for name, columns in (("left_lung", slice(18, 25)), ("right_lung", slice(7, 14))):
        hu[:, 10:20, columns] = -800
        label[:, 10:20, columns] = table.id_of(name)
    hu[:, 29:, 2:30] = 100  # the couch
    records = [
        SliceRecord(f"case{k}", f"patient{k}", k, (1.0, 1.0, 5.0), None, pool, pool != "gan")
        for k, pool in enumerate(("gan", "labelled", "test"))
    ]
    label[0] = 255
    write_store(folder, hu, label, records, (-1000.0, 400.0), table)
    return SliceStore.open(folder)


@pytest.mark.parametrize("foreground", ["lungs", "body"])
def test_slices_become_pictures_with_their_foreground(tmp_path: Path, foreground: str) -> None:
    store = slices(tmp_path / "slices")
    as_pictures(store, tmp_path / "pictures", Prepare(size=32, layout="ct", foreground=foreground))
    pictures = PictureStore.open(tmp_path / "pictures")
    assert pictures.channels == 1 and [record.split for record in pictures.records] == ["train", "train", "test"]
    torch.testing.assert_close(
        pictures.image_tensor([0, 1, 2]), store.image_tensor([0, 1, 2]), atol=0.6 / 127.5, rtol=0
    )
    wanted = np.zeros((32, 32), bool)
    if foreground == "body":
        wanted[6:26, 4:28] = True
    else:
        wanted[10:20, 18:25] = wanted[10:20, 7:14] = True
    for number, record in enumerate(pictures.records):
        if record.labelled:
            assert np.array_equal(pictures.masks[number] == 1, wanted)
        else:
            assert (pictures.masks[number] == 255).all()
    assert [record.labelled for record in pictures.records] == [foreground == "body", True, True]


# Scores.


def test_perfect_and_empty_masks_score_as_they_should() -> None:
    label = np.zeros((4, 8, 8), np.uint8)
    label[:, 2:6, 2:6] = 1
    units = [str(k) for k in range(4)]
    perfect, empty = (mask_scores(pred, label, units, 20, 0) for pred in (label, np.zeros_like(label)))
    assert perfect["iou"] == perfect["miou"] == perfect["acc"] == perfect["ari"] == perfect["msc"] == 1
    assert perfect["interval"] == [1, 1] and perfect["area"] == 0.25
    assert empty["iou"] == 0 and empty["acc"] == 0.75
    inverted = mask_scores(1 - label, label, units, 20, 0)
    assert inverted["iou"] == 0 and inverted["inverted"] and inverted["best_polarity_iou"] == 1


def test_frames_of_a_scene_and_slices_of_a_patient_are_drawn_together() -> None:
    assert (
        unit_of("training/shelf/ball/scene-0001/frame-000001.color.png", "Amazon Picking Challenge")
        == "training/shelf/ball/scene-0001"
    )
    assert unit_of("patient07-00012", "chest CT") == "patient07"
    assert unit_of("001.Albatross/a_b-12.jpg", "CUB-200-2011") == "001.Albatross/a_b-12.jpg"


def test_an_arms_summary_is_over_its_seeds() -> None:
    figures = ("acc", "iou_img", "miou", "ari", "msc", "F_iou", "image_distance", "background_distance", "gap")
    trainings = [
        {"iou": iou, "attempts": [0] * tries, "nmi": None, **dict.fromkeys(figures, 1.0)}
        for iou, tries in ((0.4, 1), (0.6, 3))
    ]
    found = summary(trainings)
    assert found["iou"] == pytest.approx(0.5) and found["iou_sd"] == pytest.approx(0.1 * 2**0.5)
    assert (found["seeds"], found["restarts"]) == (2, 2) and "nmi" not in found
    assert summary(trainings[:1])["iou_sd"] is None


def test_clusters_are_compared_with_classes_where_there_are_any(layers: TrainedLayers, tmp_path: Path) -> None:
    store = PictureStore.open(write_squares(tmp_path / "store"))
    nmi = clustering(layers, store)
    assert nmi is not None and 0 <= nmi <= 1
    store.records[3] = PictureRecord("without", "train", None, True)
    assert clustering(layers, store) is None
