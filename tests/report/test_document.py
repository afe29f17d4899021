"""A document of any system: offline, escaped, in its own order, and equal to its data."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gan.errors import MedsegError
from medseg_gan.report.document import Bar, Bars, Curves, DataTable, Document, PictureStrip, Sentence, Stacks, Text
from medseg_gan.report.document import write_document as write
from medseg_gan.report.values import NOT_MEASURED, shown

NASTY = '<script>alert("x")</script> & $y^{2}_$ 100%'
ROWS = [
    {"row": "ours, all losses", "miou": 0.123456789012345, "images": 12000, "passed": True},
    {"row": "one loss less", "miou": math.nan, "images": None, "passed": False},
    {"row": "no loss", "miou": math.inf, "images": np.int64(7), "passed": None, "more": 1e-9},
]
SCORES = DataTable("Scores", [("row", "training"), ("miou", "mIoU"), ("images", "images")], ROWS, name="scores")
GREY = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 4, 3), np.uint8)


def full() -> Document:
    return Document(
        "GANSeg on birds",
        lead=[Sentence("It beats the floor.", "good"), Sentence("It is late.", "bad", "late"), Sentence("No masks.")],
        sections=[
            SCORES,
            Text("How to read", ["See https://example.org for the source."], ["an item"]),
            PictureStrip("Pictures", [*GREY, COLOUR], ["a", "b", "c", "d"], zoom=4),
            Curves("Losses", {"D": [(0, 1.5), (1, math.nan), (2, 0.25)]}, "kimg", "loss"),
            Bars("Overlap", {"ours": Bar(0.8, (0.7, 0.85)), "other": Bar(None)}, "IoU", {"disc": 0.4}),
        ],
        recipe="birds_ganseg",
        profile="demo",
        command="medseg-gan recipe birds_ganseg",
        stages=[{"name": "train", "seconds": 12.5, "peak_mb": math.nan}],
        versions={"torch": "2.13.0"},
        settings="train:\n  kimg: 3\n",
        warnings=["D is too sure."],
        data={"curve": np.arange(3), "none": math.nan},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("document"), full()).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def visible(page: str) -> str:
    """Text of a page without style, pictures and tags."""
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def one(tmp_path: Path, *sections: object) -> str:
    """The page of a document of these sections."""
    return write(tmp_path, Document("one", sections=sections)).read_text(encoding="utf-8")  # type: ignore[arg-type]


def test_the_lead_comes_first_then_the_sections_in_their_order(page: str) -> None:
    text = visible(page[page.index("<main>") :])
    assert text.strip().startswith("kept It beats the floor. D is too sure.")
    words = (
        "D is too sure.",
        "late It is late.",
        "No masks.",
        "Scores",
        "How to read",
        "Pictures",
        "Losses",
        "Overlap",
        "Time, memory",
    )
    places = [text.index(word) for word in (*words, "Intended use: research only.", "synthetic")]
    assert places == sorted(places)


def test_page_asks_nothing_of_the_net(page: str) -> None:
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page)
    assert "default-src 'none'" in page


def test_pictures_keep_their_pixels_and_are_enlarged_by_the_browser(page: str) -> None:
    strip = page[page.index('<div class="pictures"') :]
    found = re.findall(r'<figure class="sharp"><img src="data:image/png;base64,([^"]*)" alt="(.)" width="(\d+)"', strip)
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, _, _ in found]
    assert all(np.array_equal(*pair) for pair in zip(decoded, [*GREY, COLOUR], strict=True))
    assert [(alt, width) for _, alt, width in found] == [("a", "28"), ("b", "28"), ("c", "28"), ("d", "16")]
    assert "image-rendering: pixelated" in page


def test_every_picture_and_chart_says_what_it_shows(page: str, tmp_path: Path) -> None:
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', page + one(tmp_path, PictureStrip("Birds", list(GREY))))
    assert len(alts) == 4 + 2 + 3
    assert all(alts)
    assert "Overlap: IoU; ours 0.800 (0.700 to 0.850); other not measured; baseline disc 0.400" in alts
    assert alts[-1] == "Birds, image 3"


def test_csv_and_json_equal_the_rows(folder: Path) -> None:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["row", "miou", "images", "passed", "more"]
    assert [line["row"] for line in lines] == [row["row"] for row in ROWS]
    assert float(lines[0]["miou"]) == ROWS[0]["miou"]
    assert (lines[1]["miou"], lines[1]["images"], lines[2]["miou"], lines[2]["images"]) == ("", "", "", "7")
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    rows = told["sections"][0]["rows"]
    assert rows == [ROWS[0], ROWS[1] | {"miou": None}, ROWS[2] | {"miou": None}]


def test_json_holds_the_whole_document(folder: Path) -> None:
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [section["kind"] for section in told["sections"]] == ["table", "text", "pictures", "curves", "bars"]
    assert told["lead"][0] == {"text": "It beats the floor.", "kind": "good", "word": ""}
    assert told["sections"][2]["images"][3] == {"shape": [6, 4, 3], "dtype": "uint8"}
    assert told["sections"][3]["series"] == {"D": [[0, 1.5], [1, None], [2, 0.25]]}
    assert told["sections"][4]["groups"]["ours"] == {"value": 0.8, "interval": [0.7, 0.85]}
    assert told["data"] == {"curve": [0, 1, 2], "none": None}
    assert told["stages"] == [{"name": "train", "seconds": 12.5, "peak_mb": None}]
    assert (told["recipe"], told["settings"]) == ("birds_ganseg", full().settings)


def test_only_named_tables_and_the_stages_make_csv(tmp_path: Path, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"index.html", "report.json", "scores.csv", "stages.csv"}
    one(tmp_path, DataTable("Unnamed", [("a", "a")], [{"a": 1}]))
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "report.json"}


def test_an_empty_table_keeps_its_headings(tmp_path: Path) -> None:
    page = one(tmp_path, DataTable("None yet", [("a", "first"), ("b", "second")], [], name="none"))
    assert (tmp_path / "none.csv").read_text() == "a,b\n"
    assert "None yet: not measured." in visible(page)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (31.5, "31.500"),
        (-0.02, "−0.020"),
        (0.0, "0.000"),
        (1.234e-5, "1.23e−05"),
        (12000, "12 000"),
        (True, "yes"),
        ("as it is", "as it is"),
        (None, NOT_MEASURED),
        (math.nan, NOT_MEASURED),
        (-math.inf, NOT_MEASURED),
    ],
)
def test_cells_are_short(value: object, text: str) -> None:
    assert shown(value) == text


def test_table_shows_columns_only_and_bold_rows(tmp_path: Path) -> None:
    columns = [("row", "training"), ("miou", "mIoU")]
    page = one(tmp_path, DataTable("T", columns, ROWS, note="a note", highlight="passed"))
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    assert re.findall(r'<tr class="deciding"><th scope="row">([^<]*)<', body) == ["ours, all losses"]
    assert body.count("<td") == len(ROWS)
    assert body.count(NOT_MEASURED) == 2
    assert page.count('<th scope="col"') == 2
    assert "a note" in visible(page)


def test_everything_is_text_never_markup(tmp_path: Path) -> None:
    document = full()
    document.title = document.recipe = document.machine = document.settings = document.command = NASTY
    document.precision = document.profile = NASTY
    document.lead, document.warnings, document.versions = [Sentence(NASTY, "good", NASTY)], [NASTY], {NASTY: NASTY}
    document.stages = [{"name": NASTY, "seconds": 1.0}]
    document.sections = [
        DataTable(NASTY, [("a", NASTY)], [{"a": NASTY}], note=NASTY),
        PictureStrip(NASTY, [GREY[0]], [NASTY], NASTY),
        PictureStrip(NASTY, []),
        Stacks(NASTY, {NASTY: GREY}, [NASTY] * 3, NASTY, {NASTY: (1, 2, 3)}, NASTY),
        Curves(NASTY, {NASTY: [(0, 1.0)]}, NASTY, NASTY, NASTY),
        Curves(NASTY, {}, NASTY, NASTY, NASTY),
        Bars(NASTY, {NASTY: Bar(1.0)}, NASTY, {NASTY: 1.0}, NASTY),
        Text(NASTY, [NASTY], [NASTY]),
    ]
    page = write(tmp_path, document).read_text(encoding="utf-8")
    assert "<script" not in page
    assert visible(page).count(NASTY) > 20
    assert json.loads((tmp_path / "report.json").read_text())["sections"][0]["rows"] == [{"a": NASTY}]


def test_verdict_and_opening_stand_open_and_all_else_folds(tmp_path: Path) -> None:
    document = full()
    document.opening = [Stacks("", {"image": GREY, "mask": GREY}, ["generated", "real", "real"]), SCORES]
    document.sections = [section for section in document.sections if section is not SCORES]
    page = write(tmp_path, document).read_text(encoding="utf-8")
    opened = page[page.index("<main>") : page.index("<details")]
    assert visible(opened).index("It beats the floor.") < visible(opened).index("ours, all losses")
    assert opened.count("<figure>") == 3 and opened.count("<img") == 6
    assert "It is late." not in opened and "It is late." in page
    folded = page[page.index("<details") : page.index("<footer>")]
    assert re.sub(r'<details class="card".*?\n</details>', "", folded, flags=re.S).replace("</main>", "").strip() == ""
    assert "details::details-content" in page[page.index("@media print") :], "a printed page shows what is folded"
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["opening"][0]["lines"] == {"image": {"shape": [3, 5, 7]}, "mask": {"shape": [3, 5, 7]}}
    assert "scores.csv" in {path.name for path in tmp_path.iterdir()}


def test_the_page_may_call_things_otherwise_than_the_files(tmp_path: Path) -> None:
    rows = [{"row": "floor: disc"}, {"row": "ours"}]
    page = one(tmp_path, DataTable("T", [("row", "training")], rows, name="t", words={"floor: ": "baseline: "}))
    assert "baseline: disc" in page and "floor: disc" not in page
    assert (tmp_path / "t.csv").read_text() == "row\nfloor: disc\nours\n"


def test_figures_stand_right_and_words_left(tmp_path: Path) -> None:
    row = {"a": "name", "b": "0.64 ± 0.01", "c": "−0.1 to 0.2", "d": NOT_MEASURED, "e": "3 words"} | {"f": "kept"}
    page = one(tmp_path, DataTable("T", [(key, key) for key in row], [row]))
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    assert re.findall(r'<td class="text">([^<]*)<', body) == ["kept"]


def test_a_section_without_title_goes_on_under_the_one_before(tmp_path: Path) -> None:
    page = one(tmp_path, Text("first", ["x"]), DataTable("", [("a", "a")], [{"a": 5}]), Text("second", ["y"]))
    first = page[page.index('<details class="card" id="part-1">') : page.index('<details class="card" id="part-2">')]
    assert first.count("<h2>") == 1
    assert "<table>" in first


def test_an_empty_document_says_that_nothing_was_measured(tmp_path: Path) -> None:
    text = visible(
        one(tmp_path, Curves("Losses", {"D": [(0, math.nan)]}, "x", "y"), Bars("IoU", {"a": Bar(None)}, "x"))
    )
    for words in ("Losses: not measured.", "IoU: not measured.", "Time and memory: not measured."):
        assert words in text


def test_a_logarithm_counts_what_it_leaves_out(tmp_path: Path) -> None:
    points = [(0, 0.0), (1, -1.0), (2, 0.3), (3, 0.3), (4, math.nan)]
    page = one(tmp_path, Curves("R1", {"R1": points}, "kimg", "penalty", "Penalty.", log_y=True))
    assert "Penalty. Left out because a logarithm cannot show them: 2 points at or below 0." in visible(page)
    assert "not measured" not in re.findall(r"<figure>.*?</figure>", page, flags=re.S)[0].split("alt=")[0]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ([SCORES, SCORES], "the table name scores is taken"),
        ([DataTable("t", [("a", "a")], [{"a": 1}], name="stages")], "the table name stages is taken"),
        ([DataTable("t", [("a", "a")], [{"a": 1}], name="../t")], "no plain file name"),
        ([DataTable("t", [("miuo", "mIoU")], [{"miou": 1}])], "'miuo' that no row has"),
        ([DataTable("t", [("a", "a")], [{"a": [1]}])], "a list under 'a'"),
        ([PictureStrip("p", [GREY[0]], ["a", "b"])], "1 images and 2 labels"),
        ([Stacks("p", {"a": GREY, "b": GREY[:2]})], "lines of different shapes"),
        ([PictureStrip("p", [GREY[0] / 255.0])], "of float64"),
        ([PictureStrip("p", [GREY[0, 0]])], r"image \(7,\)"),
        ([PictureStrip("p", [np.zeros((4, 4, 1), np.uint8)])], r"image \(4, 4, 1\)"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_written(sections: list, words: str, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=words):
        one(tmp_path, *sections)
    assert not list(tmp_path.iterdir())
