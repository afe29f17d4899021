"""Tables show what the scores hold, and nothing where they hold nothing."""

from __future__ import annotations

import csv
import io

import pytest
from report_example import example_scores

from medseg_gan.labels import lookup_table
from medseg_gan.report import values
from medseg_gan.systems.datasetgan.report import records, tables

SCORES = example_scores(lookup_table("paper"))


def read(lines: list[dict]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(values.csv_text(lines))))


def test_rows_csv_equals_the_scores() -> None:
    lines = read(records.row_records(SCORES))
    expected = sum(len(row["scores"]) * 2 for row in SCORES["rows"])
    assert len(lines) == expected
    by_key = {(line["row"], line["test"], line["protocol"]): line for line in lines}
    for row in SCORES["rows"]:
        for test, protocols in row["scores"].items():
            for protocol, score in protocols.items():
                line = by_key[row["row"], test, protocol]
                assert float(line["miou"]) == score["miou"]
                assert float(line["sd"]) == score["sd"]
                assert int(line["real_slices"]) == row["cost"]["real_slices"]


def test_classes_csv_equals_the_scores() -> None:
    lines = read(records.class_records(SCORES))
    heart = next(line for line in lines if (line["row"], line["test"], line["class"]) == ("hybrid", "test_r", "heart"))
    score = SCORES["rows"][1]["scores"]["test_r"]["clean"]
    assert (float(heart["iou"]), float(heart["dice"])) == (score["iou_per_class"][1], score["dice_per_class"][1])


def test_floors_and_comparisons_csv_equal_the_scores() -> None:
    floors = read(records.floor_records(SCORES))
    assert {(line["test"], line["floor"]): float(line["miou"]) for line in floors} == {
        (test, name): floor["miou"] for test, found in SCORES["floors"].items() for name, floor in found.items()
    }
    comparisons = read(records.comparison_records(SCORES))
    assert [line["b"] for line in comparisons] == [one["b"] for one in SCORES["comparisons"]]
    assert float(comparisons[0]["interval_low"]) == SCORES["comparisons"][0]["interval"][0]


def test_csv_keeps_names_with_commas_and_quotes() -> None:
    line = {"row": 'a, "b"\nc', "miou": None}
    assert read([line]) == [{"row": line["row"], "miou": ""}]


def test_no_records_make_an_empty_file() -> None:
    assert values.csv_text([]) == ""


def test_cost_adds_the_stand_ins_labels() -> None:
    lines = {line["title"]: line for line in tables.cost_lines(SCORES)}
    hybrid = lines["1000 synthetic pairs + 30 real"]
    assert (hybrid["all_slices"], hybrid["all_patients"]) == ("318", "15")
    assert lines["1000 synthetic pairs"]["all_slices"] == "288"


def test_unknown_cost_is_not_zero() -> None:
    (line,) = tables.cost_lines({"rows": [{"row": "x", "title": "x", "cost": {"real_slices": 30}}]})
    assert line["all_slices"] == tables.NOT_MEASURED


def test_one_seed_shows_no_spread() -> None:
    assert tables.mean_sd({"miou": 0.8, "sd": 0.0, "per_seed": [0.8]}) == "0.800"
    assert tables.mean_sd({"miou": 0.8, "sd": 0.01, "per_seed": [0.79, 0.81]}) == "0.800 ± 0.010"
    assert tables.mean_sd({}) == tables.NOT_MEASURED


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_not_finite_was_not_measured(value: float | None) -> None:
    assert values.number(value) == tables.NOT_MEASURED


def test_paper_figures_stand_beside_their_row_and_network_only() -> None:
    paper = [{"row": "hybrid", "test_r": ".762", "network": "deeplabv3"}, {"row": "real", "test_r": ".799"}]
    lines = {line["name"]: line["paper_r"] for line in tables.score_lines(SCORES, paper)}
    assert lines["500 real"] == ".799"
    assert lines["1000 synthetic pairs + 30 real"] == ""
    assert tables.unmatched_paper_rows(SCORES, paper) == [paper[0]]


def test_rows_of_several_networks_are_told_apart() -> None:
    rows = [SCORES["rows"][0], SCORES["rows"][0] | {"network": "fcn"}]
    names = [line["name"] for line in tables.score_lines(SCORES | {"rows": rows})]
    assert names == ["1000 synthetic pairs (unet)", "1000 synthetic pairs (fcn)"]
    assert len(tables.cost_lines(SCORES | {"rows": rows})) == 1


def test_stage_shares_add_up() -> None:
    lines = values.stage_lines([{"name": "a", "seconds": 30.0, "peak_mb": 900}, {"name": "b", "seconds": 90.0}])
    assert [line["time"] for line in lines] == ["30.0 s", "1 min 30 s", "2 min 00 s"]
    assert sum(line["share"] for line in lines) == pytest.approx(100)
    assert lines[1]["memory"] == tables.NOT_MEASURED
    assert lines[2]["memory"] == "900 MB"


def test_rejections_are_counted_with_or_without_reasons() -> None:
    assert tables.rejected_lines({"rejected": 6}) == [{"reason": "all", "count": "6"}]
    lines = tables.rejected_lines({"rejected": {"no lungs": 4, "no heart": 2}})
    assert [line["count"] for line in lines] == ["6", "4", "2"]
    assert tables.rejected_lines({})[0]["count"] == tables.NOT_MEASURED
