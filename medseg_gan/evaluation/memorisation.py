"""Does a generator copy its training slices? Compare distances to them with those of unseen real slices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom, rankdata
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.canaries import KINDS, plant
from medseg_gan.evaluation.intervals import interval
from medseg_gan.evaluation.nearest import FeatureMeasure, Measure, Neighbours, PixelMeasure, Searched, SliceSet
from medseg_gan.machine.seeding import mix_seed, numpy_rng

NEAR = 0.01
"""Share of unseen real slices that lie nearer to a training slice than the distance from which one counts as near."""
ALONE = 0.05
"""Share of unseen real slices whose nearest patient stands out more than the ratio from which one counts as alone."""
FEWEST_UNSEEN = 100
"""Unseen real slices looked at from which 1 % of them is a slice at least; with fewer no absence of copies is told."""
HALVES = 1000
"""Draws of half of the patients behind an interval."""
FEWEST_PATIENTS = 4
"""Patients of a pool below which half of them tell nothing."""
SURPRISE = 0.01
"""Probability below which so many flags are no accident."""

Groups = dict[str, Neighbours]
"""Neighbours among the training slices of: `generated`, `unseen`, `training` (of other patients), `canaries`,
`decoys`; and `generated_unseen`, those of generated slices among the unseen ones."""


@dataclass(frozen=True)
class Judged:
    """One measure's distances and what follows.

    Attributes:
        neighbours: of each group of slices.
        near: distance below which a slice counts as near to a training slice.
        alone: ratio below which its nearest patient counts as the only near one.
        flags: for each group searched in the training slices `(Q,)` bool.
    """

    neighbours: Groups
    near: float
    alone: float
    flags: dict[str, np.ndarray]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        measures: by name, `pixels` and `features`.
        generated: positions in the generated set that were looked at, in order.
        canary_kinds: what was done to each planted copy, in the order of the group `canaries`.
        facts: everything that was counted, as plain values.
        verdict: `no sign of copying`, `signs of copying`, `leans towards its training patients`, `too few slices to
            judge` where nothing was found with fewer than 100 unseen ones, or `not to be trusted` where a planted copy
            was not found.
        sentences: the verdict in words, the first with its numbers.
    """

    measures: dict[str, Judged]
    generated: np.ndarray
    canary_kinds: tuple[str, ...]
    facts: dict[str, Any]
    verdict: str
    sentences: tuple[str, ...]

    @property
    def flagged(self) -> np.ndarray:
        """`(Q,)` whether either measure flags a generated slice."""
        return _either(self.measures, "generated")


def audit_copies(
    generated: SliceSet,
    training: SliceSet,
    unseen: SliceSet,
    *,
    seed: int,
    images: int = 1000,
    canaries: int = 20,
    device: str = "cpu",
    block: int = 64,
    on_done: Callable[[int], None] | None = None,
) -> Audit:
    """Look for training slices among generated ones.

    A slice is *near* where its distance to the nearest training slice is below that of all but 1 % of the unseen real
    slices, *alone* where that distance, divided by the distance to the nearest slice of a second patient, is below
    that of all but 5 % of them (after the ratio of Carlini et al., 2023). It is flagged where it is near and alone, or
    nearer than half the near distance: by each of two measures at most 1 % of unseen real slices, rounded up to whole
    slices, so that with fewer than 100 of them too much is flagged and nothing can be ruled out. Planted copies of
    training slices are among the generated ones; the audit is worth something only if every one is flagged. Decoys,
    unseen slices treated like the planted ones, tell whether the treatment alone raises flags.

    The sets as a whole are compared twice: generated with unseen slices in their distance to the training slices
    (the Mann-Whitney test of Meehan et al., 2020, over the whole space at once), and the distance of generated slices
    to training patients with that to as many unseen patients (after Platzer and Reutterer, 2021).

    Example:
        audit = audit_copies(generated, training, unseen, seed=0)
        print(audit.sentences[0], audit.flagged.sum())

    Args:
        generated: what the generator made; its patients do not matter.
        training: every slice that the generator was trained on.
        unseen: real slices of patients that it was not trained on.
        seed: of all draws.
        images: slices of each set that are looked at, drawn by seed; training slices are always all searched.
        canaries: planted copies of each kind.
        device: where to compute.
        block: slices in memory at once; does not change the result.
        on_done: called with the number of searched slices after each group.

    Raises:
        MedsegError: an empty set, a patient in both pools, or slices of different sizes.
    """
    _check(generated, training, unseen)
    rng = numpy_rng(seed, "audit")
    chosen = _some(rng, len(generated), images)
    groups = {
        "generated": generated.take(chosen),
        "unseen": unseen.take(_some(rng, len(unseen), images)),
        "training": training.take(_some(rng, len(training), images)),
        "canaries": _planted(training, _some(rng, len(training), canaries), mix_seed(seed, "canaries")),
        "decoys": _planted(unseen, _some(rng, len(unseen), canaries), mix_seed(seed, "decoys")),
    }
    measures: list[Measure] = [PixelMeasure(), FeatureMeasure(device)]
    judged = {one.name: _judge(_search(groups, training, unseen, one, device, block, on_done)) for one in measures}
    kinds = tuple(kind for kind in KINDS for _ in range(len(groups["canaries"]) // len(KINDS)))
    facts = _facts(judged, kinds, groups, training, unseen, seed)
    return Audit(judged, chosen, kinds, facts, *_verdict(facts))


def searches(generated: int, training: int, unseen: int, images: int, canaries: int = 20) -> int:
    """Slices that an audit searches for, of all groups and both measures; for a progress bar."""
    looked_at = [min(count, images) for count in (generated, unseen, training, generated)]
    planted = len(KINDS) * (min(canaries, training) + min(canaries, unseen))
    return 2 * (sum(looked_at) + planted)


def mann_whitney_z(distances: np.ndarray, reference: np.ndarray) -> float:
    """Standard score of U, the pairs in which a distance exceeds the reference's (Meehan et al., 2020, Z_U).

    About standard normal where both are independent draws of one distribution; far below 0 where `distances` are
    the smaller ones. Slices of one patient are not independent, which makes |z| too large. NaN for an empty side.

    Args:
        distances: `(N,)`.
        reference: `(M,)`.
    """
    n, m = len(distances), len(reference)
    if not n or not m:
        return math.nan
    u = rankdata(np.concatenate([distances, reference]))[:n].sum() - n * (n + 1) / 2
    return float((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


def share_nearer(to_training: np.ndarray, to_unseen: np.ndarray, seed: int) -> dict[str, Any]:
    """Share of slices that lie nearer to training patients than to as many unseen ones; one half if nothing was copied.

    How typical or how smooth generated slices are cancels out, which it does not in a comparison with real slices.
    After the holdout test of Platzer and Reutterer (2021), here by patients: each of 1000 draws takes as many patients
    of either pool, half of the smaller one; their spread is that of the share (delete-half jackknife).

    Args:
        to_training: `(Q, P)` distance to the nearest slice of each training patient.
        to_unseen: `(Q, R)` the same of each unseen patient.
        seed: of the draws.

    Returns:
        `share`, its 95 % `interval` and the number of `patients` of each draw; None for all where a pool has fewer
        than four patients.
    """
    smaller = min(to_training.shape[1], to_unseen.shape[1])
    if smaller < FEWEST_PATIENTS or not len(to_training):
        return {"share": None, "interval": None, "patients": None}
    rng = numpy_rng(seed, "half of the patients")
    half = smaller // 2
    shares = []
    for _ in range(HALVES):
        ours, theirs = (
            side[:, rng.choice(side.shape[1], half, replace=False)].min(axis=1) for side in (to_training, to_unseen)
        )
        shares.append(((ours < theirs) + 0.5 * (ours == theirs)).mean())
    return {"share": float(np.mean(shares)), "interval": interval(shares), "patients": half}


def _check(generated: SliceSet, training: SliceSet, unseen: SliceSet) -> None:
    sets = {"generated": generated, "training": training, "unseen real": unseen}
    for name, slices in sets.items():
        if not len(slices):
            raise MedsegError(f"the audit for copies has no {name} slice; wanted at least one")
    both = sorted(set(training.patients) & set(unseen.patients))
    if both:
        raise MedsegError(f"{both[0]} is in the training set and among the unseen; wanted patients in one of them only")


def _some(rng: np.random.Generator, count: int, wanted: int) -> np.ndarray:
    return np.sort(rng.choice(count, min(count, wanted), replace=False))


def _search(
    groups: dict[str, SliceSet],
    training: SliceSet,
    unseen: SliceSet,
    measure: Measure,
    device: str,
    block: int,
    on_done: Callable[[int], None] | None,
) -> Groups:
    """Neighbours of every group by one measure."""
    found: Groups = {}
    searched = Searched(training, measure, device, block)
    for name, slices in groups.items():
        found[name] = searched.nearest(slices, others_only=name == "training")
        _tell(on_done, len(slices))
    found["generated_unseen"] = Searched(unseen, measure, device, block).nearest(groups["generated"])
    _tell(on_done, len(groups["generated"]))
    return found


def _planted(slices: SliceSet, positions: np.ndarray, seed: int) -> SliceSet:
    """Slices with each treatment, the kinds one after another; a few, so they are made at once."""
    images = slices.load(slices.rows[positions])
    made: Tensor = torch.cat([plant(images, kind, seed) for kind in KINDS])
    return SliceSet.of(made, [slices.patients[k] for k in positions] * len(KINDS))


def _tell(on_done: Callable[[int], None] | None, count: int) -> None:
    if on_done is not None:
        on_done(count)


def _judge(found: Groups) -> Judged:
    """Thresholds from unseen real slices, and every group's flags."""
    near = float(np.quantile(found["unseen"].distance, NEAR))
    alone = float(np.quantile(found["unseen"].ratio, ALONE))
    flags = {
        name: ((one.distance < near) & (one.ratio < alone)) | (one.distance < near / 2)
        for name, one in found.items()
        if name != "generated_unseen"
    }
    return Judged(found, near, alone, flags)


def _either(judged: dict[str, Judged], group: str) -> np.ndarray:
    return np.logical_or.reduce([one.flags[group] for one in judged.values()])


def _facts(
    judged: dict[str, Judged],
    kinds: tuple[str, ...],
    groups: dict[str, SliceSet],
    training: SliceSet,
    unseen: SliceSet,
    seed: int,
) -> dict[str, Any]:
    flags = {name: _either(judged, name) for name in groups}
    found = {kind: flags["canaries"][[one == kind for one in kinds]] for kind in KINDS}
    return {
        "version": 1,
        "seed": seed,
        "generated": {"looked_at": len(flags["generated"]), "flagged": int(flags["generated"].sum())},
        "unseen": {"looked_at": len(flags["unseen"]), "flagged": int(flags["unseen"].sum())},
        "chance": min(1.0, len(judged) * min(_chance(one) for one in judged.values())),
        "as_near_as_copies": int(_either_very_near(judged).sum()),
        "training": {"slices": len(training), "patients": len(set(training.patients))},
        "unseen_pool": {"slices": len(unseen), "patients": len(set(unseen.patients))},
        "canaries": {
            "planted": len(kinds),
            "flagged": int(flags["canaries"].sum()),
            "kinds": {kind: {"planted": len(hit), "flagged": int(hit.sum())} for kind, hit in found.items()},
        },
        "decoys": {"planted": len(flags["decoys"]), "flagged": int(flags["decoys"].sum())},
        "measures": {name: _measure_facts(one, kinds, seed) for name, one in judged.items()},
    }


def _chance(one: Judged) -> float:
    """Probability of so many flags at least, were generated slices drawn as the unseen ones are.

    The near distance lies at the k-th smallest of n unseen slices; how many of other draws lie below it is
    beta-binomial, which counts in that it was found from few slices. That flagged slices are also alone is left out.
    """
    flags, unseen = one.flags["generated"], one.neighbours["unseen"].distance
    rank = min(math.ceil(NEAR * (len(unseen) - 1)) + 1, len(unseen))
    return float(betabinom.sf(int(flags.sum()) - 1, len(flags), rank, len(unseen) - rank + 1))


def _either_very_near(judged: dict[str, Judged]) -> np.ndarray:
    return np.logical_or.reduce([one.neighbours["generated"].distance < one.near / 2 for one in judged.values()])


def _measure_facts(one: Judged, kinds: tuple[str, ...], seed: int) -> dict[str, Any]:
    groups = one.neighbours
    ours, theirs = groups["generated"], groups["unseen"]
    return {
        "near": one.near,
        "alone": one.alone,
        "flagged": {name: int(hit.sum()) for name, hit in one.flags.items()},
        "distance": {name: _quantiles(groups[name].distance) for name in ("generated", "unseen", "training", "decoys")},
        "ratio": {name: _quantiles(groups[name].ratio) for name in ("generated", "unseen", "training")},
        "canary_distance": {
            kind: float(groups["canaries"].distance[[name == kind for name in kinds]].max()) for kind in KINDS
        },
        "z": mann_whitney_z(ours.distance, theirs.distance),
        "z_ratio": mann_whitney_z(ours.ratio, theirs.ratio),
        "nearer_to_training": share_nearer(ours.by_patient, groups["generated_unseen"].by_patient, seed),
    }


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    """Five numbers of the finite values; None where there is none, as with a single training patient."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    points = {"least": 0, "1 %": 0.01, "5 %": 0.05, "median": 0.5, "95 %": 0.95}
    return {name: float(np.quantile(finite, point)) for name, point in points.items()}


def _verdict(facts: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The verdict and its sentences."""
    ours, theirs, canaries, decoys = (facts[name] for name in ("generated", "unseen", "canaries", "decoys"))
    near = " or ".join(f"{one['near']:.3g} ({name})" for name, one in facts["measures"].items())
    flagged = (
        f"{ours['flagged']} of {ours['looked_at']} generated slices ({_percent(**ours)}) are flagged as possible "
        f"copies of a training slice (nearer than {near}, and near to one patient only); of {theirs['looked_at']} real "
        f"slices that the generator never saw, which cannot be copies, {_percent(**theirs)} are flagged likewise."
    )
    planted = f"Of {canaries['planted']} planted copies of training slices {canaries['flagged']} were found."
    treated = (
        f"Of {decoys['planted']} decoys, unseen slices treated like the planted copies, which cannot be copies either, "
        f"{decoys['flagged']} were flagged."
    )
    few = theirs["looked_at"] < FEWEST_UNSEEN
    too_few = (
        f"{theirs['looked_at']} real slices that the generator never saw do not show what the nearest 1 % of them are: "
        f"wanted at least {FEWEST_UNSEEN}"
    )
    missed = {kind: n["planted"] - n["flagged"] for kind, n in canaries["kinds"].items() if n["flagged"] < n["planted"]}
    leaning = {
        name: one["nearer_to_training"]
        for name, one in facts["measures"].items()
        if one["nearer_to_training"]["interval"] and one["nearer_to_training"]["interval"][0] > 0.5
    }
    if missed:
        kinds = ", ".join(f"{count} of kind {kind}" for kind, count in missed.items())
        return "not to be trusted", (
            f"This audit cannot be trusted: of {canaries['planted']} planted copies of training slices {kinds} were "
            "not found, so copies by the generator may be missed too.",
            f"With that said: {flagged}",
            treated,
        )
    if facts["as_near_as_copies"] or facts["chance"] < SURPRISE:
        very = facts["as_near_as_copies"]
        extra = f"{very} of them are nearer than half that distance, where planted copies lie." if very else ""
        verdict, head = "signs of copying", f"Signs of copying: {flagged} {extra}".strip()
    elif leaning:
        found = f"Too few slices to rule out copies ({too_few})" if few else "No copies found"
        verdict, head = "leans towards its training patients", f"{found}, but a leaning: {flagged}"
    elif few:
        verdict, head = "too few slices to judge", f"Too few slices to judge ({too_few}): {flagged}"
    else:
        verdict, head = "no sign of copying", f"No sign of copying: {flagged}"
    return verdict, (head, planted, treated, *(_leaning(name, share) for name, share in leaning.items()))


def _leaning(name: str, share: dict[str, Any]) -> str:
    low, high = share["interval"]
    return (
        f"By {name}, {100 * share['share']:.0f} % of the generated slices (95 % interval {100 * low:.0f} to "
        f"{100 * high:.0f} %) lie nearer to training patients than to as many unseen ones; 50 % would be no preference."
    )


def _percent(looked_at: int, flagged: int) -> str:
    return f"{100 * flagged / looked_at:.1f} %"
