"""The page of a DatasetGAN run, part by part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_gan.labels import LabelTable
from medseg_gan.report import pictures
from medseg_gan.report.document import DataTable, Drawing, PictureStrip, Section, Stacks, Text
from medseg_gan.report.values import NOT_MEASURED, Record, number
from medseg_gan.systems.datasetgan.report import copies, figures, labellers, tables, trust
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.verdict import annotator_sentence, steps_sentence

OPENING = 4
"""Generated slices, and as many real ones, that open the page."""
Columns = Sequence[tuple[str, str]]


def opening(content: ReportContent) -> list[Section]:
    """A strip of generated slices with their labels beside real ones, and the small table."""
    found: list[Section] = []
    made, real = content.generated_images, content.real_images
    made_labels, real_labels = content.generated_labels, content.real_labels
    if made is not None and real is not None and made_labels is not None and real_labels is not None:
        images = np.concatenate([made[:OPENING], real[:OPENING]])
        labels = np.concatenate([made_labels[:OPENING], real_labels[:OPENING]])
        names = ["generated"] * len(made[:OPENING]) + ["real"] * len(real[:OPENING])
        layers = {"slice": images, "labels": pictures.overlay(images, labels, content.table)}
        found.append(Stacks("", layers, names, "The patient’s left is at the right.", colours(content.table)))
    columns = [
        ("name", "training set"),
        ("test_r", f"test-R, {tables.metric_name(content.scores)}, with its 95 % interval"),
        ("test_g", "test-G, labels of the annotator"),
        ("cost", "real labels it cost: slices / patients"),
    ]
    note = (
        "test-R: real slices of patients that nothing was trained on. test-G: generated slices. In bold: the training"
    )
    note += " sets that decide, because they need no GAN and the hybrid has to beat them."
    lines = tables.short_lines(content.scores)
    if not lines:
        return [*found, Text("", ["Scores: not measured."])]
    return [*found, DataTable("", columns, lines, note, highlight="deciding")]


def labels(content: ReportContent) -> list[Section]:
    """Who annotated, and what each training set cost in labels."""
    told = [annotator_sentence(content.scores)]
    if content.phantom:
        phantom = f"slices of the built-in thorax phantom, {content.phantom}"
        told.append(f"“Real” means here: {phantom}. No patient was involved.")
    columns = [
        ("title", "training set"),
        ("all_slices", "real labelled slices, in all"),
        ("all_patients", "of patients"),
        ("real_slices", "of these direct"),
        ("real_patients", "of patients"),
        ("stand_in_slices", "through the stand-in"),
        ("stand_in_patients", "of patients"),
        ("annotated_synthetic", "annotated generated slices"),
        ("synthetic_pairs", "generated pairs"),
        ("pseudo_slices", "pseudo-labelled real slices"),
    ]
    costs = DataTable("", columns, tables.cost_lines(content.scores), highlight="deciding", heading="Cost in labels")
    return [Text("Whose labels these are, and what they cost", told), costs]


def orderings(content: ReportContent) -> list[Section]:
    """How the verdict came about, and every paired comparison."""
    kept = "“Kept” means that the 95 % interval of the paired difference lies above 0, “not kept” below, “undecided”"
    paragraphs = [f"{kept} that it contains 0. {steps_sentence(content.scores)}".strip(), *content.headlines]
    columns = [
        ("a", "a"),
        ("b", "b"),
        ("network", "network"),
        ("test", "test set"),
        ("difference", f"a − b, {tables.metric_name(content.scores)}"),
        ("interval", "95 % interval"),
        ("ordering", "ordering"),
        ("pairs", "segmenter seeds"),
    ]
    lines = tables.comparison_lines(content.scores)
    found: list[Section] = [Text("Does the factory pay? All paired comparisons", paragraphs)]
    if drawn := figures.comparisons_chart(content.scores):
        found.append(Drawing("", drawn))
    return [*found, DataTable("", _used(columns, lines), lines, heading="Comparisons")]


def scores(content: ReportContent) -> list[Section]:
    """Every training set on every test set, trivial baselines, other readings, volumes, the paper's figures."""
    found, metric = content.scores, tables.metric_name(content.scores)
    lines = tables.score_lines(found, content.paper_rows)
    title = "Scores on real slices (test-R) and on generated ones (test-G)"
    if not lines:
        return [Text(title, ["Scores: not measured."])]
    shown = [
        {**line, "name": f"{line['name']}\n{line['training']}", "interval": _or(line["interval"], "no interval")}
        for line in lines
    ]
    measured = [("test_r", "test-R"), ("foreground", "test-R, foreground only")]
    generated = [("test_g_factory", "test-G [factory]"), ("test_g_annotator", "test-G [annotator]")]
    columns = [
        ("name", "training set"),
        ("real_labels", "real labels: slices / patients"),
        ("annotated", "annotated generated slices"),
        measured[0],
        ("interval", "95 % interval"),
        measured[1],
        ("seed_protocol", "test-R, protocol seed"),
        *generated,
    ]
    baselines: Columns = [("name", "trivial baseline"), *measured, *generated]
    readings = [
        ("name", "training set"),
        ("per_seed", f"{metric} of each segmenter seed"),
        ("nanmean", "absent classes left out"),
        ("per_image", "per image, averaged"),
        ("dice", "Dice, mean over classes"),
    ]
    sections: list[Section] = [
        Text(title, [_sizes(content, metric)]),
        DataTable("", columns, shown, highlight="deciding"),
        Drawing("", figures.rows_chart(found)),
        DataTable("", baselines, tables.floor_lines(found), heading="Baselines"),
        Text("", _meaning(content)),
        DataTable("Other readings of the same predictions on test-R", readings, tables.other_readings(found)),
    ]
    return [*sections, *_volumes(content), *_paper(content, lines)]


def _or(text: str, other: str) -> str:
    return other if text == NOT_MEASURED else text


def _sizes(content: ReportContent, metric: str) -> str:
    found = content.scores
    text = f"{metric}: intersections and unions summed over the test set, background included; mean ± standard "
    text += "deviation over segmenter seeds, and the 95 % interval over test patients."
    if "num_test_r" in found:
        text += f" test-R: {number(found['num_test_r'])} slices of {number(found.get('test_patients'))} patients."
    return text + (f" test-G: {number(found['num_test_g'])} pairs." if "num_test_g" in found else "")


def _meaning(content: ReportContent) -> list[str]:
    counts = content.scores.get("num_slices") or {}
    part = f"{number(counts.get('test_g[annotator]', 0))} of {number(counts.get('test_g[factory]', 0))}"
    return [
        "test-R holds real slices of patients that nothing was trained on. In protocol clean the checkpoint is "
        "picked on "
        "held-out labelled patients and the whole test set is scored once. In protocol seed the checkpoint is picked "
        "on "
        "one fold of test-R and scored on the others; mean ± standard deviation over the folds.",
        "test-G[factory] holds generated slices with the labels of the training set’s own factory: agreement with the "
        "factory, not accuracy. test-G[annotator] holds those of the same slices that the annotator accepted"
        f"{f' ({part})' if counts else ''}, labelled by the annotator.",
    ]


def _volumes(content: ReportContent) -> list[Section]:
    """Scores on the volumes' own grids, where the evaluation made them."""
    lines = tables.volume_lines(content.scores)
    columns = [
        ("name", "training set"),
        ("class", "class"),
        ("volumes", "volumes"),
        ("missed", "of these missed"),
        ("dice", "Dice"),
        ("hd95", "HD95, mm"),
    ]
    note = "The first segmenter seed of each training set on whole test volumes, on their own grid; means over volumes."
    note += " A class that a prediction misses counts as Dice 0 and has no distance."
    return [DataTable("Whole volumes of test-R: Dice and HD95", columns, lines, note)] if lines else []


def _paper(content: ReportContent, lines: Sequence[Record]) -> list[Section]:
    """The paper's figures beside ours, then those without a counterpart here."""
    if not content.paper_rows:
        return []
    beside = [line for line in lines if line["paper_r"] or line["paper_g"]]
    others = [
        {
            "name": (line.get("title") or line.get("row", "")) + (f" ({line['network']})" if "network" in line else ""),
            "paper_r": line.get("test_r", ""),
            "paper_g": line.get("test_g", ""),
        }
        for line in tables.unmatched_paper_rows(content.scores, content.paper_rows)
    ]
    papers = [("paper_r", "the paper’s test-R"), ("paper_g", "the paper’s test-G")]
    ours = [("name", "training set"), ("test_r", "our test-R"), ("test_g_annotator", "our test-G")]
    told = "The paper’s figures are for reference only: other data, other size, so they are not comparable with ours."
    return [
        Text("The paper’s figures", [told, *content.paper_notes]),
        DataTable("", [*ours, *papers], beside, heading="Beside ours"),
        DataTable("", [("name", "the paper’s training set"), *papers], others, heading="Others"),
    ]


def classes(content: ReportContent) -> list[Section]:
    """IoU and Dice of every class."""
    names = content.scores.get("classes") or []
    columns = [("name", "training set"), *((name, name.replace("_", " ")) for name in names)]
    found = [
        DataTable("", columns, lines, heading=f"{'IoU' if measure == 'iou' else 'Dice'} on {shown}")
        for test, shown in tables.TESTS.items()
        for measure in ("iou", "dice")
        if (lines := tables.class_lines(content.scores, test, measure))
    ]
    return [Drawing("Class by class", figures.classes_chart(content.scores, content.table)), *found]


def colours(table: LabelTable) -> dict[str, tuple[int, int, int]]:
    """Colour of every class but the background, by its name in words."""
    pairs = zip(table.classes[1:], table.palette[1:], strict=True)
    return {name.replace("_", " "): (red, green, blue) for name, (red, green, blue) in pairs}


def images(content: ReportContent) -> list[Section]:
    """Real and generated slices with their labels, and the sample grids of the generator."""
    real = _layers(content.real_images, content.real_labels, content.table)
    made = _layers(content.generated_images, content.generated_labels, content.table)
    uncertainty, caption = content.uncertainty, ""
    if uncertainty is not None and made:
        top = pictures.uncertainty_top(uncertainty)
        made["uncertainty of the labels"] = pictures.heat(uncertainty, top)
        caption = f"Uncertainty runs from 0, dark, to {number(top)} nats or more, bright."
    grids = pictures.development(content.sample_grids)
    found: list[Section] = [
        Stacks("Real slices with their labels", real, legend=colours(content.table)),
        Stacks("Generated slices with the labels of the factory", made, (), caption, colours(content.table)),
    ]
    if grids:
        names, pixels = [name for name, _ in grids], [grid for _, grid in grids]
        found.append(PictureStrip("How the generator learned: sample grids", pixels, names, zoom=1.0))
    return found


def _layers(images: np.ndarray | None, labels: np.ndarray | None, table: LabelTable) -> dict[str, np.ndarray]:
    """Slices, and their labels as colours where there are any."""
    if images is None:
        return {}
    return {"slice": images} | ({} if labels is None else {"labels": pictures.overlay(images, labels, table)})


def quality(content: ReportContent) -> list[Section]:
    """Which generated pairs to trust."""
    found, title = content.trust, "Which pairs to trust"
    if found is None:
        return [Text(title, ["Quality of the pairs: not predicted."])]
    counts = [
        {**line, **dict(zip(trust.CLASSES, line["counts"], strict=True)), "counts": None}
        for line in trust.class_lines(found)
    ]
    sets = [
        ("name", "pairs, by predicted class"),
        ("pairs", "in all"),
        *((name, name) for name in trust.CLASSES),
        ("mean", "mean predicted wrong"),
        ("with_objections", "with objections to the label map"),
    ]
    errors = [
        ("name", "share of"),
        ("rank", "rank correlation"),
        ("rank_of_uncertainty", "of uncertainty alone"),
        ("mean", "mean found"),
        ("predicted", "mean predicted"),
        ("absolute_error", "mean absolute error"),
        ("constant", "of the best constant"),
    ]
    if trust.bounded(found):
        errors += [("coverage", "bound held"), ("interval", "95 % interval"), ("bound", "mean bound")]
    lines, drawn = trust.error_lines(found), trust.scatter(found)
    last = "Every pair of test-G with its predictions: quality.csv beside this page; those of the training pairs beside"
    return [
        Text(title, trust.sentences(found)),
        *([DataTable("", sets, counts)] if counts else []),
        *([DataTable("", errors, lines, heading="Predictions on test-G against the annotator")] if lines else []),
        *([Drawing("", drawn)] if drawn else []),
        *trust.pair_stacks(found, content.table),
        Text("", [f"{last} their store."]),
    ]


FLAGGED = (
    "Flagged: near (nearer to a training slice than 99 % of the real slices of unseen patients are) and alone (its "
    "nearest "
    "patient stands out from the second nearest as for 5 % of them), or nearer than half the near distance; by either "
    "measure. Planted copies are training slices as they are, with noise, shifted, with other contrast, blurred: all "
    "must "
    "be flagged by one measure at least. Neither measure has to find every kind: features see texture and layout by "
    "quarters and surely find only the exact and the noisy ones; pixels also find those that were shifted, of other "
    "contrast or blurred. Decoys are unseen slices treated the same."
)
LOW_Z = (
    "z far below 0 says that generated slices as a whole lie nearer to the training slices than real ones of unseen "
    "patients do. Truncation and smoothness do that too, without any copying. The last line is free of it: the share "
    "of "
    "generated slices that lie nearer to training patients than to as many unseen ones, with its 95 % interval over "
    "patients; 0.5 is no preference."
)


def audit(content: ReportContent) -> list[Section]:
    """Whether the generator copies its training slices."""
    found, title = content.copies, "Does it copy its training slices?"
    if found is None:
        return [Text(title, ["Copies: not looked for."])]
    files = "Every generated slice looked at, with its nearest training slices: memorisation.csv; all figures: "
    return [
        Text(title, found.sentences),
        Drawing("", copies.distances_chart(found)),
        copies.measure_table(found),
        Text("", [FLAGGED, LOW_Z]),
        *copies.pair_stacks(found),
        Text("", [f"{files}memorisation.json."]),
    ]


def curves(content: ReportContent) -> list[Section]:
    """Training of the GAN and of the segmenters."""
    gan, segmenters = figures.training_chart(content.training_stats), figures.segmenter_chart(content.segmenter_stats)
    return [Drawing("Training curves", gan), *([Drawing("", segmenters)] if segmenters else [])]


def interpreter(content: ReportContent) -> list[Section]:
    """How well the interpreter agrees with the annotator, and how its labeller was chosen."""
    title = "The interpreter: agreement with the annotator"
    found, metric = content.scores.get("interpreter") or {}, tables.metric_name(content.scores)
    if not found:
        return [Text(title, ["Agreement with the annotator: not measured."])]
    held_out = number(found["held_out_images"]) if found.get("held_out_images") else "an unrecorded number of"
    rejected = tables.rejected_lines(found)
    told = [
        f"Agreement with the annotator on {held_out} held-out generated slices: "
        f"{number(found.get('agreement_miou'))} ({metric}). Generated slices looked at: "
        f"{number(found.get('sampled'))}; "
        f"rejected because the annotator found no plausible answer: {rejected[0]['count']}.",
        labellers.calibration_sentence(found),
        f"{found['selection']['sentence']}." if found.get("selection") else "",
    ]
    names = content.scores.get("classes") or []
    by_labeller = [{"name": name, "miou": number(value)} for name, value in (found.get("labellers") or {}).items()]
    by_class = [
        {"name": (names[k] if k < len(names) else f"class {k}").replace("_", " "), "iou": number(iou)}
        for k, iou in enumerate(found.get("per_class_iou") or [])
    ]
    small: list[tuple[str, Columns, Sequence[Record]]] = [
        ("By labeller, trained on the same annotated slices", [("name", "labeller"), ("miou", metric)], by_labeller),
        ("Why slices were rejected", [("reason", "reason"), ("count", "slices")], rejected[1:]),
        ("By class", [("name", "class"), ("iou", "IoU")], by_class),
    ]
    return [
        Text(title, [sentence for sentence in told if sentence]),
        *labellers.selection_table(found, metric),
        *(DataTable("", columns, lines, heading=heading) for heading, columns, lines in small if lines),
    ]


def data(content: ReportContent) -> list[Section]:
    """The pools of patients, and what was left out."""
    columns = [("pool", "pool"), ("patients", "patients"), ("slices", "slices"), ("labelled_slices", "labelled slices")]
    told = f"The built-in thorax phantom, {content.phantom}; its patients are drawn, not scanned."
    left_out = [{"reason": reason, "count": count} for reason, count in content.left_out.items()]
    missing = {key: None for key, _ in columns}
    pools = [{**missing, **pool} for pool in content.pools]
    return [
        Text("Data", [told] if content.phantom else []),
        DataTable("", columns, pools, heading="Pools of patients, cut once, never mixed"),
        DataTable("", [("reason", "reason"), ("count", "count")], left_out, heading="Left out")
        if left_out
        else Text("", ["Nothing was recorded as left out."]),
    ]


def _used(columns: Columns, lines: Sequence[Record]) -> list[tuple[str, str]]:
    """The columns that say something."""
    return [column for column in columns if not lines or any(line[column[0]] != "" for line in lines)]
