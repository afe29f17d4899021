"""The training sets that a run compares: what each is called, holds, costs, is taught by and is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Row = Literal[
    "synthetic",
    "real",
    "hybrid",
    "real30",
    "real30_spread",
    "annotated_only",
    "annotated_real",
    "pseudo_label",
    "finetuned",
    "factory_pseudo",
    "all_together",
]


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
class Share:
    """Slices of one kind in a row's batches.

    Attributes:
        slices: `synthetic` generated pairs, `annotated` generated slices, `unlabelled` real slices that the teacher
            labels, or real labelled slices: `few`, `spread`, `real` of `Draw`.
        first: part of every batch.
        last: the same at the end of the training, where it is another, see `TrainingSource`.
    """

    slices: Literal["synthetic", "annotated", "unlabelled", "few", "spread", "real"]
    first: float = 1.0
    last: float | None = None


@dataclass(frozen=True)
class Kind:
    """One row of the comparison.

    Attributes:
        title: its name in tables, with the numbers that matter; see `title`.
        shares: what its batches hold.
        compared: the orderings it adds to the report, each `a` against `b` on test-R.
        teacher: the row whose segmenter of the same seed labels the unlabelled real slices.
        decides: it needs no factory: only a hybrid that beats all such rows shows that the factory earns its labels.
        repeated: it is trained with `deciding_seeds` segmenter seeds, not with `other_seeds`.
    """

    title: str
    shares: tuple[Share, ...]
    compared: tuple[tuple[str, str], ...] = ()
    teacher: str = ""
    decides: bool = False
    repeated: bool = True

    @property
    def slices(self) -> set[str]:
        """Kinds of slices in it."""
        return {share.slices for share in self.shares}


def _against(row: str, *others: str) -> tuple[tuple[str, str], ...]:
    return tuple((row, other) for other in others)


HALF_FEW = Share("few", 0.5)
"""A hybrid batch is half real: thirty real slices among a thousand generated ones would hardly be seen."""
RIVALS = ("hybrid", "real30", "pseudo_label", "annotated_real")
"""What every other way to use the factory has to beat."""

ROWS: dict[str, Kind] = {
    "hybrid": Kind(
        "hybrid: {pairs} + {few}{of_them}",
        (Share("synthetic", 0.5), HALF_FEW),
        _against("hybrid", "synthetic", "real30", "real30_spread", "pseudo_label", "annotated_only"),
    ),
    "synthetic": Kind("{made}", (Share("synthetic"),), _against("synthetic", "annotated_only")),
    "real": Kind("{cost.real_slices} real", (Share("real"),), repeated=False),
    "real30": Kind("{few} only", (Share("few"),), decides=True),
    "real30_spread": Kind("{cost.real_slices} real spread over {cost.real_patients} patients", (Share("spread"),)),
    "pseudo_label": Kind(
        "pseudo-label: {pseudo} + {few}", (Share("unlabelled", 0.5), HALF_FEW), teacher="real30", decides=True
    ),
    "annotated_only": Kind("{painted} only (no interpreter)", (Share("annotated"),), decides=True),
    "annotated_real": Kind(
        "{painted} + {few} (no interpreter)",
        (Share("annotated", 0.5), HALF_FEW),
        (("hybrid", "annotated_real"), *_against("annotated_real", "real30", "pseudo_label", "annotated_only")),
    ),
    "finetuned": Kind(
        "{made}, then fine-tuned on {few}",
        (Share("synthetic", 1.0, 0.0), Share("few", 0.0, 1.0)),
        _against("finetuned", *RIVALS),
    ),
    "factory_pseudo": Kind(
        "{pseudo}, labelled by the hybrid, + {few}",
        (Share("unlabelled", 0.5), HALF_FEW),
        _against("factory_pseudo", *RIVALS),
        teacher="hybrid",
    ),
    "all_together": Kind(
        "{pairs} + {pseudo}, labelled by the hybrid, + {few}",
        (Share("unlabelled", 0.25), Share("synthetic", 0.25), HALF_FEW),
        _against("all_together", *RIVALS),
        teacher="hybrid",
    ),
}
COMPARISONS = tuple(pair for kind in ROWS.values() for pair in kind.compared)
"""Orderings that the report judges, each `a` against `b` on test-R."""
DECIDING = tuple(row for row, kind in ROWS.items() if kind.decides)
"""Rows that need no factory; the hybrid has to beat all of them."""
TEACHERS = {row: kind.teacher for row, kind in ROWS.items() if kind.teacher}
"""Rows that learn from unlabelled real slices, and the row whose segmenter of the same seed labels those for them."""


def title(row: str, cost: Cost) -> str:
    """The row's name in tables, with the numbers that matter."""
    pairs, inverted = f"{cost.synthetic_pairs} synthetic", cost.inverted_slices
    labelled = f", labelled by {inverted} inverted real of {cost.real_patients} patients" if inverted else ""
    painted = f"{cost.annotated_synthetic} annotated synthetic"
    return ROWS[row].title.format(
        cost=cost,
        pairs=pairs,
        made=pairs + labelled,
        painted=f"reconstructions of {inverted} inverted real" if inverted else painted,
        few=f"{cost.real_slices} real of {cost.real_patients} patients",
        of_them=f", {inverted} of them inverted" if inverted else "",
        pseudo=f"{cost.pseudo_slices} unlabelled real",
    )
