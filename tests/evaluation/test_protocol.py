"""Protocols: picking and scoring on known matrices, intervals, comparisons, the scores document."""

import json

import numpy as np
import pytest

from medseg_gan.evaluation.protocol import (
    Row,
    Run,
    clean_protocol,
    compare,
    evenly_per_patient,
    score,
    scores_document,
    seed_protocol,
)
from medseg_gan.evaluation.segmentation import scores


def matrices(accuracy, count=20, pixels=100, noise=0.0, seed=0):
    """`(N, 2, 2)` confusion matrices with this share of right pixels."""
    share = np.clip(accuracy + noise * np.random.default_rng(seed).normal(size=count), 0, 1)
    right = np.round(share * pixels).astype(int)
    return np.stack([np.array([[r, pixels - r], [pixels - r, r]]) for r in right])


def run(accuracy, seed=0, **options):
    return Run(seed, matrices(accuracy, **options)[None], picked=0)


def miou(accuracy):
    return accuracy / (2 - accuracy)


UNITS = [f"p{k // 4}" for k in range(20)]


def test_seed_protocol_scores_the_checkpoint_best_on_the_other_fold():
    good, bad = matrices(0.9), matrices(0.6)
    assert seed_protocol(np.stack([bad, good]))["miou"] == pytest.approx(miou(0.9))
    assert seed_protocol(np.stack([bad, good]))["sd"] == pytest.approx(0)
    mixed = np.stack([bad, good])
    mixed[1, :4] = matrices(0.5, count=4)  # the better checkpoint looks worse on the first fold
    mixed[0, :4] = matrices(0.7, count=4)
    by_hand = [scores(bad[4:].sum(axis=0))["miou"]]
    for fold in range(1, 5):
        rest = np.delete(mixed[1], np.s_[4 * fold : 4 * fold + 4], axis=0)
        by_hand.append(scores(rest.sum(axis=0))["miou"])
    found = seed_protocol(mixed)
    assert found["miou"] == pytest.approx(np.mean(by_hand))
    assert found["sd"] == pytest.approx(np.std(by_hand))


def test_clean_protocol_never_looks_at_the_test_set_to_pick():
    both = np.stack([matrices(0.6), matrices(0.9)])
    found = clean_protocol([Run(0, both, picked=0)], UNITS, resamples=50, seed=0)
    assert found["miou"] == pytest.approx(miou(0.6))
    assert found["per_seed"] == [found["miou"]]
    assert found["sd"] == 0


def test_clean_protocol_means_over_segmenter_seeds():
    found = clean_protocol([run(a, seed=s) for s, a in enumerate((0.7, 0.8, 0.9))], UNITS, resamples=50, seed=0)
    each = [miou(a) for a in (0.7, 0.8, 0.9)]
    assert found["miou"] == pytest.approx(np.mean(each))
    assert found["sd"] == pytest.approx(np.std(each, ddof=1))
    assert found["interval"] == pytest.approx([np.mean(each)] * 2)  # all slices alike: nothing to resample


def test_interval_grows_when_slices_of_a_patient_go_together():
    one = [Run(0, np.repeat(matrices(0.8, count=5, noise=0.1), 4, axis=0)[None], 0)]
    together = clean_protocol(one, UNITS, resamples=500, seed=0)["interval"]
    apart = clean_protocol(one, [str(k) for k in range(20)], resamples=500, seed=0)["interval"]
    assert together[1] - together[0] > 1.5 * (apart[1] - apart[0])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        found = clean_protocol([run(0.8, count=40, noise=0.08, seed=seed)], [str(k) for k in range(40)], 200, seed)
        covered += found["interval"][0] <= miou(0.8) <= found["interval"][1]
    assert 175 <= covered <= 200


@pytest.mark.parametrize(("a", "b", "ordering"), [(0.9, 0.7, "kept"), (0.7, 0.9, "not kept"), (0.8, 0.8, "undecided")])
def test_ordering_is_judged_by_the_interval(a, b, ordering):
    rows = [[run(accuracy, seed=s, noise=0.05) for s in range(3)] for accuracy in (a, b)]
    if a == b:
        rows[1] = [run(b, seed=s, noise=0.05, count=20) for s in range(3)]
        rows[1][0].matrices[0, :10] = matrices(0.85, count=10)
        rows[1][0].matrices[0, 10:] = matrices(0.75, count=10)
    found = compare(*rows, UNITS, resamples=500)
    assert found["ordering"] == ordering
    assert found["pairs"] == 3
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]


def test_comparison_takes_in_the_spread_of_segmenter_seeds():
    steady = [run(0.8, seed=s) for s in range(3)]
    shaky = [run(a, seed=s) for s, a in enumerate((0.75, 0.8, 0.86))]
    found = compare(shaky, steady, UNITS, resamples=500)
    assert found["ordering"] == "undecided"
    assert found["interval"][1] - found["interval"][0] > 0.05
    assert compare(steady, steady, UNITS, resamples=50)["interval"] == [0, 0]


def test_rows_with_other_numbers_of_seeds_share_their_pairs():
    found = compare([run(0.9, seed=s) for s in range(3)], [run(0.7)], UNITS, resamples=50)
    assert found["pairs"] == 1 and found["ordering"] == "kept"


def test_slices_of_a_patient_are_spread_evenly():
    patients = ["a"] * 9 + ["b"] * 2
    assert evenly_per_patient(patients, 3).tolist() == [0, 4, 8, 9, 10]
    assert evenly_per_patient(patients, 20).tolist() == list(range(11))


def test_scores_document_is_complete_plain_and_repeatable():
    units = {"test_r": UNITS, "test_g[factory]": [str(k) for k in range(20)]}
    rows = [
        Row(
            name,
            name,
            "unet",
            400,
            True,
            {"real_slices": 30},
            {test: [run(a, seed=s) for s in seeds] for test in units},
        )
        for name, a, seeds in (("synthetic", 0.7, (0, 1)), ("hybrid", 0.8, (0, 1)), ("real", 0.9, (0,)))
    ]
    arguments = {
        "annotator": {"kind": "lungs", "who": "the HU rule", "real_slices": 0, "real_patients": 0},
        "classes": ("background", "lung"),
        "orderings": [("hybrid", "synthetic"), ("hybrid", "pseudo_label")],
        "floors": {"test_r": {}},
        "interpreter": {"agreement_miou": 0.5},
        "resamples": 50,
    }
    document = scores_document(rows, units, **arguments)
    assert json.loads(json.dumps(document, allow_nan=False)) == document == scores_document(rows, units, **arguments)
    assert document["num_test_r"] == document["num_test_g"] == 20
    assert document["test_patients"] == 5
    assert [(c["a"], c["b"], c["test"]) for c in document["comparisons"]] == [("hybrid", "synthetic", t) for t in units]
    assert document["rows"][0]["segmenter_seeds"] == [0, 1]
    assert document["rows"][0]["scores"]["test_r"] == score(rows[0].runs["test_r"], UNITS, resamples=50)
    wanted = {"miou", "sd", "per_seed", "interval", "iou_per_class", "foreground_miou", "dice_per_class"}
    assert wanted | {"per_image_miou", "nanmean_miou"} == document["rows"][0]["scores"]["test_r"]["clean"].keys()
