"""Evaluation of trained segmenters: every checkpoint sees every test image once, whatever is scored with it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.data.volume_grid import VolumeGrid
from medseg_gan.evaluation.segmentation import confusion
from medseg_gan.labels import lookup_table
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.systems.datasetgan import comparison
from medseg_gan.systems.datasetgan.comparison import ImageSet, evaluate_checkpoints
from medseg_gan.systems.datasetgan.volumes import WholeVolumes
from medseg_gan.training.labelled import LabelledSlices, TrainingSource
from medseg_gan.training.segmenter import checkpoint_files, load_segmenter, train_segmenter

CLASSES = ("background", "disc")
CHECKPOINTS = 3


@pytest.fixture
def tests():
    rng = np.random.default_rng(0)

    def images(count):
        return torch.from_numpy(rng.uniform(-1, 1, (count, 1, 16, 16)).astype(np.float32))

    def labels(count):
        return rng.integers(0, 2, (count, 16, 16)).astype(np.uint8)

    generated, rows = images(5), np.array([0, 3])
    return {
        "test_r": ImageSet(images(4), labels(4), ["a", "a", "b", "b"]),
        "test_g[factory]": ImageSet(generated, labels(5), list("01234")),
        "test_g[annotator]": ImageSet(generated[rows], labels(2), ["0", "3"], ("test_g[factory]", rows)),
    }


@pytest.fixture
def trained(tmp_path, tests):
    source = TrainingSource(LabelledSlices(tests["test_r"].images, torch.from_numpy(tests["test_r"].labels).long()))
    network = {"name": "unet", "num_classes": 2, "width": 16}
    train_segmenter(tmp_path, network, [source], seed=0, steps=3, batch_size=2, checkpoints=CHECKPOINTS)
    return tmp_path


def test_every_checkpoint_sees_every_test_image_once(trained, tests, monkeypatch):
    seen = []

    def counted(path, device):
        network = load_segmenter(path, device)
        network.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
        return network

    monkeypatch.setattr(comparison, "load_segmenter", counted)
    inputs = SimpleNamespace(device="cpu", precision="fp32")
    runs, test_r = evaluate_checkpoints(trained, 7, tests, CLASSES, inputs)
    assert sum(seen) == CHECKPOINTS * (4 + 5)  # 4 + 5 + 2 for each, and 4 more for Ignite's report, before
    files, picked = checkpoint_files(trained)
    for name, test in tests.items():
        run = runs[name]
        assert (run.seed, run.picked) == (7, picked)
        for file, found in zip(files, run.matrices, strict=True):
            assert (found == confusion(predict_labels(load_segmenter(file), test.images).numpy(), test.labels, 2)).all()
    assert (test_r.matrices == runs["test_r"].clean).all()


def test_volumes_take_what_test_r_predicted_and_only_the_other_slices_are_predicted(tmp_path):
    table = lookup_table("lungs")
    places = np.eye(4) * [-2, -2, 5, 1]
    records = [SliceRecord("a-01", "a", k, (2, 2, 5), places.tolist(), "test", True) for k in range(4)]
    labels = np.random.default_rng(0).integers(0, 3, (4, 16, 16)).astype(np.uint8)
    write_store(tmp_path, np.zeros((4, 16, 16), np.int16), labels, records, (-1000, 400), table)
    store, tested = SliceStore.open(tmp_path), np.array([0, 2])
    grid = VolumeGrid.of(np.arange(4), labels.transpose(2, 1, 0), places, 16, 1.0)
    volumes = WholeVolumes(store, tested, {"a-01": grid}, {"b-01": "lost"})
    seen = []

    class Blind(torch.nn.Module):
        def forward(self, images):
            seen.append(len(images))
            return torch.nn.functional.one_hot(torch.zeros(len(images), 16, 16).long(), 3).permute(0, 3, 1, 2).float()

    inputs = SimpleNamespace(device="cpu", precision="fp32")
    found = volumes.score(Blind(), labels[tested], {"row": "real", "network": "unet", "segmenter_seed": 0}, inputs)
    assert seen == [2]
    half = labels[tested]
    for k, name in enumerate(table.classes[1:], start=1):
        hit, both = (half == k).sum(), (half == k).sum() + (labels == k).sum()
        assert found[name]["dice"] == pytest.approx(2 * hit / both)
    document = volumes.document()
    assert document["rows"] == [{"row": "real", "network": "unet", "classes": found}]
    assert (document["cases"], document["left_out"]) == ({"a-01": 4}, {"b-01": "lost"})
    volumes.write(tmp_path / "volumes.csv")
    header, *lines = (tmp_path / "volumes.csv").read_text().splitlines()
    assert header == "row,network,segmenter_seed,case,class,dice,hd95_mm" and len(lines) == 2
