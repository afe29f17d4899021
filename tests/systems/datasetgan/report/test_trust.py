"""The section "Which pairs to trust" says who annotated, what was measured, and what was not."""

import numpy as np
import pytest
from report_example import render

from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.page import write_report
from medseg_gan.systems.datasetgan.report.trust import (
    REJECTED,
    SHOWN,
    Trust,
    best_and_worst,
    error_lines,
    pair_stacks,
    scatter,
    sentences,
)

TABLE = lookup_table("lungs")
NO_BOUND = "no bound: 2 annotated pairs to calibrate on, 95 % needs at least 19"


def score(rank):
    covered = {"share": 0.94, "interval": [0.87, 0.98], "examples": 24, "mean_bound": 0.031}
    return {
        "rank_correlation": rank,
        "rank_correlation_of_uncertainty": 0.5,
        "mean": 0.012,
        "mean_predicted": 0.013,
        "absolute_error": 0.004,
        "absolute_error_of_constant": 0.008,
        "coverage": covered,
    }


def build(measured=True, person=False, kind="held_out", count=20, bound=True):
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 0.05, count)
    pairs = [
        {
            "case": f"generated-{k:010d}",
            "predicted_wrong": float(predicted[k]),
            "bound_wrong": float(2 * predicted[k]) if bound else 1.0,
            "class": "good" if predicted[k] <= 0.01 else "partial",
            "objections": "no heart <b>" if k == int(predicted.argmax()) else "",
            "wrong": float(predicted[k]) * 1.1 if measured and k else None,
        }
        for k in range(count)
    ]
    counts = {"pairs": 20, "good": 6, "partial": 14, "bad": 0, "mean_predicted_wrong": 0.02, "with_objections": 1}
    facts = {
        "annotator": {"kind": "person" if person else "segmenter", "who": "a segmenter (unet)"},
        "kind": kind,
        "learned_from": 50,
        "sentence": "bounds hold for 95 % of pairs drawn like the 50 they were calibrated on" if bound else NO_BOUND,
        "model": {"bounds": {"wrong": {"quantile": 0.7 if bound else None}}},
        "classes": {"train": counts, "dropped": {**counts, "bad": 7}},
        "measured": {"pairs": 19, "rejected": 1, "wrong": score(0.88), "wrong_foreground": score(None)}
        if measured
        else None,
    }
    rows = best_and_worst(predicted)
    images = rng.integers(0, 255, (len(rows), 16, 16)).astype(np.uint8)
    labels = rng.integers(0, 3, images.shape).astype(np.uint8)
    return Trust(facts, pairs, images, labels, labels if measured else None, rows)


@pytest.fixture(scope="module")
def html():
    return render(ReportContent(title="t", table=TABLE, trust=build()))


def test_best_and_worst_are_never_the_same_pair():
    for count in (0, 1, 2, 5, 100):
        predicted = np.random.default_rng(count).random(count)
        rows = best_and_worst(predicted)
        half = len(rows) // 2
        assert half == min(SHOWN, count // 2) and len(set(rows.tolist())) == 2 * half
        assert not half or predicted[rows[:half]].max() <= predicted[rows[half:]].min()


def test_the_page_says_who_annotated_and_what_was_measured(html):
    for text in ("Which pairs to trust", "a segmenter (unet)", "0.88", "94.0 %", "Bounds hold for 95 % of pairs"):
        assert text in html
    assert "not measured" in sentences(build(measured=False))[-1]
    assert "other than a person would have it" in sentences(build(person=True))[0]


def test_what_a_person_painted_gives_bounds_that_nothing_proves():
    assert "nothing proves them" in sentences(build(kind="cross_validated"))[1]
    assert "what the ensemble itself expects" in sentences(build(kind="none", bound=False))[1]


@pytest.mark.parametrize("kind", ["held_out", "cross_validated", "none"])
def test_where_there_is_no_bound_nothing_is_said_of_one(kind, html):
    told = sentences(build(kind=kind, bound=False))
    assert told[2] == f"{NO_BOUND[0].upper()}{NO_BOUND[1:]}." and "rank correlation" in told[3]
    assert not any("bound" in text.lower() or "They speak" in text for k, text in enumerate(told) if k != 2)
    assert "bound held" in html and "mean bound" in html and "The bound held for" in html
    page = render(ReportContent(title="t", table=TABLE, trust=build(kind=kind, bound=False)))
    assert "bound held" not in page and "mean bound" not in page and page.count(">of the best constant</th>") == 1


def test_a_slice_that_the_annotator_rejected_is_named_under_its_picture():
    trust = build()
    trust.pairs[trust.rows[2]]["wrong"] = trust.pairs[trust.rows[-1]]["wrong"] = None
    best, worst = pair_stacks(trust, TABLE)
    first, last = best.labels, worst.labels
    assert len(first) == len(last) == SHOWN and first[2] == last[-1] == REJECTED and "rejected" in best.caption
    for part, under in zip(np.split(trust.rows, 2), (first, last), strict=True):
        assert under == [REJECTED if trust.pairs[row]["wrong"] is None else "" for row in part]
    assert REJECTED in render(ReportContent(title="t", table=TABLE, trust=trust))
    nobody = pair_stacks(build(measured=False), TABLE)
    assert not any(text for stacks in nobody for text in stacks.labels)
    assert "annotator" not in nobody[0].caption


def test_counts_of_kept_and_dropped_pairs_are_told_apart(html):
    assert "training pairs, kept" in html and "training pairs, left out" in html
    assert "test-G (unfiltered)" not in html  # not counted here


def test_pictures_name_objections_and_the_text_is_escaped(html):
    captions = [stacks.caption for stacks in pair_stacks(build(), TABLE)]
    assert captions[1].endswith("Objections: no heart <b>.") and "Objections" not in captions[0]
    assert "no heart &lt;b&gt;" in html and "no heart <b>" not in html
    assert len(pair_stacks(build(), TABLE)[0].lines) == 3
    assert len(pair_stacks(build(measured=False), TABLE)[0].lines) == 2


def test_dots_are_drawn_only_where_somebody_labelled():
    assert scatter(build(measured=False)) is None
    drawn = scatter(build())
    assert drawn is not None and "break it" in drawn.caption
    assert "break it" not in scatter(build(bound=False)).caption


def test_a_rank_that_does_not_exist_is_not_measured():
    assert [line["rank"] for line in error_lines(build())][1] == "not measured"


@pytest.mark.parametrize("trust", [None, build(count=1), build(measured=False)])
def test_the_page_stands_without(trust, tmp_path):
    write_report(tmp_path, ReportContent(title="t", table=TABLE, trust=trust))
    html = (tmp_path / "index.html").read_text()
    assert ("Quality of the pairs: not predicted." in html) == (trust is None)
    assert (tmp_path / "quality.csv").exists() == (trust is not None)
    assert (tmp_path / "report.json").exists()
