"""StyleGAN2-ADA trained by two processes of torchrun, on the CPU with gloo."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from stylegan2_in_two import GROUPS, LOG_KIMG, SECTION, SEED

from medseg_gan.data.sampler import PatientBalancedSampler
from medseg_gan.errors import MedsegError
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.training.engine import read_stats
from medseg_gan.training.stylegan2 import load_generator, train_stylegan2

SCRIPT = Path(__file__).with_name("stylegan2_in_two.py")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    return folder


def state(out: Path, name: str, process: int) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(out / f"{name}-{process}.pt", weights_only=True)
    return found


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Equal to the last bit, all the way down."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert_equal(dict(enumerate(one)), dict(enumerate(other)), where)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def shared(found: dict[str, Any]) -> dict[str, Any]:
    """All but what a process does on its own."""
    return {name: item for name, item in found.items() if name not in ("read", "drawn")}


def test_both_processes_hold_the_same_state(out: Path) -> None:
    first, second = (shared(state(out, "whole", process)) for process in (0, 1))
    assert_equal(first, second)
    assert first["ada"]["p"] > 0 and first["G"]["mapping.w_avg"].abs().sum() > 0


def test_they_share_every_batch_in_the_order_one_process_would_see(out: Path) -> None:
    first, second = (state(out, "whole", process)["read"] for process in (0, 1))
    together = [index for pair in zip(first, second, strict=True) for index in pair]
    stream = iter(PatientBalancedSampler(GROUPS, mix_seed(SEED, "order")))
    assert together[:48] == list(islice(stream, 48))


def test_they_draw_different_latents(out: Path) -> None:
    first, second = (state(out, "whole", process)["drawn"] for process in (0, 1))
    assert len(first) == len(second) and not set(first) & set(second)


def test_images_are_counted_over_both(out: Path) -> None:
    assert read_stats(out / "whole")[-1]["images"] == 48
    assert torch.load(out / "whole" / "G_ema.pt", weights_only=True)["images_seen"] == 48


def test_interrupted_and_resumed_they_end_bit_equal(out: Path) -> None:
    for process in (0, 1):
        assert_equal(shared(state(out, "whole", process)), shared(state(out, "broken", process)))
    for one, other in zip(read_stats(out / "whole"), read_stats(out / "broken"), strict=True):
        assert one | {"img_per_s": 0} == other | {"img_per_s": 0}
    whole, broken = (torch.load(out / name / "best.pt", weights_only=True) for name in ("whole", "broken"))
    assert_equal(whole, broken)


def test_the_first_process_alone_writes(out: Path) -> None:
    rows = [(row["iteration"], *sorted(row)) for row in read_stats(out / "whole")]
    assert len(rows) == len(set(rows))
    assert len(list((out / "whole" / "tensorboard").iterdir())) == 1


def test_one_process_goes_on_with_what_two_began(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = out / "whole" / "checkpoint-000000040.pt"
    (tmp_path / checkpoint.name).write_bytes(checkpoint.read_bytes())
    images = torch.stack([torch.full((1, 16, 16), k / 12) for k in range(12)])
    train_stylegan2(SECTION, images, GROUPS, tmp_path, seed=SEED, log_kimg=LOG_KIMG)
    assert "goes on in 1 processes instead of 2" in capsys.readouterr().err
    assert load_generator(tmp_path / "G_ema.pt").img_resolution == 16


def test_processes_outside_a_group_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MedsegError, match=r"inside processes\.group"):
        train_stylegan2(SECTION, torch.zeros(12, 1, 16, 16), None, tmp_path, seed=SEED)
