"""The supervised trainer: exact steps, resume, sources and their shares, augmentation, processes."""

import json
import pickle

import numpy as np
import pytest
import torch

from medseg_gan.data.slices import SliceRecord, write_store
from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.training import segmenter as module
from medseg_gan.training.augment import apply_affine, augment, draw_affine, vary_intensity
from medseg_gan.training.labelled import (
    LabelledSlices,
    StoredSlices,
    TrainingBatches,
    TrainingSource,
    class_frequencies,
    split_batch,
)
from medseg_gan.training.segmenter import (
    checkpoint_files,
    checkpoint_steps,
    load_segmenter,
    picked_weights,
    read_training,
    train_many,
    train_segmenter,
)

NETWORK = {"name": "unet", "num_classes": 3}


def discs(count, seed, size=16):
    """Slices with a bright and a dark disc on grey: an easy task with three classes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = rng.normal(0, 0.1, (count, size, size))
    label = np.zeros((count, size, size), np.int64)
    for k in range(count):
        for value, centre in ((1, 4), (2, 11)):
            cy, cx = centre + rng.uniform(-1, 1, 2)
            inside = (y - cy) ** 2 + (x - cx) ** 2 < 9
            label[k][inside] = value
            image[k][inside] += 0.7 if value == 1 else -0.7
    return torch.tensor(image, dtype=torch.float32).clamp(-1, 1).unsqueeze(1), torch.tensor(label)


@pytest.fixture
def source():
    return TrainingSource(LabelledSlices(*discs(12, seed=1)))


def train(folder, source, **settings):
    return train_segmenter(
        folder, NETWORK, [source], **{"seed": 3, "steps": 6, "batch_size": 4, "checkpoints": 3, **settings}
    )


def weights(path):
    return torch.load(path, weights_only=True)["state"]


def same_weights(a, b):
    a, b = weights(a), weights(b)
    return all(torch.equal(a[key], b[key]) for key in a)


def test_training_learns_and_validation_picks_the_checkpoint(tmp_path, source):
    val = LabelledSlices(*discs(4, seed=2))
    path = train(tmp_path, source, steps=60, val=val)
    training = read_training(tmp_path)
    best = max(training["checkpoints"], key=lambda row: row["val_miou"])
    assert best["val_miou"] > 0.6
    assert path == picked_weights(tmp_path) and path.name == f"weights-{best['step']:07d}.pt"
    assert training["curve"][-1]["loss"] < training["curve"][0]["loss"] / 2
    files, picked = checkpoint_files(tmp_path)
    assert [int(file.stem[-7:]) for file in files] == [row["step"] for row in training["checkpoints"]]
    assert files[picked] == path


def test_steps_are_exact_and_the_last_is_kept(tmp_path, source, monkeypatch):
    taken = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: taken.append(1) or original(self, *a))
    train(tmp_path, source, steps=7)
    assert len(taken) == 7
    assert [row["step"] for row in read_training(tmp_path)["checkpoints"]] == checkpoint_steps(7, 3) == [2, 5, 7]
    assert not list(tmp_path.glob("unfinished*"))


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam", "loss": "ce", "augment": "none"}])
def test_resumed_training_equals_uninterrupted(tmp_path, source, settings, monkeypatch):
    whole = train(tmp_path / "whole", source, **settings)
    original = module.save_checkpoint

    def die_after_the_first(path, **objects):
        original(path, **objects)
        if path.name == "unfinished.pt":
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_checkpoint", die_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", source, **settings)
    monkeypatch.setattr(module, "save_checkpoint", original)
    with pytest.raises(MedsegError, match=r"lr: 0\.003 -> 0\.1"):
        train(tmp_path / "cut", source, lr=0.1, **settings)
    assert same_weights(train(tmp_path / "cut", source, **settings), whole)
    rows = [read_training(tmp_path / name)["curve"] for name in ("whole", "cut")]
    assert rows[0] == rows[1]


def test_a_finished_training_is_left_alone(tmp_path, source):
    path = train(tmp_path, source, steps=2)
    before = path.stat().st_mtime_ns
    assert train(tmp_path, source, steps=2) == path
    assert path.stat().st_mtime_ns == before


def test_another_seed_gives_another_network(tmp_path, source):
    assert not same_weights(train(tmp_path / "a", source, steps=1), train(tmp_path / "b", source, steps=1, seed=4))


def test_a_loss_that_is_not_finite_stops_in_one_line(tmp_path, source):
    with pytest.raises(MedsegError, match="the loss is nan"):
        train(tmp_path, source, lr=1e30)
    assert not (tmp_path / "training.json").exists()


def test_every_batch_holds_each_sources_share():
    real, generated = (
        LabelledSlices(torch.full((n, 1, 4, 4), v), torch.zeros(n, 4, 4)) for n, v in ((3, 1.0), (90, 0.0))
    )
    batches = iter(TrainingBatches([TrainingSource(real), TrainingSource(generated)], 8, seed=0))
    for _ in range(10):
        assert next(batches)["image"][:, 0, 0, 0].tolist() == [1.0] * 4 + [0.0] * 4


def test_batches_start_anywhere():
    slices = LabelledSlices(torch.arange(10.0).reshape(10, 1, 1, 1), torch.zeros(10, 1, 1), list("aaaaaaabbc"))
    for balanced in (False, True):
        sources = [TrainingSource(slices, balanced=balanced)]
        first, later = (iter(TrainingBatches(sources, 4, seed=0, start=start)) for start in (0, 3))
        for _ in range(3):
            next(first)
        for _ in range(5):
            assert torch.equal(next(first)["image"], next(later)["image"])


def test_the_last_third_has_the_last_shares_wherever_it_is_resumed():
    real, generated = (
        LabelledSlices(torch.arange(n).reshape(n, 1, 1, 1) + 100.0 * k, torch.zeros(n, 1, 1))
        for k, n in enumerate((5, 40))
    )
    sources = [TrainingSource(real, 0.0, last_share=1.0), TrainingSource(generated, 1.0, last_share=0.0)]
    first = iter(TrainingBatches(sources, 4, seed=0, steps=9))
    seen = [next(first)["image"].flatten() for _ in range(9)]
    assert [bool((images < 100).all()) for images in seen] == [False] * 6 + [True] * 3
    assert all((images >= 100).all() for images in seen[:6])
    assert set(torch.cat(seen[6:]).tolist()) == set(range(5)), "every slice once before any a second time"
    for start in (2, 6, 8):
        later = iter(TrainingBatches(sources, 4, seed=0, start=start, steps=9))
        assert all(torch.equal(images, next(later)["image"].flatten()) for images in seen[start:])


def test_balanced_batches_show_patients_equally_often():
    slices = LabelledSlices(torch.arange(30.0).reshape(30, 1, 1, 1), torch.zeros(30, 1, 1), ["a"] * 25 + ["b"] * 5)
    batches = iter(TrainingBatches([TrainingSource(slices, balanced=True)], 2, seed=0))
    seen = torch.cat([next(batches)["image"].flatten() for _ in range(25)])
    assert (seen < 25).sum() == 25
    assert len(set(seen.tolist())) == 30


@pytest.mark.parametrize(("shares", "counts"), [([1], [8]), ([1, 1], [4, 4]), ([2, 1], [5, 3]), ([1, 1, 1], [3, 3, 2])])
def test_shares_are_rounded_to_whole_slices(shares, counts):
    assert split_batch(8, shares) == counts


def test_a_source_without_a_slice_is_refused():
    with pytest.raises(MedsegError, match="leaves a source"):
        split_batch(4, [1, 0.01])


def test_frequencies_weigh_sources_by_share():
    label = torch.zeros(2, 2, 2, dtype=torch.long)
    sources = [
        TrainingSource(LabelledSlices(torch.zeros(2, 1, 2, 2), label + k), share=s) for k, s in ((0, 3.0), (2, 1.0))
    ]
    assert class_frequencies(sources, 3).tolist() == [0.75, 0, 0.25]
    with pytest.raises(MedsegError, match="holds the value 2, wanted 0 to 1"):
        class_frequencies(sources, 2)
    with pytest.raises(MedsegError, match=r"slice 0 .* no label"):
        class_frequencies([TrainingSource(LabelledSlices(torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2), 255)))], 3)


def test_augmentation_moves_image_and_label_alike():
    torch.manual_seed(0)
    image, label = discs(6, seed=0, size=32)
    image = label.float().unsqueeze(1) - 1  # the image shows its label
    moved, moved_label = apply_affine(image, label, draw_affine(6, "cpu"))
    assert (moved.squeeze(1).round() + 1 == moved_label).float().mean() > 0.95
    assert not torch.equal(moved_label, label)


def test_augmentation_never_mirrors():
    assert (torch.det(draw_affine(500, "cpu")[:, :, :2]) > 0.5).all()
    assert (draw_affine(500, "cpu")[:, 0, 0] > 0.5).all()  # right stays right


def test_no_change_is_the_identity():
    image, label = discs(2, seed=0)
    still, still_label = apply_affine(image, label, draw_affine(2, "cpu", degrees=0, scale=0, shift=0))
    torch.testing.assert_close(still, image)
    assert torch.equal(still_label, label)
    torch.testing.assert_close(vary_intensity(image, gamma=0, gain=0, offset=0, noise=0), image)


def test_augmented_values_stay_in_range_and_classes_in_the_table():
    torch.manual_seed(0)
    image, label = discs(8, seed=0)
    label[:, :2] = 255
    for _ in range(5):
        changed, changed_label = augment(image, label)
        assert changed.isfinite().all() and changed.abs().max() <= 1
        assert set(changed_label.unique().tolist()) <= {0, 1, 2, 255}


def store_of_discs(folder):
    image, label = discs(6, seed=1)
    records = [SliceRecord("c", f"p{k % 2}", k, (1.0, 1.0, 3.0), None, "labelled", True) for k in range(6)]
    hu = (image[:, 0].numpy() * 1000).astype(np.int16)
    write_store(folder, hu, label.numpy().astype(np.uint8), records, (-1000, 1000), lookup_table("lungs"))
    return image, label


def test_stored_slices_are_those_of_memory(tmp_path):
    image, label = store_of_discs(tmp_path)
    stored = StoredSlices(tmp_path, [5, 2, 3])
    torch.testing.assert_close(stored.image([1, 0]), image[[2, 5]], atol=1e-3, rtol=0)
    assert torch.equal(stored.label([1, 0]), label[[2, 5]])
    assert stored.patients == ["p1", "p0", "p1"]


def test_stored_slices_travel_to_other_processes_as_a_description(tmp_path):
    store_of_discs(tmp_path)
    stored = StoredSlices(tmp_path, [5, 2, 3])
    travelled = pickle.loads(pickle.dumps(TrainingSource(stored, balanced=True)))
    assert len(pickle.dumps(stored)) < 1000
    assert torch.equal(travelled.slices.image([2]), stored.image([2]))


def test_many_trainings_go_on_where_they_stopped(tmp_path, source):
    arguments = {"network": NETWORK, "sources": [source], "steps": 2, "batch_size": 4, "checkpoints": 1, "seed": 0}
    with pytest.raises(MedsegError, match=r"second: .*the loss is nan"):
        train_many(
            {
                "first": {**arguments, "folder": tmp_path / "1"},
                "second": {**arguments, "folder": tmp_path / "2", "lr": 1e30},
            },
            workers=1,
        )
    finished = picked_weights(tmp_path / "1").stat().st_mtime_ns
    train_many({name: {**arguments, "folder": tmp_path / name} for name in ("1", "2")}, workers=1)
    assert picked_weights(tmp_path / "1").stat().st_mtime_ns == finished
    assert picked_weights(tmp_path / "2").is_file()


def test_files_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "x.pt").write_text(json.dumps({}))
    with pytest.raises(MedsegError, match="not a checkpoint"):
        load_segmenter(tmp_path / "x.pt")
    with pytest.raises(MedsegError, match="no finished training"):
        load_segmenter(tmp_path)
