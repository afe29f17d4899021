"""Random streams depend on names and counts alone; checkpoints come back as they were, or say why not."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import latest_checkpoint, load_checkpoint, restore, save_checkpoint
from medseg_gan.machine.seeding import mix_seed, numpy_rng, seed_step, torch_generator


def test_seeds_of_neighbours_differ_and_stay_in_range():
    seeds = {mix_seed(seed, name, step) for seed in range(5) for name in ("gan", "noise") for step in range(50)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, "2") != mix_seed("1", 2) != mix_seed("12")
    assert mix_seed("a", "b") != mix_seed("ab")


def test_seeds_are_the_same_in_every_process():
    assert mix_seed(0, "train_gan", 7) == 8424646933040444750


def test_a_step_draws_the_same_whatever_was_drawn_before():
    def draw():
        seed_step(0, "train", 3)
        return random.random(), np.random.rand(), torch.rand(()).item()

    first = draw()
    torch.rand(9)
    np.random.rand(9)
    random.random()
    assert draw() == first
    seed_step(0, "train", 4)
    assert torch.rand(()).item() != first[2]


def test_streams_of_their_own_leave_the_global_ones_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    a = torch.rand(3, generator=torch_generator(0, "a"))
    b = numpy_rng(0, "a").random(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(a, torch.rand(3, generator=torch_generator(0, "a")))
    assert np.array_equal(b, numpy_rng(0, "a").random(3)) and not np.array_equal(b, numpy_rng(0, "b").random(3))


def model_and_optimizer():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    return model, torch.optim.Adam(model.parameters())


def step(model, optimizer, number):
    seed_step(0, number)
    optimizer.zero_grad()
    model(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()


def test_resumed_training_equals_uninterrupted(tmp_path):
    torch.manual_seed(0)
    model, optimizer = model_and_optimizer()
    for number in range(6):
        step(model, optimizer, number)
        if number == 2:
            save_checkpoint(tmp_path / "checkpoint-3.pt", model=model, optimizer=optimizer, images=24)
    again, again_optimizer = model_and_optimizer()
    rest = restore(tmp_path / "checkpoint-3.pt", model=again, optimizer=again_optimizer)
    assert rest == {"images": 24}
    for number in range(3, 6):
        step(again, again_optimizer, number)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_plain_values_come_back_equal(tmp_path):
    values = {"a": [1, 2.5, None, True, "x"], "b": {"c": torch.arange(4).view(2, 2).T}}
    save_checkpoint(tmp_path / "x.pt", values=values)
    back = load_checkpoint(tmp_path / "x.pt")["values"]
    assert back["a"] == values["a"] and torch.equal(back["b"]["c"], values["b"]["c"])


def test_what_would_need_code_to_load_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint entry a\.f is a function"):
        save_checkpoint(tmp_path / "x.pt", a={"f": test_plain_values_come_back_equal})
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_loaded(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(MedsegError, match="does not exist"):
        load_checkpoint(path)
    save_checkpoint(path, model=torch.nn.Linear(30, 40))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(MedsegError, match="is not a checkpoint of ours or was cut off"):
        load_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(MedsegError, match="is not a checkpoint of ours or was cut off"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(MedsegError, match="holds a list"):
        load_checkpoint(path)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "x.pt")
    with pytest.raises(MedsegError):
        load_checkpoint(tmp_path / "x.pt")
    assert capsys.readouterr().out == ""


def test_a_state_that_does_not_fit_is_said(tmp_path):
    save_checkpoint(tmp_path / "x.pt", G=torch.nn.Linear(2, 3))
    with pytest.raises(MedsegError, match=r"G does not fit .* belongs to other settings"):
        restore(tmp_path / "x.pt", G=torch.nn.Linear(2, 4))
    with pytest.raises(MedsegError, match="has no D; it holds G"):
        restore(tmp_path / "x.pt", D=torch.nn.Linear(2, 3))


def test_latest_checkpoint_counts_and_does_not_sort_names(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for number in (900, 1000, 20):
        save_checkpoint(tmp_path / f"checkpoint-{number}.pt", images=number)
    assert latest_checkpoint(tmp_path).name == "checkpoint-1000.pt"


def test_files_of_a_finished_stage_come_back_by_rerun_and_others_by_the_same_command(tmp_path):
    path = tmp_path / "02-train_gan" / "G_ema.pt"
    save_checkpoint(path, number=1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MedsegError, match=r"was cut off .*; remove it and run again$"):
        load_checkpoint(path)
    (path.parent / "done.json").write_text("{}")
    anew = "train_gan was finished, make it anew with --rerun train_gan$"
    with pytest.raises(MedsegError, match=rf"was cut off .*; {anew}"):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(MedsegError, match=f"does not exist; {anew}"):
        load_checkpoint(path)


def test_equal_checkpoints_are_equal_files(tmp_path):
    """Hashes in manifests are those of the content, whatever the file and its temporary are called."""
    for name in ("one.pt", "other-name.pt"):
        net = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(net.weight, 0.5)
        torch.nn.init.zeros_(net.bias)
        save_checkpoint(tmp_path / name, net=net, step=3)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other-name.pt").read_bytes()
