"""The factory gives the same pairs however it is asked, and goes on where it was interrupted."""

import numpy as np
import pytest
import torch

from medseg_gan.data.slices import SliceStore, to_hu
from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.factory import LabelFactory, num_generated, write_pairs
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter
from medseg_gan.systems.datasetgan.interpreter.vote import image_score, keep_certain
from medseg_gan.systems.datasetgan.samples.images import Sampling
from stylegan2_ada_pytorch import Generator

WINDOW, SPACING, TABLE = (-1000.0, 400.0), (5.0, 5.0, 3.0), lookup_table("lungs")
STORE = {"window": WINDOW, "table": TABLE, "spacing": SPACING}


def build_factory(block=4, seed=1, device="cpu"):
    torch.manual_seed(0)
    G = Generator(
        8, 0, 8, 16, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs={"channel_base": 256, "channel_max": 16}
    )
    members = [PixelClassifier(96, (8, 4), 3) for _ in range(3)]
    return LabelFactory(G, Interpreter(members), Sampling(seed=seed, psi=1.0, block=block), device)


def equal(pairs, others):
    return all(
        torch.equal(getattr(pairs, name), getattr(others, name))
        for name in ("images", "labels", "uncertainty", "scores")
    )


def test_pairs_do_not_depend_on_how_they_are_asked_for():
    factory = build_factory()
    whole = factory.label(range(11))
    single = [factory.label(range(k, k + 1)) for k in range(11)]
    for name in ("images", "labels", "uncertainty", "scores"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(pairs, name) for pairs in single]))
    assert equal(
        build_factory().label(np.array([10, 3])), type(whole)(*(getattr(whole, n)[[10, 3]] for n in vars(whole)))
    )


def test_pairs_have_the_promised_shapes_and_ranges():
    pairs = build_factory().label(range(5))
    assert pairs.images.shape == (5, 1, 16, 16) and pairs.images.abs().max() <= 1
    assert pairs.labels.shape == (5, 16, 16) and pairs.labels.dtype == torch.uint8 and pairs.labels.max() < 3
    assert (pairs.uncertainty >= 0).all() and (pairs.uncertainty <= np.log(3) + 1e-6).all()
    assert torch.equal(pairs.scores, image_score(pairs.uncertainty))


@pytest.mark.parametrize("indices", [[-1], [3, -2], range(-1, 2)])
def test_an_index_below_0_is_refused(indices):
    with pytest.raises(MedsegError, match=r"generated pair -\d was asked for; sample indices begin at 0"):
        build_factory().label(np.array(indices))


def test_the_store_holds_the_pairs(tmp_path):
    factory = build_factory()
    indices = range(3_000_000, 3_000_010)
    store = write_pairs(tmp_path, factory, indices, **STORE)
    pairs = factory.label(indices)
    np.testing.assert_array_equal(store.images, to_hu(pairs.images[:, 0].numpy(), WINDOW))
    np.testing.assert_array_equal(store.labels, pairs.labels.numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), pairs.scores.numpy())
    assert np.load(tmp_path / "uncertainty.npy").dtype == np.float16
    assert np.load(tmp_path / "indices.npy").tolist() == list(indices)
    assert store.patients("generated") == ["generated"]
    assert store.records[3].case == "generated-0003000003" and store.records[3].spacing == SPACING
    assert not (tmp_path / "shards").exists()


def test_the_filter_leaves_out_exactly_the_most_uncertain(tmp_path):
    factory = build_factory()
    write_pairs(tmp_path, factory, range(20), **STORE, drop_uncertain=0.25)
    kept = keep_certain(factory.label(range(20)).scores.numpy(), 0.25)
    assert len(kept) == 15
    np.testing.assert_array_equal(np.load(tmp_path / "indices.npy"), kept)
    assert len(SliceStore.open(tmp_path)) == 15


@pytest.mark.parametrize(("num_pairs", "portion"), [(1500, 0.1), (1500, 0.0), (7, 0.5), (1, 0.9)])
def test_enough_pairs_are_generated_for_the_filter(num_pairs, portion):
    generated = num_generated(num_pairs, portion)
    assert len(keep_certain(np.arange(float(generated)), portion)) == num_pairs


def test_an_interrupted_store_goes_on_and_equals_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg_gan.systems.datasetgan.factory.SHARD_BLOCKS", 1)
    write_pairs(tmp_path / "whole", build_factory(), range(2, 14), **STORE)
    done = []

    def interrupt(count):
        done.append(count)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(tmp_path / "cut", build_factory(), range(2, 14), **STORE, on_done=interrupt)
    assert not (tmp_path / "cut" / "cases.json").exists()
    asked = []
    factory = build_factory()
    monkeypatch.setattr(factory, "label", lambda part, label=factory.label: asked.append(part) or label(part))
    write_pairs(tmp_path / "cut", factory, range(2, 14), **STORE)
    assert asked == [range(10, 14)]
    for name in ("images.npy", "labels.npy", "scores.npy", "uncertainty.npy", "indices.npy", "cases.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    asked.clear()
    write_pairs(tmp_path / "cut", factory, range(2, 14), **STORE)
    assert asked == []


def test_pairs_of_other_settings_are_refused(tmp_path):
    write_pairs(tmp_path, build_factory(), range(4), **STORE)
    with pytest.raises(MedsegError, match="another generator, interpreter or other settings"):
        write_pairs(tmp_path, build_factory(seed=2), range(4), **STORE)
