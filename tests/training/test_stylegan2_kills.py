"""A training killed again and again ends in the state of one that never was."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_stylegan2_training import LOG_KIMG, SMALL, blobs, section

from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.training import stylegan2_step
from medseg_gan.training.engine import read_stats
from medseg_gan.training.stylegan2 import train_stylegan2

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, KILLS = 40, 10
EVERY: dict[str, Any] = {"checkpoint_kimg": 0.012, "sample_kimg": 1.0}  # every third step


def train(folder: Path, die_in: int | None = None, kill: Any = None) -> None:
    """Train; in the `die_in`-th step from here, when the networks have moved and their average has not, call `kill`."""
    settings = section(**EVERY, total_kimg=STEPS * SMALL["batch_size"] / 1000)
    update, calls = stylegan2_step.update_ema, 0

    def update_or_die(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == die_in:
            kill()
        update(*arguments)

    stylegan2_step.update_ema = update_or_die
    try:
        train_stylegan2(settings, blobs(), None, folder, seed=3, log_kimg=LOG_KIMG)
    finally:
        stylegan2_step.update_ema = update


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


def train_and_be_killed(folder: Path, die_in: int) -> None:
    """In a process of its own, with `kill -9`."""
    child = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
torch.set_num_threads(1)
from pathlib import Path
import test_stylegan2_kills as here
here.train(Path({str(folder)!r}), {die_in}, here.die)
"""
    result = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, env=os.environ)
    assert result.returncode == -signal.SIGKILL, result.stderr


def assert_equal(one: Any, other: Any, where: str = "checkpoint") -> None:
    """Same keys, same values, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}.{index}")
    else:
        assert one == other, where


def test_ten_kills_at_random_iterations_leave_the_final_state_bit_equal(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(whole)
    draw = random.Random(20)
    for number in range(KILLS):
        die_in = draw.randint(1, 7)
        if number == KILLS // 2:
            train_and_be_killed(broken, die_in)
        else:
            with pytest.raises(KeyboardInterrupt):
                train(broken, die_in, interrupt)
        assert not (broken / "G_ema.pt").exists()
    train(broken)
    for name in ("G_ema.pt", f"checkpoint-{STEPS * SMALL['batch_size']:09d}.pt"):
        assert_equal(load_checkpoint(whole / name), load_checkpoint(broken / name))
    rows = [[{**row, "img_per_s": 0} for row in read_stats(folder)] for folder in (whole, broken)]
    assert rows[0] == rows[1]
