"""Evaluation of trained segmenters: every checkpoint sees every test image once, whatever is scored with it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg_gan.evaluation.segmentation import confusion
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.systems.datasetgan import comparison
from medseg_gan.systems.datasetgan.comparison import ImageSet, evaluate_checkpoints
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
