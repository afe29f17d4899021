"""Training sets: who lends which slices to which row, and what it costs."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, lookup_table
from medseg_gan.systems.datasetgan.draws import draw_real_slices, spread_slices, training_set
from medseg_gan.systems.datasetgan.rows import COMPARISONS, DECIDING, ROWS, TEACHERS, Cost, Row, title

SIZES = {"labelled": [12, 12, 12, 3, 12, 12, 12, 12, 12, 12], "gan": [4, 4], "test": [5]}


@pytest.fixture
def store(tmp_path: Path) -> SliceStore:
    records = [
        SliceRecord(f"{pool}-{number}-01", f"{pool}-{number}", k, (1.0, 1.0, 5.0), None, pool, pool != "gan")
        for pool, sizes in SIZES.items()
        for number, size in enumerate(sizes)
        for k in range(size)
    ]
    labels = np.array([np.full((4, 4), 1 if record.labelled else UNLABELLED) for record in records], np.uint8)
    write_store(tmp_path, np.zeros(labels.shape, np.int16), labels, records, (-1000, 400), lookup_table("paper"))
    return SliceStore.open(tmp_path)


def draw(store: SliceStore, number: int = 0):
    return draw_real_slices(store, seed=3, draw=number, num_real=60, few_patients=3, few_slices=10, val_slices=16)


def patients(store: SliceStore, indices: np.ndarray) -> set[str]:
    return {store.records[k].patient for k in indices}


def test_validation_patients_lend_nothing_to_training(store: SliceStore) -> None:
    for number in range(4):
        one = draw(store, number)
        trained_on = patients(store, np.concatenate([one.real, one.few, one.spread]))
        assert not patients(store, one.validation) & trained_on
        assert all(name.startswith("labelled") for name in trained_on | patients(store, one.validation))
        np.testing.assert_array_equal(one.validation, draw(store, 0).validation)


def test_few_means_few_patients_and_spread_means_all(store: SliceStore) -> None:
    one = draw(store)
    assert len(one.few) == len(one.spread) == 30
    assert len(patients(store, one.few)) == 3
    assert len(patients(store, one.spread)) == 8
    assert len(one.real) == 60


def test_draws_of_other_seeds_use_other_patients(store: SliceStore) -> None:
    assert len({frozenset(patients(store, draw(store, number).few)) for number in range(6)}) > 1


def test_spread_takes_from_everyone_before_taking_more(store: SliceStore) -> None:
    chosen = spread_slices(store, ["labelled-0", "labelled-3"], "labelled", 10)
    assert sorted(store.records[k].patient for k in chosen) == ["labelled-0"] * 7 + ["labelled-3"] * 3


def test_one_slice_of_each_patient_covers_all_heights(store: SliceStore) -> None:
    names = [f"labelled-{k}" for k in range(10) if k != 3]
    heights = [store.records[k].slice_index for k in spread_slices(store, names, "labelled", len(names))]
    assert len(set(heights)) > 5
    assert min(heights) < 3
    assert max(heights) > 8


@pytest.mark.parametrize("row", [row for row in ROWS if row != "real"])
def test_costs_add_up(store: SliceStore, row: str) -> None:
    stand_in = Cost(stand_in_slices=50, stand_in_patients=5)
    one = training_set(row, 0, draw(store), store, synthetic=np.arange(100), annotated=np.arange(7), stand_in=stand_in)
    uses = {part.store.split("-")[0] for part in one.parts}
    assert (one.cost.real_slices > 0) == ("real" in uses)
    by_annotator = bool(uses & {"synthetic", "annotated"}) or TEACHERS.get(row) == "hybrid"
    assert (one.cost.stand_in_slices > 0) == by_annotator
    assert (one.cost.pseudo_slices > 0) == ("pseudo" in uses) == (row in TEACHERS)
    assert sum(part.share for part in one.parts) == 1
    assert sum(part.share if part.last_share is None else part.last_share for part in one.parts) == 1
    assert str(one.cost.real_slices or one.cost.annotated_synthetic) in title(row, one.cost) or row == "synthetic"


def test_compared_rows_are_trained_with_equally_many_seeds() -> None:
    assert all(ROWS[row].repeated for pair in COMPARISONS for row in pair)


def test_every_row_of_a_recipe_is_in_the_table_and_meets_the_hybrid_where_it_decides() -> None:
    assert set(ROWS) == set(get_args(Row))
    assert {("hybrid", row) for row in DECIDING} <= set(COMPARISONS)
    assert not any({"synthetic"} & ROWS[row].slices for row in DECIDING), "a deciding row needs no factory"


def test_one_labelled_patient_is_too_few(store: SliceStore) -> None:
    store.records = [record for record in store.records if record.patient != "x" and record.pool != "labelled"]
    with pytest.raises(MedsegError, match=r"0 patient.*wanted at least 2"):
        draw(store)
