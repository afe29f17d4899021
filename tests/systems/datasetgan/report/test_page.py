"""The page: offline, escaped, complete, and honest about what is missing."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_example import example_content, example_slices, render

from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.page import plain, report_data, write_report

NASTY = '<script>alert("x")</script> & $y^{2}_$ 100%'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, example_content(count=4))
    return folder


def visible(page: str) -> str:
    """Text of a page without style, pictures and tags."""
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def test_page_fetches_nothing(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'(?:src|srcset)="([^"]*)"', page))


def test_verdict_images_and_the_small_table_open_the_page_and_the_rest_folds(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    opened, folded = page[: page.index("<details")], page[page.index("<details") :]
    assert opened.count("<figure>") == 8 and opened.count(">generated<") == opened.count(">real<") == 4
    text = visible(opened)
    assert text.index("is undecided") < text.index("heart") < text.index("real labels it cost")
    assert re.findall(r'<tr class="deciding"><th scope="row">([^<]*)<', opened) == [
        "30 real only (3 patients x 10)",
        "pseudo-label, 30 real + 1000 unlabelled",
        "30 annotated only",
    ], "bold are the three that the verdict speaks of"
    places = [
        visible(folded).index(words)
        for words in (
            "The verdict in full",
            "288 real labelled slices of 12 patients",
            "means here: slices of the built-in thorax phantom, edition 1",
            "Does the factory pay?",
            "test-R, protocol seed",
            "Baselines",
            "Class by class",
            "Generated slices with the labels",
            "Training curves",
            "The interpreter",
            "Left out",
            "peak memory",
            "Intended use",
        )
    ]
    assert places == sorted(places)


def test_whole_volumes_have_a_table_where_they_were_scored() -> None:
    content = example_content(count=2)
    assert "HD95" not in render(content)
    classes = {"heart": {"volumes": 3, "missed": 1, "dice": 0.75, "hd95_mm": 12.34}}
    content.scores["volumes"] = {"rows": [{"row": "hybrid", "network": "unet", "classes": classes}]}
    assert re.search(r"hybrid|synthetic pairs \+ 30 real heart 3 1 0.750 12.3", visible(render(content)))
    content.scores["volumes"] = {"rows": None}
    assert "HD95" not in render(content)


def test_paper_figures_are_marked_as_the_papers(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "<td>.762 ± .006</td>" in page[page.index("The paper’s figures</h2>") :]
    assert "not comparable with ours" in visible(page)


def test_every_picture_says_what_it_shows(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) > 8
    assert all(re.search(r'alt="[^"]+"', image) for image in images)


def test_json_holds_what_the_page_says(report: Path) -> None:
    data = json.loads((report / "report.json").read_text(encoding="utf-8"))
    content = example_content(count=4)
    assert data["scores"] == plain(content.scores)
    assert data["stages"] == content.stages
    assert data["real_images"] == {"shape": [4, 64, 64], "dtype": "uint8"}
    assert data["verdicts"][0]["sentence"] in visible((report / "index.html").read_text(encoding="utf-8"))
    assert data == report_data(dataclasses.replace(content, training_stats=plain(content.training_stats)))


def test_csv_tables_stand_beside_the_page(report: Path) -> None:
    names = {path.name for path in report.iterdir()}
    assert names == {"index.html", "report.json"} | {
        f"{name}.csv" for name in ("rows", "classes", "floors", "comparisons", "stages")
    }
    with (report / "stages.csv").open(newline="") as file:
        assert [line["name"] for line in csv.DictReader(file)][:2] == ["prepare", "train_gan"]


def test_names_are_text_never_markup(tmp_path: Path) -> None:
    content = example_content(count=2)
    content.training_stats, content.segmenter_stats = [], {NASTY: content.segmenter_stats["synthetic"]}
    content.title = content.recipe = content.machine = content.settings = content.command = NASTY
    content.warnings = content.headlines = content.paper_notes = [NASTY]
    content.left_out, content.pools, content.versions = {NASTY: 1}, [{"pool": NASTY}], {NASTY: NASTY}
    content.scores["annotator"]["who"] = NASTY
    content.scores["interpreter"]["labellers"] = {NASTY: 0.5}
    for row in content.scores["rows"]:
        row["title"] = NASTY
    page = write_report(tmp_path, content).read_text(encoding="utf-8")
    assert "<script" not in page
    assert NASTY in visible(page)


def test_a_score_against_a_rule_is_named_so_everywhere(tmp_path: Path) -> None:
    name = "agreement with the HU rule"
    content = example_content("lungs", score_name=name, count=2)
    content.training_stats, content.segmenter_stats = [], {}
    page = write_report(tmp_path, content).read_text(encoding="utf-8")
    assert f"{name} (mIoU)" in visible(page)
    assert "mIoU" not in visible(page).replace(f"{name} (mIoU)", "")
    assert "mIoU" not in " ".join(re.findall(r'alt="([^"]*)"', page)).replace(f"{name} (mIoU)", "")


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    page = write_report(tmp_path, ReportContent(title="empty", table=lookup_table("paper"))).read_text(encoding="utf-8")
    text = visible(page)
    assert "Who annotated is not recorded." in text
    assert "was not measured" in text
    assert "Scores: not measured." in text
    assert "<img" not in page


def test_missing_pieces_are_not_measured(tmp_path: Path) -> None:
    content = example_content(count=2)
    content.real_labels = content.uncertainty = None
    scores = content.scores
    scores["comparisons"], scores["floors"], scores["interpreter"] = [], None, {"agreement_miou": float("nan")}
    for row in scores["rows"]:
        score = row["scores"]["test_r"]["clean"]
        row["scores"] = {"test_r": {"clean": {"miou": np.float32(score["miou"]), "per_seed": [0.5]}}}
        del row["cost"]
    text = visible(write_report(tmp_path, content).read_text(encoding="utf-8"))
    assert "Whether the hybrid beats the deciding training sets on test-R was not measured." in text
    assert "Baselines: not measured." in text
    assert "no interval" in text
    hybrid = text[text.index("1000 synthetic pairs + 30 real 0.6") :][:60]
    assert "±" not in hybrid  # one value gives no spread


def test_a_page_of_large_slices_stays_under_4_mb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = example_slices(16, 256, lookup_table("paper"))
    images = np.clip(images + rng.normal(0, 15, images.shape), 0, 255).astype(np.uint8)
    content = ReportContent("large", lookup_table("paper"), real_images=images, real_labels=labels)
    content.generated_images, content.generated_labels = images, labels
    content.uncertainty = rng.random(images.shape)
    (tmp_path / "samples").mkdir()
    for k in range(6):
        path = tmp_path / "samples" / f"{k:09d}.png"
        Image.fromarray(np.concatenate(list(images[:8]), axis=1).repeat(4, axis=0)).save(path)
        content.sample_grids.append(path)
    assert write_report(tmp_path, content).stat().st_size < 3_500_000  # charts need less than the rest of 4 MB
