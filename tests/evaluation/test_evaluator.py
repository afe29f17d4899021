"""MONAI's evaluator: one pass gives predictions, matrices, Ignite's report and MONAI's tables, all of which agree."""

import csv
import json

import numpy as np
import pytest
import torch

from medseg_gan.evaluation.evaluator import evaluate_segmenter
from medseg_gan.evaluation.segmentation import confusion, per_image_miou, scores
from medseg_gan.networks.segmenters import predict_labels

K = 4
CLASSES = ("background", "heart", "aorta", "trachea")


@pytest.fixture
def network():
    network = torch.nn.Conv2d(1, K, 1)
    with torch.no_grad():  # logits that are largest at the class nearest to the grey value k / 4
        network.weight[:, 0, 0, 0] = torch.arange(K) / 2
        network.bias[:] = -((torch.arange(K) / 4) ** 2)
    return network


def test_evaluator_leaves_report_and_tables(tmp_path, network):
    rng = np.random.default_rng(0)
    label = rng.integers(0, K - 1, (5, 8, 8)).astype(np.uint8)  # class 3 is never labelled
    label[0][label[0] == 1] = 0
    pred = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, K - 1, label.shape)).astype(np.uint8)
    label[1] = 255
    names = [f"case/{n}" for n in range(5)]
    images = torch.as_tensor(pred).float().unsqueeze(1) / 4
    found = evaluate_segmenter(network, images, torch.as_tensor(label), names, CLASSES, batch_size=2)
    found.write(tmp_path, {"row": "real"})
    assert (found.pred == pred).all()
    assert (found.matrices == confusion(pred, label, K)).all()
    report = json.loads((tmp_path / "ignite_report.json").read_text())
    expected = scores(found.matrices.sum(axis=0))
    assert report["metrics"]["miou"] == pytest.approx(expected["miou"])
    assert report["metrics"]["iou"] == pytest.approx(expected["iou_per_class"])
    assert report["metrics"]["dice"] == pytest.approx(expected["dice_per_class"])
    assert report["metrics"]["per_image_iou"] == pytest.approx(per_image_miou(found.matrices))
    assert report["settings"] == {"row": "real"}
    with open(tmp_path / "per_image_iou_raw.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["filename", *CLASSES, "mean"]
    assert [row[0] for row in rows[1:]] == names
    assert (tmp_path / "metrics.csv").is_file() and (tmp_path / "per_image_iou_summary.csv").is_file()


def test_the_evaluator_predicts_what_predict_labels_does(network):
    images = torch.rand(5, 1, 8, 8)
    found = evaluate_segmenter(network, images, torch.zeros(5, 8, 8, dtype=torch.uint8), ["a"] * 5, CLASSES)
    assert (found.pred == predict_labels(network, images).numpy()).all()
