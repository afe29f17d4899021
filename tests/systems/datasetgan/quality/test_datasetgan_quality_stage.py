"""Quality control in a run: learned from held-out or painted slices, used by the filter, scored on test-G."""

import shutil

import numpy as np
import pytest
import torch

from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.factory import LabelFactory, write_pairs
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter
from medseg_gan.systems.datasetgan.quality.model import ERRORS, errors_of
from medseg_gan.systems.datasetgan.quality.report import quality_report
from medseg_gan.systems.datasetgan.quality.scores import quality_scores, rank_correlation, read_quality
from medseg_gan.systems.datasetgan.quality.stage import EXAMPLES, learn_quality, measure_quality
from medseg_gan.systems.datasetgan.samples.images import Sampling
from medseg_gan.systems.plan import plan_recipe
from stylegan2_ada_pytorch import Generator

WINDOW, SPACING, TABLE = (-1000.0, 400.0), (5.0, 5.0, 3.0), lookup_table("lungs")
STORE = {"window": WINDOW, "table": TABLE, "spacing": SPACING}
HELD_OUT = range(1_000_000, 1_000_048)


def build_interpreter(seed):
    torch.manual_seed(seed)
    return Interpreter([PixelClassifier(96, (8, 4), 3) for _ in range(3)])


@pytest.fixture(scope="module")
def factory():
    torch.manual_seed(0)
    small = {"channel_base": 256, "channel_max": 16}
    G = Generator(8, 0, 8, 16, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=small)
    return LabelFactory(G, build_interpreter(1), Sampling(seed=1, psi=1.0, block=8))


@pytest.fixture(scope="module")
def annotated_once(tmp_path_factory, factory):
    """The stage `annotate`: twelve annotated slices and the held-out ones, by an annotator who dislikes a few."""
    tmp_path, rng = tmp_path_factory.mktemp("quality"), np.random.default_rng(0)
    for name, indices in (("annotated", range(12)), ("held_out", HELD_OUT)):
        labels = annotator_labels(factory, indices, rng)
        records = [SliceRecord(f"g-{k}", "generated", 0, SPACING, None, "generated", True) for k in indices]
        hu = np.zeros(labels.shape, np.int16)
        write_store(tmp_path / "annotate" / name, hu, labels, records, WINDOW, TABLE)
        save_checkpoint(tmp_path / "annotate" / name / "latents.pt", indices=torch.tensor(list(indices)))
    who = {"kind": "segmenter", "who": "a segmenter (unet)", "real_slices": 3, "real_patients": 1}
    write_json(tmp_path / "annotate" / "annotator.json", who)
    return tmp_path / "annotate"


@pytest.fixture
def annotation(tmp_path, annotated_once):
    return shutil.copytree(annotated_once, tmp_path / "annotate")


def annotator_labels(factory, indices, rng):
    """The factory's labels with a share of the pixels changed that differs from slice to slice."""
    labels = factory.label(indices).labels.numpy().copy()
    for label in labels:
        label[rng.random(label.shape) < rng.uniform(0, 0.3)] = 1
    return labels


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    tmp_path, rng = tmp_path_factory.mktemp("real"), np.random.default_rng(0)
    records = [SliceRecord(f"c{k}", f"p{k // 2}", k, SPACING, None, "gan", False) for k in range(8)]
    images = rng.integers(-1000, 400, (8, 16, 16)).astype(np.int16)
    write_store(tmp_path / "prepare", images, None, records, WINDOW, TABLE)
    return SliceStore.open(tmp_path / "prepare")


def learn(folder, factory, real, annotation, **changed):
    choices = {"folds": 3, "seed": 0, "annotated": never, "refit": never} | changed
    return learn_quality(folder, factory, real, annotation, **choices)


def never(*_):
    raise AssertionError("nothing has to be trained anew")


def test_held_out_slices_teach_with_one_half_and_calibrate_with_the_other(tmp_path, factory, real, annotation):
    control = learn(tmp_path / "s", factory, real, annotation)
    record = read_json(tmp_path / "s" / "quality.json")
    assert record["kind"] == "held_out" and record["learned_from"] == 24
    assert record["annotator"] == {"kind": "segmenter", "who": "a segmenter (unet)"}
    assert control.model.bounds["wrong"].examples == 24 and control.model.bounds["wrong"].exists
    with np.load(tmp_path / "s" / EXAMPLES) as examples:
        truth = np.asarray(SliceStore.open(annotation / "held_out").labels)
        expected = errors_of(factory.label(HELD_OUT).labels.numpy(), truth)
        for name in ERRORS:
            np.testing.assert_array_equal(examples[name], expected[name])


def test_learned_once_it_is_kept(tmp_path, factory, real, annotation):
    first = learn(tmp_path / "s", factory, real, annotation)
    (annotation / "held_out" / "latents.pt").unlink()  # not read again
    again = learn(tmp_path / "s", factory, real, annotation)
    pairs = factory.label(range(8))
    np.testing.assert_array_equal(again.judge(pairs)["bound_wrong"], first.judge(pairs)["bound_wrong"])


def painted(annotation):
    write_json(annotation / "annotator.json", {"kind": "person", "who": "12 generated slices painted by hand"})
    (annotation / "held_out" / "cases.json").unlink()


def test_painted_slices_are_judged_by_interpreters_that_did_not_see_them(tmp_path, factory, real, annotation):
    painted(annotation)
    truth = np.asarray(SliceStore.open(annotation / "annotated").labels)
    given = []

    def refit(folder, rendered, labels):
        folder.mkdir(parents=True)
        given.append(rendered.indices.tolist())
        np.testing.assert_array_equal(labels.numpy(), truth[rendered.indices])
        return build_interpreter(len(given))

    control = learn(
        tmp_path / "s", factory, real, annotation, annotated=lambda: factory.source.render(range(12)), refit=refit
    )
    left_out = [sorted(set(range(12)) - set(part)) for part in given]
    assert sorted(k for part in left_out for k in part) == list(range(12)) and len(given) == 3
    with np.load(tmp_path / "s" / EXAMPLES) as examples:
        for number, rows in enumerate(left_out):
            other = LabelFactory(factory.source.G, build_interpreter(number + 1), factory.source.sampling)
            found = errors_of(other.label(np.array(rows)).labels.numpy(), truth[rows])
            np.testing.assert_array_equal(examples["wrong"][rows], found["wrong"])
    assert control.model.bounds["wrong"].examples == 12
    assert read_json(tmp_path / "s" / "quality.json")["sentence"].startswith("no bound: 12 annotated pairs")
    assert not (tmp_path / "s" / "folds").exists()


def test_without_folds_the_ensemble_speaks_for_itself(tmp_path, factory, real, annotation):
    painted(annotation)
    control = learn(tmp_path / "s", factory, real, annotation, folds=0)
    pairs = factory.label(range(8))
    np.testing.assert_allclose(control.judge(pairs)["predicted_wrong"], pairs.doubt.sum(1), rtol=1e-5)
    assert read_json(tmp_path / "s" / "quality.json")["kind"] == "none"


def test_the_filter_drops_the_pairs_predicted_worst_and_says_what_it_dropped(tmp_path, factory, real, annotation):
    control = learn(tmp_path / "s", factory, real, annotation)
    store = write_pairs(
        tmp_path / "train",
        factory,
        range(20),
        **STORE,
        drop_uncertain=0.25,
        judge=control.judge,
        drop_by="predicted_wrong",
    )
    predicted = control.judge(factory.label(range(20)))["predicted_wrong"]
    kept = np.sort(np.argsort(predicted, kind="stable")[:15])
    np.testing.assert_array_equal(np.load(tmp_path / "train" / "indices.npy"), kept)
    columns = read_quality(tmp_path / "train" / "quality.csv")
    np.testing.assert_array_equal(columns["predicted_wrong"], predicted[kept])
    assert columns["case"].tolist() == [record.case for record in store.records]
    dropped = read_quality(tmp_path / "train" / "dropped.csv")
    assert len(dropped["case"]) == 5 and dropped["predicted_wrong"].min() >= columns["predicted_wrong"].max()


def test_other_rankings_are_other_pairs(tmp_path, factory, real, annotation):
    control = learn(tmp_path / "s", factory, real, annotation)
    write_pairs(tmp_path / "train", factory, range(8), **STORE, judge=control.judge)
    with pytest.raises(MedsegError, match="use --rerun synthesize"):
        write_pairs(tmp_path / "train", factory, range(8), **STORE, judge=control.judge, drop_by="predicted_wrong")


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory, factory, real, annotated_once):
    """The stage `synthesize` with test-G labelled by the annotator, who rejected the last pair."""
    folder = tmp_path_factory.mktemp("stage")
    control = learn(folder, factory, real, annotated_once)
    for name, indices in (("test_g", range(2_000_000, 2_000_024)), ("train", range(8))):
        write_pairs(folder / name, factory, indices, **STORE, judge=control.judge, drop_by="predicted_wrong")
    truth = annotator_labels(factory, range(2_000_000, 2_000_024), np.random.default_rng(1))
    accepted = np.arange(24) < 23
    truth[-1] = 255
    np.save(folder / "test_g" / "annotator_labels.npy", truth)
    np.save(folder / "test_g" / "annotator_accepted.npy", accepted)
    return folder


@pytest.fixture
def finished(tmp_path, finished_once):
    return shutil.copytree(finished_once, tmp_path / "s")


def test_predictions_are_scored_on_what_the_annotator_accepted(finished):
    measure_quality(finished)
    record = read_json(finished / "quality.json")
    measured = record["measured"]
    assert measured["pairs"] == 23 and measured["rejected"] == 1
    assert np.sum(measured["confusion"]) == 23
    truth = np.load(finished / "test_g" / "annotator_labels.npy")[:23]
    wrong = (np.asarray(SliceStore.open(finished / "test_g").labels)[:23] != truth).mean((1, 2))
    assert measured["wrong"]["mean"] == pytest.approx(wrong.mean())
    columns = read_quality(finished / "test_g" / "quality.csv")
    assert measured["wrong"]["coverage"]["share"] == (wrong <= columns["bound_wrong"][:23]).mean()
    assert record["classes"]["test_g"]["pairs"] == 24 and record["classes"]["train"]["pairs"] == 8
    assert "dropped" not in record["classes"]


def test_the_report_gets_the_best_and_the_worst_pairs(finished):
    measure_quality(finished)
    trust = quality_report(finished)
    predicted = np.array([pair["predicted_wrong"] for pair in trust.pairs])
    assert predicted[trust.rows[:8]].max() <= predicted[trust.rows[8:]].min()
    assert trust.images.shape == trust.labels.shape == trust.truth.shape == (16, 16, 16)
    assert trust.pairs[-1]["wrong"] is None and trust.pairs[0]["wrong"] is not None
    assert quality_report(finished / "train") is None


def test_without_an_annotator_nothing_is_scored(finished):
    (finished / "test_g" / "annotator_labels.npy").unlink()
    measure_quality(finished)
    assert read_json(finished / "quality.json")["measured"] is None
    trust = quality_report(finished)
    assert trust.truth is None and {pair["wrong"] for pair in trust.pairs} == {None}


def test_perfect_and_constant_predictions_are_seen_as_such():
    true = {name: np.linspace(0.001, 0.4, 20) for name in ERRORS}
    columns = {f"predicted_{name}": true[name] for name in ERRORS}
    columns |= {f"bound_{name}": true[name] for name in ERRORS}
    columns["class"] = np.array(["good"] * 20)
    found = quality_scores(columns, true, np.zeros(20))
    assert found["wrong"]["rank_correlation"] == pytest.approx(1)
    assert found["wrong"]["rank_correlation_of_uncertainty"] is None
    assert found["wrong"]["absolute_error"] == 0 and found["wrong"]["coverage"]["share"] == 1
    assert found["classes_right"] == found["confusion"][0][0] / 20
    assert rank_correlation(np.arange(5.0), -(np.arange(5.0) ** 3)) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("case,class\na,good\n", "no column predicted_wrong"),
        ("case,class,predicted_wrong,bound_wrong\na,good,much,1\n", "no number"),
        ("case,class,predicted_wrong,bound_wrong\na,good\n", "too few or too many columns"),
    ],
)
def test_a_spoilt_table_is_told_in_one_line(tmp_path, content, words):
    if content is not None:
        (tmp_path / "quality.csv").write_text(content)
    with pytest.raises(MedsegError, match=words) as caught:
        read_quality(tmp_path / "quality.csv")
    assert "\n" not in str(caught.value) and "--rerun synthesize" in str(caught.value)


def synthesize_settings(tmp_path, profile, *sets):
    given = [f"synthesize.{text}" for text in sets]
    return plan_recipe("segthor_datasetgan", out=tmp_path, profile=profile, sets=given).recipe.settings.synthesize


def test_no_profile_drops_pairs_unless_asked(tmp_path):
    for profile in ("demo", "study", "gpu30", "paper"):
        settings = synthesize_settings(tmp_path, profile)
        assert (settings.dropped, settings.quirk) == (0.0, False)
    asked = synthesize_settings(tmp_path, "demo", "filter=quality", "filter_portion=0.1")
    assert (asked.filter, asked.dropped) == ("quality", 0.1)
    assert synthesize_settings(tmp_path, "demo", "filter=none").dropped == 0.0
    assert synthesize_settings(tmp_path, "paper", "filter_portion=0.1", "quirk=true").quirk


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("quirk=true",), "quirk leaves out 30 pairs at least"),
        (("quirk=true", "filter=quality"), "wants filter: uncertainty"),
        (("quality_folds=1",), "at least 2, or 0"),
        (("filter=best",), "filter"),
        (("filter=none", "filter_portion=0.1"), "by no filter"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path, sets, words):
    with pytest.raises(UsageError, match=words):
        synthesize_settings(tmp_path, "paper", *sets)
