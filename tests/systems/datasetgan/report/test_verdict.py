"""The verdict says what the scores say, whichever way it falls."""

from __future__ import annotations

from typing import Any

import pytest
from report_example import comparison, example_scores

from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.report.verdict import (
    annotator_sentence,
    best_floor,
    find_comparison,
    verdicts,
)


def scores_with(*comparisons: dict[str, Any]) -> dict[str, Any]:
    return example_scores(lookup_table("paper")) | {"comparisons": list(comparisons)}


def verdict_sentences(scores: dict[str, Any]) -> list[str]:
    return [verdict.sentence for verdict in verdicts(scores)]


def all_three(difference: float, half: float) -> dict[str, Any]:
    return scores_with(*(comparison(b, difference, half) for b in ("real30", "pseudo_label", "annotated_only")))


@pytest.mark.parametrize(
    ("difference", "ordering", "words"),
    [(0.05, "kept", "beats all three"), (-0.05, "not kept", "does not beat"), (0.01, "undecided", "is undecided")],
)
def test_overall_verdict_follows_the_intervals(difference: float, ordering: str, words: str) -> None:
    first = verdicts(all_three(difference, 0.02))[0]
    assert first.ordering == ordering
    assert words in first.sentence


def test_one_lost_comparison_is_enough_for_not_kept() -> None:
    scores = scores_with(
        comparison("real30", 0.08, 0.01),
        comparison("pseudo_label", -0.04, 0.01),
        comparison("annotated_only", 0.0, 0.01),
    )
    first = verdicts(scores)[0]
    assert first.ordering == "not kept"
    behind, undecided, beaten = first.sentence.split("; ")
    assert "falls behind “pseudo-label" in behind
    assert "“30 annotated only”" in undecided
    assert "beats “30 real only (3 patients x 10)”" in beaten


def test_a_missing_comparison_is_never_a_win() -> None:
    scores = scores_with(comparison("real30", 0.08, 0.01), comparison("pseudo_label", 0.08, 0.01))
    first = verdicts(scores)[0]
    assert first.ordering == "not measured"
    assert "not compared with “30 annotated only”" in first.sentence


def test_nothing_compared_claims_nothing() -> None:
    sentences = verdict_sentences({})
    assert all("not measured" in sentence for sentence in sentences)


def test_difference_and_interval_are_told_with_their_signs() -> None:
    sentence = verdict_sentences(all_three(-0.05, 0.02))[1]
    assert "falls behind" in sentence
    assert sentence.endswith(
        "−0.050 mIoU on test-R (mean of 3 segmenter seeds), 95 % interval −0.070 to −0.030: not kept."
    )


def test_a_turned_comparison_says_the_same() -> None:
    straight = comparison("synthetic", 0.05, 0.02)
    turned = {"a": "synthetic", "b": "hybrid", "test": "test_r", "difference": -0.05, "interval": [-0.07, -0.03]}
    turned |= {"ordering": "not kept", "pairs": 3, "network": "unet"}
    found = find_comparison(scores_with(turned), "hybrid", "synthetic", "unet")
    assert found is not None
    assert {key: found[key] for key in ("a", "b", "difference", "ordering")} == {
        key: straight[key] for key in ("a", "b", "difference", "ordering")
    }
    assert verdict_sentences(scores_with(turned)) == verdict_sentences(scores_with(straight))


def test_other_test_sets_decide_nothing() -> None:
    scores = scores_with(comparison("synthetic", 0.05, 0.02) | {"test": "test_g[annotator]"})
    assert find_comparison(scores, "hybrid", "synthetic", "unet") is None


def test_scores_without_a_paired_comparison_make_no_claim() -> None:
    verdict = next(one for one in verdicts(scores_with()) if "spread" in one.sentence)
    assert verdict.ordering == "not measured"
    assert "and 0.6" in verdict.sentence
    assert verdict.sentence.endswith("not compared in pairs.")


def test_each_network_has_its_own_verdict() -> None:
    scores = scores_with(
        *(comparison(b, 0.05, 0.01, network="unet") for b in ("real30", "pseudo_label", "annotated_only")),
        *(comparison(b, -0.05, 0.01, network="fcn") for b in ("real30", "pseudo_label", "annotated_only")),
    )
    found = {one.sentence.split(":")[0]: one.ordering for one in verdicts(scores) if one.lead}
    assert found == {"unet": "kept", "fcn": "not kept"}


def test_synthetic_is_measured_against_the_highest_floor() -> None:
    scores = scores_with()
    assert best_floor(scores, "test_r") == ("position", 0.322)
    assert "above the best baseline (position, 0.322)" in verdict_sentences(scores)[-1]


def test_a_score_against_a_rule_is_never_called_miou_alone() -> None:
    scores = example_scores(lookup_table("lungs"), "agreement with the HU rule")
    for sentence in verdict_sentences(scores):
        assert "mIoU" not in sentence.replace("agreement with the HU rule (mIoU)", "")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("person", "Annotated by a person"),
        ("lungs", "rule on HU values"),
        ("segmenter", "288 real labelled slices of 12"),
    ],
)
def test_first_line_says_who_annotated(kind: str, words: str) -> None:
    annotator = {"kind": kind, "who": "A. Reader", "real_slices": 288, "real_patients": 12}
    sentence = annotator_sentence({"annotator": annotator})
    assert words in sentence
    assert "A. Reader" in sentence
    assert ("No person" in sentence) == (kind != "person")


def test_rows_below_the_floors_are_said_to_mean_nothing() -> None:
    scores = example_scores(lookup_table("paper"))
    for row in scores["rows"]:
        row["scores"]["test_r"]["clean"]["miou"] = 0.01
    first = verdict_sentences(scores)[0]
    assert first.startswith("No training set reaches the best trivial baseline") and first.endswith("mean nothing.")
