"""The page's words on the choice of the labeller and on calibration."""

from report_example import render

from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.labellers import calibration_sentence, selection_lines

SELECTION = {
    "sentence": "image taken: within one standard error of the best",
    "chosen": "image",
    "best": "average",
    "candidates": {
        "image": {"miou": 0.8, "behind": 0.01, "standard_error": 0.02, "tie": True, "held_out_mean_of_folds": 0.75},
        "average": {"miou": 0.81, "behind": 0.0, "standard_error": 0.0, "tie": True},
        "whole_image": {"miou": 0.7, "behind": 0.11, "standard_error": 0.02, "tie": False},
    },
}


def test_every_candidate_has_its_verdict():
    lines = {line["labeller"]: line for line in selection_lines({"selection": SELECTION})}
    assert [line["verdict"] for line in lines.values()] == ["taken", "tie", "behind"]
    assert lines["average"]["behind"] == "best" and "±" in lines["whole image"]["behind"]
    assert lines["image"]["held_out"] != lines["average"]["held_out"]
    assert selection_lines({}) == []


def test_calibration_is_told_before_and_after():
    before, after = {"given": 0.05, "mean_of_classes": 0.02}, {"given": 0.01, "mean_of_classes": 0.005}
    assert calibration_sentence({}) == ""
    assert "not calibrated" in calibration_sentence({"calibration_error": before})
    assert "after calibration" in calibration_sentence({"calibration_error": before, "calibrated_error": after})


def test_the_choice_has_the_whole_width_and_its_words_are_outside_the_table():
    interpreter = {"agreement_miou": 0.7, "held_out_images": 4, "sampled": 9, "rejected": 1, "selection": SELECTION}
    interpreter |= {"per_class_iou": [0.9, 0.8]}
    page = render(ReportContent(title="t", table=lookup_table("lungs"), scores={"interpreter": interpreter}))
    section = page[page.index("The interpreter: agreement") :]
    table, words, classes = (
        section.index(text) for text in ("behind the best", '<p class="note">Chosen by', "By class")
    )
    assert table < words < classes and "whole image" in section[table:words]
