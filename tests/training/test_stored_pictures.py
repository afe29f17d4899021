"""Pictures of a store as training slices, with hard and with soft masks, and segmenters trained on them."""

import pickle

import numpy as np
import pytest
import torch

from medseg_gan.data.pictures import PictureRecord, PictureStore, write_picture_store
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import write_array
from medseg_gan.training import segmenter as module
from medseg_gan.training.labelled import SOFT_MASKS, StoredPictures, TrainingBatches, TrainingSource
from medseg_gan.training.segmenter import load_segmenter, read_training, train_segmenter

SIZE = 16


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    masks = np.zeros((10, SIZE, SIZE), np.uint8)
    masks[:, 3:11, 4:12] = 1
    images = (rng.integers(0, 80, (10, SIZE, SIZE, 3)) + 150 * masks[..., None]).astype(np.uint8)
    records = [PictureRecord(f"p{k}", "val" if k >= 8 else "train", None, True) for k in range(10)]
    write_picture_store(tmp_path / "store", images, masks, records, dataset="test")
    write_array(tmp_path / "store" / SOFT_MASKS, np.where(masks == 1, 230, 10).astype(np.uint8))
    return tmp_path / "store"


def test_pictures_and_masks_are_those_of_the_store(store):
    pictures, opened = StoredPictures(store, [7, 2, 5]), PictureStore.open(store)
    assert len(pictures) == 3
    assert torch.equal(pictures.image([1, 0]), opened.image_tensor([2, 7]))
    assert torch.equal(pictures.label(range(3)), opened.label_tensor([7, 2, 5]))
    assert pictures.image([0]).shape == (1, 3, SIZE, SIZE) and pictures.label([0]).dtype == torch.int64


def test_soft_masks_are_probabilities(store):
    soft, hard = StoredPictures(store, [0, 9], soft=True), StoredPictures(store, [0, 9])
    label = soft.label([1])
    assert label.dtype == torch.float32 and label.shape == (1, SIZE, SIZE)
    assert torch.equal(label > 0.5, hard.label([1]) == 1)
    assert label.unique().tolist() == pytest.approx([10 / 255, 230 / 255])


def test_missing_soft_masks_are_one_line(store):
    (store / SOFT_MASKS).unlink()
    StoredPictures(store, [0])
    with pytest.raises(MedsegError, match=f"holds no soft masks .{SOFT_MASKS}.; make it anew"):
        StoredPictures(store, [0], soft=True)


@pytest.mark.parametrize("soft", [False, True])
def test_pickles_as_a_description(store, soft):
    pictures = StoredPictures(store, [4, 1], soft=soft)
    data = pickle.dumps(pictures)
    assert len(data) < 2000
    again = pickle.loads(data)
    assert torch.equal(again.label([0, 1]), pictures.label([0, 1]))


def test_batches_of_soft_masks_go_on_from_any_step(store):
    source = TrainingSource(StoredPictures(store, range(8), soft=True))
    whole, rest = iter(TrainingBatches([source], 3, seed=1)), iter(TrainingBatches([source], 3, seed=1, start=4))
    for _ in range(4):
        next(whole)
    for _ in range(4):
        a, b = next(whole), next(rest)
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])
        assert a["label"].dtype == torch.float32


def train(folder, store, **changes):
    soft = changes.pop("soft", True)
    settings = {"seed": 3, "steps": 9, "batch_size": 4, "checkpoints": 3, "lr": 1e-2, "optimizer": "adam_step"}
    settings |= {"loss": "soft_ce" if soft else "ce", "augment": "colour", "val": StoredPictures(store, [8, 9])}
    network = {"name": "unet", "num_classes": 2, "in_channels": 3}
    return train_segmenter(
        folder, network, [TrainingSource(StoredPictures(store, range(8), soft=soft))], **(settings | changes)
    )


@pytest.mark.parametrize("stop_at", [4, 8])
@pytest.mark.parametrize("soft", [True, False])
def test_resumed_training_on_pictures_equals_uninterrupted(tmp_path, store, soft, stop_at, monkeypatch):
    whole = train(tmp_path / "whole", store, soft=soft)
    original = module.seed_step

    def dies(*parts):
        if parts[1:] == ("step", stop_at):
            raise KeyboardInterrupt
        original(*parts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "seed_step", dies)
        train(tmp_path / "broken", store, soft=soft)
    broken = train(tmp_path / "broken", store, soft=soft)
    one, other = (load_segmenter(path).state_dict() for path in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (read_training(tmp_path / name) for name in ("whole", "broken"))
    assert first["curve"] == second["curve"] and first["checkpoints"] == second["checkpoints"]


def test_soft_masks_teach_foreground_as_foreground(tmp_path, store):
    train(tmp_path / "run", store, steps=60)
    assert max(row["val_miou"] for row in read_training(tmp_path / "run")["checkpoints"]) > 0.8


@pytest.mark.parametrize(("steps", "lowered"), [(9, 6), (12, 8), (1, 1)])
def test_the_rate_falls_to_a_fifth_after_two_thirds(steps, lowered):
    model = torch.nn.Linear(1, 1)
    optimiser, scheduler = module._optimiser(model, "adam_step", 1.0, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert rates == pytest.approx([1.0] * lowered + [0.2] * (steps - lowered))


def test_adam_keeps_its_rate():
    optimiser, scheduler = module._optimiser(torch.nn.Linear(1, 1), "adam", 0.5, 4)
    for _ in range(4):
        optimiser.step()
        scheduler.step()
    assert optimiser.param_groups[0]["lr"] == 0.5


def test_augmentations_change_what_they_say():
    image, label = torch.rand(8, 1, SIZE, SIZE) * 2 - 1, torch.randint(0, 2, (8, SIZE, SIZE))
    batch, cpu = {"image": image, "label": label}, torch.device("cpu")
    changed = {}
    for name in ("none", "colour", "slice"):
        torch.manual_seed(0)
        changed[name] = module._prepare_batch(batch, cpu, augment=name)
    assert torch.equal(changed["none"][0], image) and torch.equal(changed["none"][1], label)
    assert not torch.equal(changed["colour"][0], image) and torch.equal(changed["colour"][1], label)
    assert not torch.equal(changed["slice"][0], image) and not torch.equal(changed["slice"][1], label)
