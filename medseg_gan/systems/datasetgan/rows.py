"""The training sets a run compares: which slices each row of the table uses, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medseg_gan.data.records import DOMINANT_SHARE
from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.machine.seeding import numpy_rng
from medseg_gan.systems.datasetgan.recipe import TEACHERS, TrainSegmenters

WAYS = ("finetuned", "factory_pseudo", "all_together")
"""Other ways to use the factory than the hybrid: each has to beat the same rivals."""

COMPARISONS = (
    ("hybrid", "synthetic"),
    ("hybrid", "real30"),
    ("hybrid", "real30_spread"),
    ("hybrid", "pseudo_label"),
    ("hybrid", "annotated_only"),
    ("synthetic", "annotated_only"),
    ("hybrid", "annotated_real"),
    *(("annotated_real", rival) for rival in ("real30", "pseudo_label", "annotated_only")),
    *((way, rival) for way in WAYS for rival in ("hybrid", "real30", "pseudo_label", "annotated_real")),
)
"""Orderings the report judges, each `a` against `b` on test-R."""


GOLDEN = (5**0.5 - 1) / 2
"""Steps of this length, wrapped to [0, 1), fill the interval evenly however many are taken."""


@dataclass(frozen=True)
class Draw:
    """The real labelled slices one segmenter seed may use; rows of the same seed share them, so they compare in pairs.

    Attributes:
        validation: slices of patients kept aside to pick checkpoints.
        real: up to `num_real` slices spread over the other labelled patients.
        few: the slices of a few patients, how people annotate.
        spread: as many slices spread over all of them.
    """

    validation: np.ndarray
    real: np.ndarray
    few: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Cost:
    """What a row's labels cost: real labelled slices and patients of its own, its stand-in's, and generated slices.

    Slices that were inverted for the interpreter are among the `real_slices`, once, whatever else they are used for.
    """

    real_slices: int = 0
    real_patients: int = 0
    stand_in_slices: int = 0
    stand_in_patients: int = 0
    annotated_synthetic: int = 0
    synthetic_pairs: int = 0
    pseudo_slices: int = 0
    inverted_slices: int = 0


@dataclass(frozen=True)
class Part:
    """Slices of one store in a training set.

    Attributes:
        store: name of the store.
        indices: of its slices.
        share: part of every batch.
        last_share: the same at the end of the training, where it is another, see `TrainingSource`.
    """

    store: str
    indices: np.ndarray
    share: float = 1.0
    last_share: float | None = None


@dataclass(frozen=True)
class TrainingSet:
    """One row for one segmenter seed."""

    row: str
    seed: int
    parts: tuple[Part, ...]
    cost: Cost = field(default_factory=Cost)


def even_slices(store: SliceStore, indices: np.ndarray, count: int, place: float = 0.5) -> np.ndarray:
    """`count` of one patient's slices: one of each of `count` equal parts (all of them when there are fewer).

    Args:
        store: where the slices lie.
        indices: the patient's slices.
        count: how many.
        place: in [0, 1), where in its part each is taken; 0.5 is the middle.
    """
    ordered = sorted(indices.tolist(), key=lambda k: (store.records[k].case, store.records[k].slice_index))
    count = min(count, len(ordered))
    picks = ((np.arange(count) + place) * len(ordered) / max(count, 1)).astype(int)
    return np.array([ordered[k] for k in picks], np.int64)


def spread_slices(store: SliceStore, patients: Sequence[str], pool: str, count: int) -> np.ndarray:
    """`count` slices over all `patients`, as equally as their numbers of slices allow.

    Each patient is cut at another place: one slice of each of thirty patients are thirty heights, not thirty middles.
    """
    queues = []
    for number, patient in enumerate(patients):
        own = store.indices(pool, labelled=True, patients=[patient])
        share = -(-count // len(patients))
        chosen_first = even_slices(store, own, share, place=(0.5 + number * GOLDEN) % 1)
        queues.append(list(chosen_first) + sorted(set(own.tolist())))
    chosen: dict[int, None] = {}
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < count:
                chosen[int(queue.pop(0))] = None
    return np.array(sorted(chosen), np.int64)


def draw_real_slices(
    store: SliceStore, *, seed: int, draw: int, num_real: int, few_patients: int, few_slices: int, val_slices: int
) -> Draw:
    """Choose the real labelled slices of one segmenter seed; the validation patients are the same for every seed.

    Raises:
        MedsegError: the labelled pool has too few patients.
    """
    patients = sorted(store.patients("labelled"))
    if len(patients) < 2:
        raise MedsegError(
            f"the labelled pool has {len(patients)} patient(s), wanted at least 2 (one picks checkpoints); "
            "give more labelled patients or a lower prepare.test_share"
        )
    total = len(store.indices("labelled", labelled=True))
    order = numpy_rng(seed, "validation patients").permutation(patients).tolist()
    order.sort(key=lambda patient: len(store.indices("labelled", patients=[patient])) > DOMINANT_SHARE * total)
    num_validation = max(1, min(4, len(patients) // 5))
    held_out, others = order[:num_validation], sorted(order[num_validation:])
    # A few patients means patients with enough slices; only where nobody has, take those with most.
    sizes = {patient: len(store.indices("labelled", labelled=True, patients=[patient])) for patient in others}
    shuffled = numpy_rng(seed, "few patients", draw).permutation(others).tolist()
    few = sorted(shuffled, key=lambda patient: -min(sizes[patient], few_slices))[:few_patients]
    few_indices = [
        even_slices(store, store.indices("labelled", labelled=True, patients=[patient]), few_slices) for patient in few
    ]
    few_all = np.sort(np.concatenate(few_indices))
    return Draw(
        validation=spread_slices(store, held_out, "labelled", val_slices),
        real=spread_slices(store, others, "labelled", num_real),
        few=few_all,
        spread=spread_slices(store, shuffled, "labelled", len(few_all)),
    )


def draw_of(config: TrainSegmenters, store: SliceStore, seed: int, draw: int = 0) -> Draw:
    """The real slices of one segmenter seed, by a recipe's settings; see `draw_real_slices`."""
    return draw_real_slices(
        store,
        seed=seed,
        draw=draw,
        num_real=config.num_real,
        few_patients=config.few_patients,
        few_slices=config.few_slices,
        val_slices=config.val_slices,
    )


def training_set(
    row: str,
    seed: int,
    draw: Draw,
    store: SliceStore,
    *,
    synthetic: np.ndarray,
    annotated: np.ndarray,
    stand_in: Cost,
    inverted: np.ndarray | None = None,
) -> TrainingSet:
    """The parts and the cost of one row; `stand_in` is what the annotator itself was trained on.

    Where real slices were inverted instead, `inverted` are their positions in `store`, dropped ones included.

    A hybrid batch is half real: thirty real slices among a thousand generated ones would hardly be seen. The
    pseudo-label row is built the same way: in place of the generated slices, real ones of the GAN's pool, labelled by
    the `real30` segmenter of the same seed. In `factory_pseudo` the hybrid's segmenter labels them, and `all_together`
    has both. `finetuned` learns from generated slices and, in the last third of its steps, from real ones alone.
    """
    labelled_by_annotator = Cost(
        stand_in_slices=stand_in.stand_in_slices,
        stand_in_patients=stand_in.stand_in_patients,
        annotated_synthetic=len(annotated) if inverted is None else 0,
    )

    def real_cost(indices: np.ndarray, base: Cost = Cost(), **more: int) -> Cost:
        if base.inverted_slices and inverted is not None:
            indices = np.union1d(indices, inverted)
        patients = len({store.records[k].patient for k in indices.tolist()})
        return Cost(**{**vars(base), "real_slices": len(indices), "real_patients": patients, **more})

    if inverted is not None:
        labelled_by_annotator = real_cost(inverted, labelled_by_annotator, inverted_slices=len(inverted))
    factory = Cost(**{**vars(labelled_by_annotator), "synthetic_pairs": len(synthetic)})
    unlabelled = store.indices("gan")
    few, made, painted = (
        Part("real", draw.few, 0.5),
        Part("synthetic", synthetic, 0.5),
        Part("annotated", annotated, 0.5),
    )
    count = len(unlabelled)

    def pseudo(share: float = 0.5) -> Part:
        return Part(pseudo_store(TEACHERS.get(row, ""), seed), np.arange(count), share)

    sets: dict[str, tuple[tuple[Part, ...], Cost]] = {
        "synthetic": ((replace(made, share=1.0),), factory),
        "annotated_only": ((replace(painted, share=1.0),), labelled_by_annotator),
        "real": ((Part("real", draw.real),), real_cost(draw.real)),
        "real30": ((replace(few, share=1.0),), real_cost(draw.few)),
        "real30_spread": ((Part("real", draw.spread),), real_cost(draw.spread)),
        "annotated_real": ((painted, few), real_cost(draw.few, labelled_by_annotator)),
        "hybrid": ((made, few), real_cost(draw.few, factory)),
        "finetuned": (
            (replace(made, share=1.0, last_share=0.0), replace(few, share=0.0, last_share=1.0)),
            real_cost(draw.few, factory),
        ),
        "pseudo_label": ((pseudo(), few), real_cost(draw.few, pseudo_slices=count)),
        "factory_pseudo": ((pseudo(), few), real_cost(draw.few, factory, pseudo_slices=count)),
        "all_together": (
            (pseudo(0.25), replace(made, share=0.25), few),
            real_cost(draw.few, factory, pseudo_slices=count),
        ),
    }
    parts, cost = sets[row]
    return TrainingSet(row, seed, parts, cost)


def pseudo_store(teacher: str, seed: int) -> str:
    """Name of the store of real slices that one row's segmenter labelled."""
    return f"pseudo-{teacher}-{seed}"


def title(row: str, cost: Cost) -> str:
    """The row's name in tables, with the numbers that matter."""
    few = f"{cost.real_slices} real of {cost.real_patients} patients"
    made, painted = f"{cost.synthetic_pairs} synthetic", f"{cost.annotated_synthetic} annotated synthetic"
    pseudo, hybrid = f"{cost.pseudo_slices} unlabelled real", f"hybrid: {made} + {few}"
    if inverted := cost.inverted_slices:
        made += f", labelled by {inverted} inverted real of {cost.real_patients} patients"
        painted, hybrid = f"reconstructions of {inverted} inverted real", f"{hybrid}, {inverted} of them inverted"
    return {
        "synthetic": made,
        "annotated_only": f"{painted} only (no interpreter)",
        "annotated_real": f"{painted} + {few} (no interpreter)",
        "real": f"{cost.real_slices} real",
        "real30": f"{few} only",
        "real30_spread": f"{cost.real_slices} real spread over {cost.real_patients} patients",
        "hybrid": hybrid,
        "finetuned": f"{made}, then fine-tuned on {few}",
        "pseudo_label": f"pseudo-label: {pseudo} + {few}",
        "factory_pseudo": f"{pseudo}, labelled by the hybrid, + {few}",
        "all_together": f"{cost.synthetic_pairs} synthetic + {pseudo}, labelled by the hybrid, + {few}",
    }[row]
