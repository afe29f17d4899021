"""Every card says what it is for, and its two files say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_example import card

from medseg_gan.export.card import RESEARCH_ONLY, write_card
from medseg_gan.machine.atomic import read_json


@pytest.mark.parametrize("kind", ["synthetic", "hybrid", "real", "segmenter", "factory"])
def test_both_files_carry_every_fact_and_notice(tmp_path: Path, kind: str) -> None:
    write_card(tmp_path, card(kind))
    document, text = read_json(tmp_path / "card.json"), (tmp_path / "README.md").read_text()
    assert document["synthetic"] == (kind != "real") and RESEARCH_ONLY in document["notices"]
    for words in (*document["notices"], "pool gan 16 of 4 patients", "a segmenter (unet)", "0.25", "Apache-2.0"):
        assert words in text
    assert "not there: not measured" in text and "a command" in text
    assert RESEARCH_ONLY in card(kind).summary


def test_a_summary_begins_with_where_the_slices_come_from() -> None:
    begins = {kind: card(kind).summary.split(" CT slices")[0] for kind in ("synthetic", "hybrid", "real")}
    assert begins == {"synthetic": "SYNTHETIC", "hybrid": "PARTLY SYNTHETIC", "real": "PSEUDONYMISED"}
