"""Where and how precisely numbers are computed: device, precision, threads, and the name of the processor."""

from __future__ import annotations

import os
import platform
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from medseg_gan.errors import MedsegError

Precision = Literal["fp32", "bf16"]


def resolve_device(name: str) -> str:
    """Turn `auto` into `cuda` where a GPU is usable, else `cpu`.

    Raises:
        MedsegError: `cuda` was asked for and none is usable.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise MedsegError("--device cuda: no usable CUDA GPU was found; use --device cpu or auto")
    return name


def resolve_precision(name: str, device: str) -> Precision:
    """Turn `auto` into bf16 where the hardware computes faster in it, else fp32.

    Processors differ too much to go by a flag: with AMX bf16 convolutions take a fraction of the time, with AVX512-bf16
    alone they take anything from half to twice. So a small convolution is timed in both.
    """
    if name != "auto":
        return "bf16" if name == "bf16" else "fp32"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not {"avx512_bf16", "amx_bf16"} & _cpu_flags():
        return "fp32"
    return "bf16" if _convolution_seconds("bf16") < 0.9 * _convolution_seconds("fp32") else "fp32"


def _convolution_seconds(precision: str) -> float:
    """Shortest of some forward and backward passes of a convolution as our networks have it."""
    image = torch.randn(8, 32, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    convolution = torch.nn.Conv2d(32, 32, 3, padding=1)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    shortest = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        with autocast("cpu", precision):
            convolution(image).float().sum().backward()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def autocast(device: str, precision: str) -> AbstractContextManager[None]:
    """Context in which convolutions and matrix products run in `precision`."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def set_threads(count: int) -> int:
    """Use `count` threads for tensor work (0: all cores); returns the number in force."""
    torch.set_num_threads(count if count > 0 else os.cpu_count() or 1)
    return torch.get_num_threads()


def processor_name() -> str:
    """Processor with the flags our figures depend on, such as `Intel Xeon (2 cores; avx512_bf16)`."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    flags = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in _cpu_flags()]
    return f"{name} ({os.cpu_count()} cores; {' '.join(flags) or 'no vector flags known'})"


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return set()
    for line in info.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()
