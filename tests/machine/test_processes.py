"""Processes of torchrun: alone nothing happens; what two do is tested with the training they share."""

from __future__ import annotations

import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.machine import processes
from medseg_gan.training.log import Progress, say


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """This process as the second of two; returns the seconds it slept."""
    slept: list[float] = []
    names = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    return slept


def test_alone_there_is_nobody_to_wait_for() -> None:
    with processes.group("cpu", "word") as word:
        assert word == "word"
        assert (processes.launched(), processes.count(), processes.rank(), processes.neighbours()) == (1, 1, 0, 1)
    tensor = torch.rand(3, generator=torch.Generator().manual_seed(0))
    before = tensor.clone()
    processes.average_([tensor])
    assert torch.equal(tensor, before) and processes.gathered(tensor) is tensor
    assert processes.is_first()


def test_only_the_first_speaks(second: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    say("twice the same")
    with Progress(2, "training", line_every=0) as bar:
        bar.update()
    captured = capsys.readouterr()
    assert not captured.out and not captured.err
    with pytest.raises(MedsegError, match="no data"), processes.first_speaks():
        raise MedsegError("no data")
    assert second == [10]  # by then the first has said it, and torchrun has ended this process
    with pytest.raises(SystemExit), processes.first_speaks():
        raise KeyboardInterrupt


def test_the_first_does_not_wait(second: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(MedsegError), processes.first_speaks():
        raise MedsegError("no data")
    assert not second


def test_more_processes_than_gpus_is_one_line(second: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    told = pytest.raises(MedsegError, match="2 processes on a machine with 1 GPUs; use --nproc_per_node 1")
    with told, processes.group("cuda"):
        pass
