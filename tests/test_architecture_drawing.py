"""docs/architecture.svg shows the code as it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location("draw_architecture", DOCS / "draw_architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_drawing_is_up_to_date(drawing):
    assert drawing.TARGET.read_text() == drawing.draw(), "run `python docs/draw_architecture.py` and look at the result"


def test_stages_and_folders_are_in_the_drawing(drawing):
    texts = [element.text for element in ElementTree.fromstring(drawing.draw()).iter() if element.tag.endswith("text")]
    for word in ("train_interpreter", "RUN/03-annotate/", "RUN/report/", "losses/", "running/", "interpreter/"):
        assert word in texts


def test_a_name_that_left_the_code_cannot_stay_in_the_drawing(drawing, monkeypatch):
    monkeypatch.setitem(drawing.SLICE, "prepare", ("a slice", "data.slices:Gone"))
    with pytest.raises(ValueError, match=r"data\.slices:Gone is named in"):
        drawing.draw()
