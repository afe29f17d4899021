"""The training sets a run compares: which slices each row of the table uses, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medseg_gan.data.records import DOMINANT_SHARE
from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.seeding import numpy_rng

COMPARISONS = (
    ("hybrid", "synthetic"),
    ("hybrid", "real30"),
    ("hybrid", "real30_spread"),
    ("hybrid", "pseudo_label"),
    ("hybrid", "annotated_only"),
    ("synthetic", "annotated_only"),
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
    """What a row's labels cost: real labelled slices and patients of its own, its stand-in's, and generated slices."""

    real_slices: int = 0
    real_patients: int = 0
    stand_in_slices: int = 0
    stand_in_patients: int = 0
    annotated_synthetic: int = 0
    synthetic_pairs: int = 0
    pseudo_slices: int = 0


@dataclass(frozen=True)
class TrainingSet:
    """One row for one segmenter seed: store names with indices and the share of every batch each fills."""

    row: str
    seed: int
    parts: tuple[tuple[str, np.ndarray, float], ...]
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


def training_set(
    row: str, seed: int, draw: Draw, store: SliceStore, *, synthetic: np.ndarray, annotated: np.ndarray, stand_in: Cost
) -> TrainingSet:
    """The parts and the cost of one row; `stand_in` is what the annotator itself was trained on.

    A hybrid batch is half real: thirty real slices among a thousand generated ones would hardly be seen. The
    pseudo-label row is built the same way: in place of the generated slices, real ones of the GAN's pool, labelled by
    the `real30` segmenter of the same seed.
    """
    labelled_by_annotator = Cost(
        stand_in_slices=stand_in.stand_in_slices,
        stand_in_patients=stand_in.stand_in_patients,
        annotated_synthetic=len(annotated),
    )
    factory = Cost(**{**vars(labelled_by_annotator), "synthetic_pairs": len(synthetic)})

    def real_cost(indices: np.ndarray, base: Cost = Cost(), **more: int) -> Cost:
        patients = len({store.records[k].patient for k in indices.tolist()})
        return Cost(**{**vars(base), "real_slices": len(indices), "real_patients": patients, **more})

    unlabelled = store.indices("gan")
    parts: dict[str, tuple[tuple[tuple[str, np.ndarray, float], ...], Cost]] = {
        "synthetic": ((("synthetic", synthetic, 1.0),), factory),
        "annotated_only": ((("annotated", annotated, 1.0),), labelled_by_annotator),
        "real": ((("real", draw.real, 1.0),), real_cost(draw.real)),
        "real30": ((("real", draw.few, 1.0),), real_cost(draw.few)),
        "real30_spread": ((("real", draw.spread, 1.0),), real_cost(draw.spread)),
        "hybrid": ((("synthetic", synthetic, 0.5), ("real", draw.few, 0.5)), real_cost(draw.few, factory)),
        "pseudo_label": (
            ((f"pseudo-{seed}", np.arange(len(unlabelled)), 0.5), ("real", draw.few, 0.5)),
            real_cost(draw.few, pseudo_slices=len(unlabelled)),
        ),
    }
    chosen, cost = parts[row]
    return TrainingSet(row, seed, chosen, cost)


def title(row: str, cost: Cost) -> str:
    """The row's name in tables, with the numbers that matter."""
    few = f"{cost.real_slices} real of {cost.real_patients} patients"
    return {
        "synthetic": f"{cost.synthetic_pairs} synthetic",
        "annotated_only": f"{cost.annotated_synthetic} annotated synthetic only (no interpreter)",
        "real": f"{cost.real_slices} real",
        "real30": f"{few} only",
        "real30_spread": f"{cost.real_slices} real spread over {cost.real_patients} patients",
        "hybrid": f"hybrid: {cost.synthetic_pairs} synthetic + {few}",
        "pseudo_label": f"pseudo-label: {cost.pseudo_slices} unlabelled real + {few}",
    }[row]
