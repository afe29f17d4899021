"""The audit for copies on the page: verdict first, flagged pairs first, pictures of the right slices."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_gan.evaluation.memorisation import Audit, audit_copies
from medseg_gan.evaluation.nearest import SliceSet
from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.copies import Copies, copies_of, distances_chart, pair_stacks
from medseg_gan.systems.datasetgan.report.page import write_report

COPIED = (11, 4)
"""The generated slice of this number is the training slice of that."""


def grey(images: torch.Tensor) -> np.ndarray:
    return ((images[:, 0] + 1) * 127.5).round().numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def sets() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    rough = {name: torch.randn(n, 1, 8, 8, generator=rng) for name, n in (("training", 24), ("unseen", 24), ("g", 16))}
    images = {name: torch.nn.functional.interpolate(x, 32, mode="bilinear").tanh() for name, x in rough.items()}
    images["g"][COPIED[0]] = images["training"][COPIED[1]]
    return images


@pytest.fixture(scope="module")
def audit(sets: dict[str, torch.Tensor]) -> Audit:
    people = [f"patient-{k // 3:03d}" for k in range(24)]
    training, unseen = (SliceSet.of(sets[name], [f"{name}-{one}" for one in people]) for name in ("training", "unseen"))
    return audit_copies(SliceSet.of(sets["g"], ["g"] * 16), training, unseen, seed=0, canaries=2)


@pytest.fixture(scope="module")
def copies(audit: Audit, sets: dict[str, torch.Tensor]) -> Copies:
    return copies_of(
        audit,
        lambda rows: grey(sets["g"][torch.from_numpy(rows)]),
        lambda rows: grey(sets["training"][torch.from_numpy(rows)]),
        lambda k: {"sample": f"generated-{k}"},
        lambda k: {"row": k, "patient": f"patient-{k // 3:03d}"},
    )


def test_flagged_pairs_come_first_and_name_both_slices(copies: Copies) -> None:
    first = copies.pairs[0]
    assert first["sample"] == "generated-11" and first["flagged"] and first["pixels_flagged"]
    assert first["pixels_row"] == first["features_row"] == 4 and first["pixels_patient"] == "patient-001"
    assert len(copies.pairs) == 16
    nearness = [pair["nearness"] for pair in copies.pairs if not pair["flagged"]]
    assert nearness == sorted(nearness)


def test_pictures_show_the_pair_one_above_the_other(copies: Copies) -> None:
    for stacks, name in zip(pair_stacks(copies), copies.generated, strict=True):
        (above, ours), (below, theirs) = stacks.lines.items()
        assert (above, below) == (f"generated, nearest by {name}", f"nearest training slice by {name}")
        assert np.array_equal(ours[0], theirs[0])  # the copy and its source
        assert not np.array_equal(ours[1], theirs[1])


def test_the_page_tells_the_verdict_and_json_the_figures(copies: Copies, tmp_path: Path) -> None:
    page = write_report(tmp_path, ReportContent("copies", lookup_table("paper"), copies=copies)).read_text()
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))
    alarm, title, again = (
        find(words)
        for find, words in (
            (text.index, copies.sentences[0]),
            (text.index, "Does it copy its training slices?"),
            (text.rindex, copies.sentences[0]),
        )
    )
    assert alarm < title < again, "a copying generator is told before anything is folded open"
    assert copies.sentences[0].startswith(
        "Signs of copying: "
    ) and f'<p class="warning">{copies.sentences[0]}' in html.unescape(page)
    assert page.count("nearest training slice by") >= 4
    told = json.loads((tmp_path / "report.json").read_text())["copies"]
    assert told["verdict"] == "signs of copying" and told["as_near_as_copies"] >= 1
    assert told["canaries"]["planted"] == 10


def test_the_page_says_why_one_measure_finds_only_some_kinds(copies: Copies, tmp_path: Path) -> None:
    page = write_report(tmp_path, ReportContent("copies", lookup_table("paper"), copies=copies)).read_text()
    assert "Neither measure has to find every kind" in page


def test_a_run_that_was_not_audited_says_so(tmp_path: Path) -> None:
    page = write_report(tmp_path, ReportContent("empty", lookup_table("paper"))).read_text()
    assert "Copies: not looked for." in page


def test_the_chart_is_drawn_where_a_group_has_no_finite_distance(copies: Copies) -> None:
    for groups in copies.distances.values():
        groups["training"] = np.full(24, np.inf)
    assert distances_chart(copies) is not None
