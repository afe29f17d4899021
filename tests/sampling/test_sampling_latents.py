"""Seeds, truncation, mixing and ways between seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import generator, weight_file

from medseg_gan.errors import UsageError
from medseg_gan.sampling.drawing import draw
from medseg_gan.sampling.latents import (
    Drawing,
    as_seeds,
    check_drawing,
    mix_styles,
    parse_numbers,
    seed_to_ws,
    seed_to_z,
    slerp,
    truncate,
    way_between,
)
from medseg_gan.sampling.source import Source
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Sampling


def source_of(channels: int = 1, c_dim: int = 0, run_seed: int = 0) -> Source:
    return Source(Path("G.pt"), generator(channels, c_dim), None, "0" * 64, "cpu", None, run_seed)


def test_numbers_keep_their_order_and_come_once() -> None:
    assert parse_numbers("5, 0-2,1,7 - 8", "--seeds", 99) == [5, 0, 1, 2, 7, 8]
    assert as_seeds([3, 1]) == [3, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing"),
        ("1,,2", "nothing"),
        ("a", "'a' is no number"),
        ("-3", "'-3' is no number"),
        ("9-3", "runs backwards; wanted 3-9"),
        ("1-100", "100 is too large; wanted 0 to 99"),
        ("²", "is no number"),
    ],
)
def test_what_is_no_number_is_one_line(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_numbers(text, "--seeds", 99)


def test_no_list_of_seeds_exhausts_the_memory() -> None:
    with pytest.raises(UsageError, match="more than 1000000 numbers"):
        as_seeds("0-4294967295")
    with pytest.raises(UsageError, match="too large"):
        as_seeds("4294967296")


def test_nvidia_s_convention_is_numpy_s_old_generator() -> None:
    z = seed_to_z(source_of(), 85, "nvidia")
    assert np.array_equal(z.numpy(), np.random.RandomState(85).randn(1, 8).astype(np.float32))


def test_our_convention_is_that_of_the_label_factory() -> None:
    source = source_of(run_seed=7)
    factory = ImageSource(FeatureExtractor(generator()), Sampling(seed=source.latent_seed, psi=0.7))
    z, ws = factory.latents(range(2_000_000, 2_000_002))
    half = source.G.num_ws // 2
    drawing = Drawing(psi=0.7, psi_layers=half, seed_convention="ours")
    assert torch.equal(seed_to_z(source, 2_000_001, "ours"), z[1:])
    torch.testing.assert_close(seed_to_ws(source, 2_000_001, drawing), ws[1:])


@pytest.mark.parametrize("layers", [None, 0, 3])
def test_truncation_is_the_mapping_network_s_own(layers: int | None) -> None:
    source = source_of()
    drawing = Drawing(psi=0.6, psi_layers=layers)
    z = seed_to_z(source, 4, "nvidia")
    assert torch.equal(seed_to_ws(source, 4, drawing), source.G.mapping(z, None, 0.6, layers))


@pytest.mark.parametrize(("channels", "c_dim"), [(1, 0), (3, 2)])
def test_psi_0_is_the_mean_picture_for_every_seed(channels: int, c_dim: int) -> None:
    source = source_of(channels, c_dim)
    drawing = Drawing(psi=0, class_id=1 if c_dim else None)
    mean = source.G.synthesis(source.G.mapping.w_avg.expand(1, source.G.num_ws, -1), noise_mode="const")
    for seed in (0, 1, 99):
        assert torch.equal(draw(source, seed_to_ws(source, seed, drawing)), mean)


def test_a_class_changes_the_picture_of_a_seed() -> None:
    source = source_of(c_dim=2)
    one, other = (draw(source, seed_to_ws(source, 0, Drawing(class_id=k))) for k in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("c_dim", "drawing", "told"),
    [
        (2, {}, "draws 2 classes; choose one with --class, 0 to 1"),
        (2, {"class_id": 2}, "has the classes 0 to 1"),
        (0, {"class_id": 0}, "has no classes"),
        (0, {"psi": float("nan")}, "--psi nan"),
        (0, {"psi_layers": 99}, "--psi-layers 99"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(c_dim: int, drawing: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_drawing(source_of(c_dim=c_dim), Drawing(**drawing))


def test_mixing_no_layer_is_the_row_and_all_layers_the_column() -> None:
    source = source_of()
    row, column = (seed_to_ws(source, seed, Drawing()) for seed in (1, 2))
    layers = range(source.G.num_ws)
    assert torch.equal(mix_styles(row, column, []), row)
    assert torch.equal(mix_styles(row, column, layers), column)
    mixed = mix_styles(row, column, [2, 3])
    assert torch.equal(mixed[:, 2:4], column[:, 2:4])
    assert torch.equal(mixed[:, [0, 1, 4]], row[:, [0, 1, 4]])


@pytest.mark.parametrize("way", ["w", "z"])
@pytest.mark.parametrize("loop", [False, True])
def test_a_way_passes_exactly_through_its_seeds(way: Any, loop: bool) -> None:
    source, drawing, seeds = source_of(), Drawing(psi=0.8), [3, 9, 4]
    steps = list(way_between(source, seeds, 5, loop, way, drawing))
    assert len(steps) == (15 if loop else 11)
    for k, seed in enumerate(seeds):
        assert torch.equal(steps[5 * k], seed_to_ws(source, seed, drawing))
    jumps = [(b - a).norm().item() for a, b in zip(steps, steps[1:] + steps[:1] * loop, strict=False)]
    ends = [seed_to_ws(source, seed, drawing) for seed in seeds]
    assert max(jumps) < 0.8 * min((a - b).norm().item() for a in ends for b in ends if a is not b)


def test_great_circles_keep_directions_and_ends() -> None:
    start, end = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    half = slerp(start, end, 0.5)
    torch.testing.assert_close(half, torch.tensor([[3.0, 1.0]]) * 0.5**0.5)
    assert torch.equal(slerp(start, end, 0), start)
    torch.testing.assert_close(slerp(start, 2 * start, 0.5), 1.5 * start)


def test_random_noise_belongs_to_its_seed_and_disturbs_nobody() -> None:
    source = source_of()
    ws = seed_to_ws(source, 0, Drawing())
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    one = draw(source, ws, "random", 5)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(one, draw(source, ws, "random", 5))
    assert not torch.equal(one, draw(source, ws, "random", 6))
    none = draw(source, ws, "none")
    assert not torch.equal(none, draw(source, ws, "const"))
    silent = {name: torch.zeros_like(v) for name, v in source.G.synthesis.named_buffers() if "noise_const" in name}
    torch.testing.assert_close(draw(source, ws, "const", noise_maps=silent), none)


def test_truncating_stored_latents_is_truncating_seeds(tmp_path: Path) -> None:
    source = source_of()
    ws = seed_to_ws(source, 6, Drawing())
    assert torch.equal(truncate(source, ws, Drawing(psi=0.3)), seed_to_ws(source, 6, Drawing(psi=0.3)))
    assert weight_file(tmp_path).is_file()
