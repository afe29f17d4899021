"""Which slices each training set uses, and what it cost: the real ones drawn per segmenter seed, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medseg_gan.data.records import DOMINANT_SHARE
from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.machine.seeding import numpy_rng
from medseg_gan.systems.datasetgan.recipe import TrainSegmenters
from medseg_gan.systems.datasetgan.rows import ROWS, Cost

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
    """The parts and the cost of one row of `ROWS`; `stand_in` is what the annotator itself was trained on.

    Where real slices were inverted instead, `inverted` are their positions in `store`, dropped ones included.
    """
    kind, unlabelled = ROWS[row], np.arange(len(store.indices("gan")))
    stores = {
        "synthetic": ("synthetic", synthetic),
        "annotated": ("annotated", annotated),
        "unlabelled": (pseudo_store(kind.teacher, seed), unlabelled),
        "few": ("real", draw.few),
        "spread": ("real", draw.spread),
        "real": ("real", draw.real),
    }
    used = kind.slices | (ROWS[kind.teacher].slices if kind.teacher else set())
    real = [stores[name][1] for name in ("few", "spread", "real") if name in kind.slices]
    cost = Cost(pseudo_slices=len(unlabelled) if kind.teacher else 0)
    if used & {"synthetic", "annotated"}:
        cost = replace(cost, synthetic_pairs=len(synthetic) if "synthetic" in used else 0)
        if inverted is None:
            who = {name: getattr(stand_in, name) for name in ("stand_in_slices", "stand_in_patients")}
            cost = replace(cost, annotated_synthetic=len(annotated), **who)
        else:
            real.append(inverted)
            cost = replace(cost, inverted_slices=len(inverted))
    paid = np.unique(np.concatenate([*real, np.zeros(0, np.int64)]))
    patients = {store.records[k].patient for k in paid.tolist()}
    parts = tuple(Part(*stores[share.slices], share.first, share.last) for share in kind.shares)
    return TrainingSet(row, seed, parts, replace(cost, real_slices=len(paid), real_patients=len(patients)))


def pseudo_store(teacher: str, seed: int) -> str:
    """Name of the store of real slices that one row's segmenter labelled."""
    return f"pseudo-{teacher}-{seed}"
