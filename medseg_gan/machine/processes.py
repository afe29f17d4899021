"""Several processes, started by torchrun, that train one network together; with one process nothing changes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import ignite.distributed as idist
import torch
from torch import Tensor

from medseg_gan.errors import MedsegError

_PATIENCE = timedelta(days=7)  # the first process may prepare data for hours before the others are needed
_LAST_WORDS = 10.0  # seconds in which the first process says what went wrong and torchrun ends the others


def launched() -> int:
    """Processes that torchrun started, 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first() -> bool:
    """Whether this process works alone or is the first of several: the one that writes files and speaks."""
    return launched() == 1 or os.environ["RANK"] == "0"


def neighbours() -> int:
    """Processes that torchrun started on this machine, to share its cores among; 1 without it."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() > 1 else 1


def rank() -> int:
    """This process's number within a group; 0 outside one."""
    return idist.get_rank()


def count() -> int:
    """Processes of the group; 1 outside one."""
    return idist.get_world_size()


@contextmanager
def group(device: str, word: str = "") -> Iterator[str]:
    """Meet the other processes of torchrun, waiting for them, and part at the end; without torchrun do nothing.

    Outside it every process is alone, so that what only the first one does never waits for the others.

    Args:
        device: `cpu` (gloo) or `cuda` (nccl, one GPU for each process).
        word: what the first process tells the others.

    Yields:
        The first process's word.

    Raises:
        MedsegError: more processes than GPUs.
    """
    if launched() == 1:
        yield word
        return
    if device == "cuda" and neighbours() > torch.cuda.device_count():
        raise MedsegError(
            f"torchrun started {neighbours()} processes on a machine with {torch.cuda.device_count()} GPUs; "
            f"use --nproc_per_node {torch.cuda.device_count()}"
        )
    idist.initialize("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    yield str(idist.broadcast(word or " ", src=0)).strip()
    idist.finalize()  # not after an error: the others may be in the middle of an exchange, torchrun ends them


@contextmanager
def first_speaks() -> Iterator[None]:
    """Let an error that all processes meet be told once: the others wait until torchrun has ended them.

    One that goes wrong alone still says so, a little later.
    """
    try:
        yield
    except KeyboardInterrupt:
        if is_first():
            raise
        raise SystemExit(130) from None
    except Exception:
        if not is_first():
            time.sleep(_LAST_WORDS)
        raise


@torch.no_grad()
def average_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over the group, all in one exchange; alone, leave them as they are."""
    if count() == 1 or not tensors:
        return
    total = idist.all_reduce(torch.cat([tensor.float().flatten() for tensor in tensors]))
    assert isinstance(total, Tensor)
    parts = (total / count()).split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def gathered(tensor: Tensor) -> Tensor:
    """`(N, ...)` tensors of all processes behind one another, in the order of their numbers."""
    if count() == 1:
        return tensor
    found = idist.all_gather(tensor.contiguous())
    assert isinstance(found, Tensor)
    return found
