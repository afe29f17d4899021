"""No painting: real slices come back as latents, and count as often, and cost as much, as they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg_gan.data.slices import SliceRecord, SliceStore, to_hu, write_store
from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import read_json
from medseg_gan.systems.datasetgan.annotation.inversion import (
    choose_slices,
    draw_few,
    example_weights,
    invert,
    invert_labelled_slices,
    inverted_slices,
    mean_image,
    reconstruction_errors,
    teaching_examples,
)
from medseg_gan.systems.datasetgan.comparison import draws_of
from medseg_gan.systems.datasetgan.draws import draw_real_slices, training_set
from medseg_gan.systems.datasetgan.recipe import Annotate, Inversion, Prepare, TrainSegmenters
from medseg_gan.systems.datasetgan.rows import Cost, title
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Sampling, render_again
from medseg_gan.systems.datasetgan.stages import check_annotator
from medseg_gan.systems.plan import plan_recipe
from medseg_gan.training.stylegan2 import load_generator, save_generator
from stylegan2_ada_pytorch import Generator

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, WINDOW, TABLE = 16, (-1000.0, 400.0), lookup_table("paper")
FEW = TrainSegmenters(few_patients=2, few_slices=3, num_real=6, val_slices=3)
PATIENTS = 6
SLICES = 4


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage folder with an untrained generator."""
    torch.manual_seed(0)
    small = {"channel_base": 256, "channel_max": 16}
    G = Generator(8, 0, 8, SIZE, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=small)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.1)
    folder = tmp_path_factory.mktemp("train_gan")
    save_generator(folder / "G_ema.pt", G, images_seen=1)
    return folder


@pytest.fixture
def source(gan: Path) -> ImageSource:
    return ImageSource(FeatureExtractor(load_generator(gan / "G_ema.pt")), Sampling(seed=3, block=4))


def drawn(source: ImageSource, count: int) -> Tensor:
    return source.render(range(count)).images


@pytest.fixture
def store(tmp_path: Path, source: ImageSource) -> SliceStore:
    """Slices that the generator can draw, of labelled and test patients; labels tell them apart."""
    pools = ["labelled"] * (PATIENTS - 1) + ["test"]
    records = [
        SliceRecord(f"p{p}-01", f"p{p}", k, (2.0, 2.0, 3.0), None, pool, True)
        for p, pool in enumerate(pools)
        for k in range(SLICES)
    ]
    hu = to_hu(drawn(source, len(records))[:, 0].numpy(), WINDOW)
    labels = np.random.default_rng(0).integers(0, TABLE.num_classes, hu.shape).astype(np.uint8)
    write_store(tmp_path / "prepare", hu, labels, records, WINDOW, TABLE)
    return SliceStore.open(tmp_path / "prepare")


def as_inputs(gan: Path, store: SliceStore, **folders: Path) -> Any:
    inputs = plan_recipe("segthor_datasetgan").inputs("cpu")
    everything = {"train_gan": gan, "prepare": store.folder, **folders}
    return replace(inputs, folders=everything, seed=7, reads=(FEW, Prepare(workers=1)))


def config(**inversion: Any) -> Annotate:
    return Annotate(
        annotator="inversion", num_images=5, inversion=Inversion(**{"steps": 8, "max_error": 5} | inversion)
    )


def test_slices_together_are_those_one_by_one_and_parts_are_kept(
    tmp_path: Path, gan: Path, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, generator = drawn(source, 3), gan / "G_ema.pt"
    together = invert(tmp_path / "all", source, generator, real, np.arange(3), steps=15, workers=1)
    for k in range(3):
        alone = invert(tmp_path / str(k), source, generator, real[k : k + 1], np.array([k]), steps=15, workers=1)
        torch.testing.assert_close(alone.ws[0], together.ws[k], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(alone.images[0], together.images[k], atol=2e-3, rtol=0)
    monkeypatch.setattr("medseg_gan.systems.datasetgan.annotation.inversion.project", None)  # not called again
    again = invert(tmp_path / "all", source, generator, real, np.arange(3), steps=15, workers=1)
    assert torch.equal(again.ws, together.ws)
    with pytest.raises(TypeError):
        invert(tmp_path / "all", source, generator, real, np.arange(3), steps=16, workers=1)


def test_inversion_finds_what_the_generator_can_draw(tmp_path: Path, gan: Path, source: ImageSource) -> None:
    real = drawn(source, 2)
    found = invert(tmp_path, source, gan / "G_ema.pt", real, np.arange(2), steps=60, workers=1)
    errors = reconstruction_errors(found.images, real, mean_image(source))
    assert (errors.relative < 0.5).all() and found.z.shape == (2, 0)
    itself = reconstruction_errors(real, real, mean_image(source))
    assert itself.relative == pytest.approx([0, 0], abs=1e-6) and itself.mean_difference == pytest.approx([0, 0])
    mean = reconstruction_errors(mean_image(source).clamp(-1, 1).expand_as(real), real, mean_image(source))
    assert mean.relative == pytest.approx([1, 1])


def test_the_stage_keeps_reconstructions_with_their_own_masks(
    tmp_path: Path, gan: Path, source: ImageSource, store: SliceStore
) -> None:
    who = invert_labelled_slices(config(), tmp_path, source, store, as_inputs(gan, store))
    assert (who["kind"], who["real_slices"], who["real_patients"], who["rejected"]) == ("inversion", 5, 2, {})
    chosen, kept = inverted_slices(tmp_path), SliceStore.open(tmp_path / "annotated")
    assert chosen is not None
    np.testing.assert_array_equal(kept.labels, store.labels[chosen])
    assert [record.patient for record in kept.records] == [store.records[k].patient for k in chosen]
    assert {record.pool for record in kept.records} == {"generated"} and (tmp_path / "reconstructions.png").is_file()
    again = render_again(tmp_path / "annotated" / "latents.pt", source)
    assert again.indices.tolist() == chosen.tolist()
    images, maps = source.extractor(again.ws[:1])  # features are those of the stored latent and the stored noise
    torch.testing.assert_close(images.clamp(-1, 1), again.images[:1], atol=1e-5, rtol=0)
    assert sum(part.shape[1] for part in maps) == sum(part.shape[1] for part in again.maps)
    per_slice = read_json(tmp_path / "inversion.json")["errors"]
    assert [item["slice"] for item in per_slice] == chosen.tolist()
    assert all(item["weight"] == 1 and 0 < item["relative"] < 5 for item in per_slice)


def test_a_bad_reconstruction_is_dropped_but_paid_for(
    tmp_path: Path, gan: Path, source: ImageSource, store: SliceStore
) -> None:
    inputs = as_inputs(gan, store)
    invert_labelled_slices(config(), tmp_path / "all", source, store, inputs)
    errors = [item["relative"] for item in read_json(tmp_path / "all" / "inversion.json")["errors"]]
    middle = sorted(errors)[2] + 1e-4
    who = invert_labelled_slices(config(max_error=middle), tmp_path / "some", source, store, inputs)
    assert len(SliceStore.open(tmp_path / "some" / "annotated")) == 3
    assert who["real_slices"] == 5 and sum(who["rejected"].values()) == 2
    with pytest.raises(MedsegError, match=r"all 5 real slices have .*above .*max_error 1e-06 \(0\.\d+ to .*raise"):
        invert_labelled_slices(config(max_error=1e-6), tmp_path / "none", source, store, inputs)


def test_weights_fall_with_the_error() -> None:
    errors = np.array([0.05, 0.1, 0.1, 0.2, 0.9])
    assert example_weights(errors, max_error=0.5, max_repeats=3).tolist() == [2, 1, 1, 1, 0]
    assert example_weights(errors, max_error=0.5, max_repeats=1).tolist() == [1, 1, 1, 1, 0]
    assert example_weights(errors, max_error=1.0, max_repeats=3).tolist() == [2, 1, 1, 1, 1]


def test_heavier_slices_are_repeated_and_the_image_is_the_one_asked_for(
    tmp_path: Path, gan: Path, source: ImageSource, store: SliceStore
) -> None:
    invert_labelled_slices(config(), tmp_path, source, store, as_inputs(gan, store))
    rendered = render_again(tmp_path / "annotated" / "latents.pt", source)
    labels = torch.from_numpy(np.array(SliceStore.open(tmp_path / "annotated").labels))
    same, _ = teaching_examples(tmp_path / "annotated", rendered, labels, store, "reconstruction")
    assert same is rendered
    np.save(tmp_path / "annotated" / "weights.npy", np.array([1, 3, 1, 2, 1]))
    examples, repeated = teaching_examples(tmp_path / "annotated", rendered, labels, store, "real")
    rows = torch.tensor([0, 1, 1, 1, 2, 3, 3, 4])
    assert torch.equal(examples.ws, rendered.ws[rows]) and torch.equal(repeated, labels[rows])
    assert torch.equal(examples.images, store.image_tensor(rendered.indices.numpy())[rows])


def test_chosen_slices_are_the_few_of_labelled_training_patients(store: SliceStore) -> None:
    few = draw_few(FEW, store, seed=7)
    for number in (1, 4, 6):
        chosen = choose_slices(Annotate(num_images=number), FEW, store, seed=7)
        assert len(set(chosen.tolist())) == number and set(chosen) <= set(few)
    assert {store.records[k].pool for k in few} == {"labelled"}
    kept_aside = draw_real_slices(store, seed=7, draw=0, **FEW.model_dump(include=set(DRAWN))).validation
    assert not {store.records[k].patient for k in few} & {store.records[k].patient for k in kept_aside}


DRAWN = ("num_real", "few_patients", "few_slices", "val_slices")


def test_too_few_real_slices_are_refused_in_one_line(store: SliceStore, tmp_path: Path) -> None:
    many = TrainSegmenters(few_patients=20, few_slices=10)
    with pytest.raises(MedsegError, match=r"wants 30 .* give 16 of 4 patients; raise"):
        choose_slices(Annotate(annotator="inversion"), many, store, seed=7)
    records = [SliceRecord("a", "a", 0, (1.0, 1.0, 1.0), None, "gan", False)]
    write_store(tmp_path / "bare", np.zeros((1, 16, 16), np.int16), None, records, WINDOW, TABLE)
    with pytest.raises(MedsegError, match="needs real slices with masks and the labelled pool has none"):
        choose_slices(Annotate(annotator="inversion"), FEW, SliceStore.open(tmp_path / "bare"), seed=7)


def test_inverted_slices_are_paid_for_once_by_every_row_that_uses_the_factory(store: SliceStore) -> None:
    draw = draw_real_slices(store, seed=7, draw=0, **FEW.model_dump(include=set(DRAWN)))
    inverted = choose_slices(Annotate(num_images=4), FEW, store, seed=7)

    def cost(row: str) -> Cost:
        slices = {"synthetic": np.arange(20), "annotated": np.arange(3)}
        return training_set(row, 0, draw, store, stand_in=Cost(), inverted=inverted, **slices).cost

    for row in ("synthetic", "annotated_only"):
        assert (cost(row).real_slices, cost(row).real_patients, cost(row).annotated_synthetic) == (4, 2, 0)
    assert (cost("hybrid").real_slices, cost("hybrid").real_patients) == (6, 2)  # the four are among the six
    assert cost("real30").real_slices == 6 and cost("real30").inverted_slices == 0
    assert "4 inverted real of 2 patients" in title("synthetic", cost("synthetic"))
    assert title("hybrid", cost("hybrid")) == "hybrid: 20 synthetic + 6 real of 2 patients, 4 of them inverted"


def test_every_segmenter_seed_has_the_inverted_patients_as_its_few(
    tmp_path: Path, gan: Path, source: ImageSource, store: SliceStore
) -> None:
    inputs = as_inputs(gan, store, annotate=tmp_path / "annotate")
    apart = draws_of(FEW, store, inputs)
    assert any(not np.array_equal(draw.few, apart[0].few) for draw in apart), "nothing was inverted yet"
    invert_labelled_slices(config(), tmp_path / "annotate", source, store, inputs)
    for before, draw in zip(apart, draws_of(FEW, store, inputs), strict=True):
        np.testing.assert_array_equal(draw.few, apart[0].few)
        np.testing.assert_array_equal(draw.real, before.real)


def test_slices_were_inverted_of_the_few_patients_asked_for_and_other_annotations_do_not_depend_on_them(
    tmp_path: Path,
) -> None:
    """Inverted slices of other patients than the few would cost further labels."""
    for annotator, read in (("inversion", ["few_patients", "few_slices"]), ("person", [])):
        sets = [f"annotate.annotator={annotator}"]
        step = plan_recipe("segthor_datasetgan", out=tmp_path, sets=sets).steps()[2]
        assert list(step.record["reads"].get("train_segmenters", {})) == read


def test_what_cannot_be_inverted_is_refused_before_the_gan_is_trained(gan: Path, store: SliceStore) -> None:
    inputs = as_inputs(gan, store)
    check_annotator(config(), inputs)
    many = replace(inputs, reads=(FEW.model_copy(update={"few_slices": 1}), Prepare(workers=1)))
    with pytest.raises(MedsegError, match="wants 5 real labelled slices"):
        check_annotator(config(), many)
    check_annotator(config(), replace(many, folders={}))  # nothing is prepared yet
