"""The pickle reader gives what pickle wrote, and refuses, by name, whatever could act."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg_gan.weights.arrays import read_storage, tensor_names
from medseg_gan.weights.pickles import MAX_INSTRUCTIONS, RefusedError, read_pickle


def read(data: bytes) -> Any:
    return read_pickle(io.BytesIO(data), tensor_names(len(data)))


SHARED = [1, 2]
VALUES = [
    None,
    True,
    -1,
    255,
    70_000,
    -(2**70),
    2**1000,
    1.5,
    float("inf"),
    "text",
    "ä" * 300,
    b"bytes",
    b"x" * 70_000,
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    [],
    list(range(3000)),
    {"a": {"b": [1, (2, {"c": None})]}},
    {k: str(k) for k in range(2500)},
    {"a", 1, None},
    frozenset({"a", 1}),
    OrderedDict(b=1, a=2),
    [SHARED, SHARED, {"again": SHARED}],
]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]}")
def test_plain_values_are_what_pickle_wrote(value: Any, protocol: int) -> None:
    found = read(pickle.dumps(value, protocol))
    assert found == value and (type(found) is type(value) or isinstance(value, frozenset))


def test_shared_values_stay_shared() -> None:
    found = read(pickle.dumps([SHARED, SHARED, {"again": SHARED}]))
    assert found[0] is found[1] is found[2]["again"]


TENSORS = [
    torch.arange(6.0).reshape(2, 3),
    torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
    torch.arange(10)[3:7],
    torch.tensor(2.5),
    torch.zeros(0, 4),
    torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    torch.tensor([True, False]),
    torch.arange(5, dtype=torch.uint8),
    torch.randn(3).half(),
    torch.randn(3).bfloat16(),
    torch.randn(3).double(),
    torch.nn.Parameter(torch.randn(2, 2)),
    torch.nn.Parameter(torch.randn(2, 2), requires_grad=False),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda tensor: f"{str(tensor.dtype)[6:]}-{list(tensor.shape)}")
def test_tensors_are_equal_to_the_last_bit(tensor: torch.Tensor) -> None:
    found = read(pickle.dumps(tensor))
    assert found.dtype == tensor.dtype and torch.equal(found, tensor) and not found.requires_grad


def test_numbers_of_numpy_become_plain_ones() -> None:
    for value in (np.float64(0.5), np.float32(0.5), np.int64(-7), np.bool_(True)):
        found = read(pickle.dumps(value))
        assert found == value and type(found) in (float, int, bool)


class Acts:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class SetsState:
    """Pickles with a state for BUILD."""

    def __init__(self, target: Any, state: Any) -> None:
        self.reduced = (*target, state)

    def __reduce__(self) -> Any:
        return self.reduced


def attacks(canary: Path) -> dict[str, tuple[Any, str]]:
    touch = f"touch {canary}"
    python = f"open({str(canary)!r}, 'w').close()"
    inner = pickle.dumps(Acts(os.system, touch))
    return {
        "os.system": (Acts(os.system, touch), "posix.system|nt.system"),
        "eval": (Acts(builtins.eval, python), r"\.eval'"),
        "exec": (Acts(builtins.exec, python), r"\.exec'"),
        "getattr": (Acts(getattr, "a", "upper"), r"\.getattr'"),
        "import": (Acts(builtins.__import__, "os"), r"\.__import__'"),
        "subprocess": (Acts(subprocess.Popen, ["touch", str(canary)]), r"\.Popen'"),
        "nested pickle": (Acts(pickle.loads, inner), r"ickle\.loads'"),
        "pickle in a storage": (Acts(torch.storage._load_from_bytes, inner), "posix.system|nt.system"),
        "pickle in a dictionary": ({"a": [Acts(os.system, touch)]}, "posix.system|nt.system"),
        "torch.load": (Acts(torch.load, io.BytesIO), "torch.serialization.load"),
        "torch.hub": (Acts(torch.hub.load, "a", "b"), "torch.hub.load"),
        "numpy.load": (Acts(np.load, "a"), "numpy"),
        "bytearray": (Acts(bytearray, 2**40), r"\.bytearray'"),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", attacks(Path("canary")))
def test_what_acts_is_refused_by_name_and_does_not_act(tmp_path: Path, name: str, protocol: int) -> None:
    canary = tmp_path / "canary"
    value, named = attacks(canary)[name]
    with pytest.raises(RefusedError, match=named):
        read(pickle.dumps(value, protocol))
    assert not canary.exists()


def test_the_attacks_of_these_tests_do_act_on_pickle(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("os.system", "eval", "exec", "nested pickle"):
        value, _ = attacks(canary)[name]
        pickle.loads(pickle.dumps(value))
        assert canary.exists(), name
        canary.unlink()


def test_no_module_is_imported_for_a_name() -> None:
    before = set(sys.modules)
    with pytest.raises(RefusedError, match=r"antigravity\.fly"):
        read(b"\x80\x02cantigravity\nfly\n.")
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x80\x02(ios\nsystem\nX\x01\x00\x00\x00a.", "os.system"),  # INST
        (b"\x80\x02(cposix\nsystem\nX\x01\x00\x00\x00ao.", "posix.system"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02P1\n.", "PERSID"),
        (b"\x80\x02K\x01Q.", "storages outside"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02X\x01\x00\x00\x00a)R.", "not a known class"),
        (b"\x80\x02ctorch\nTensor\n)R.", "only a name"),
        (b"\x80\x02ctorch\nSize\n(K\x01K\x02tR.", "wrong kind"),
        (b"\x80\x02K\x01}b.", "gives a state to a int"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "gives a state to a Name"),
        (b"\x80\x02}(K\x01)K\x02u.", "damaged"),
        (b"\x80\x02}])s.", "list as key"),
        (b"\x80\x02})\x85\x85])s.", "damaged|key"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x020.", "damaged"),
        (b"\x80\x04\x8c\x01aK\x01\x93.", "damaged"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc", "damaged"),  # bytes of a giant announced size
        (b"\x80\x05\x96" + struct.pack("<Q", 2**45) + b"abc", "damaged"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**45) + b"abc", "damaged"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"abc", "damaged"),
        (b"\x80\x02L" + b"9" * 100_000 + b"L\n.", "damaged"),
        (b"", "damaged"),
        (b"\x80", "damaged"),
        (b"hello\n", "damaged"),
    ],
)
def test_damaged_and_rare_pickles_are_refused(data: bytes, match: str) -> None:
    with pytest.raises(RefusedError, match=match):
        read(data)


def test_cut_off_pickles_are_refused() -> None:
    whole = pickle.dumps({"a": torch.arange(4.0), "b": [1.5, "text"]})
    for length in range(len(whole) - 1):
        with pytest.raises(RefusedError):
            read(whole[:length])


def test_a_giant_memo_index_takes_no_memory() -> None:
    assert read(b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b"j" + struct.pack("<I", 2**32 - 1) + b".") == 1


def test_a_file_of_nothing_but_containers_is_refused() -> None:
    with pytest.raises(RefusedError, match="instructions"):
        read(b"\x80\x02" + b"}" * (MAX_INSTRUCTIONS + 1))


def test_deep_nesting_does_no_harm() -> None:
    depth = 100_000
    for data in (b"\x80\x02)" + b"\x85" * depth + b".", b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."):
        found = read(data)
        for _ in range(depth - 1):
            (found,) = found
    with pytest.raises(RefusedError, match="key"):  # hashing it would overflow Python's stack
        read(b"\x80\x02})" + b"\x85" * depth + b"K\x01s.")


def storage(count: int = 4) -> bytes:
    """A storage as torch writes it into a pickle."""
    function, arguments = torch.arange(float(count))._typed_storage().__reduce__()
    assert function is torch.storage._load_from_bytes
    return arguments[0]


def test_a_storage_is_read_and_nothing_else_in_its_place() -> None:
    whole = storage()
    assert torch.equal(read_storage(whole), torch.arange(4.0))
    for length in range(len(whole) - 1):
        with pytest.raises((RefusedError, struct.error)):
            read_storage(whole[:length])
    with pytest.raises(RefusedError, match="holds"):
        read_storage(whole + b"more")
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    with pytest.raises(RefusedError, match="zip archive"):
        read_storage(buffer.getvalue())
    buffer = io.BytesIO()
    torch.save([1, 2], buffer, _use_new_zipfile_serialization=False)
    with pytest.raises(RefusedError, match="more than numbers"):
        read_storage(buffer.getvalue())
    with pytest.raises(RefusedError, match="not made of bytes"):
        read_storage("text")


def test_announced_sizes_must_be_those_of_the_bytes() -> None:
    whole = storage(7)
    assert whole.count(b"K\x07") == 1  # the count in the pickle
    for giant in (b"K\x08", b"\x8a\x05\x00\x00\x00\x00\x40", b"\x8a\x09" + b"\xff" * 8 + b"\x00"):
        with pytest.raises(RefusedError):
            read_storage(whole.replace(b"K\x07", giant))


@pytest.mark.parametrize(
    ("offset", "size", "stride", "match"),
    [
        (0, (5,), (1,), "4 numbers only"),
        (1, (4,), (1,), "4 numbers only"),
        (0, (2,), (4,), "4 numbers only"),
        (0, (10**6, 10**6), (0, 0), "4 numbers only"),
        (0, (2**40, 2**40, 0), (1, 1, 1), "wrong kind"),
        (-1, (2,), (1,), "wrong kind"),
        (0, (-2,), (1,), "wrong kind"),
        (0, (2,), (1, 1), "wrong kind"),
        (0, (1,) * 50, (1,) * 50, "wrong kind"),
        (0, (True,), (1,), "wrong kind"),
    ],
)
def test_views_reach_only_into_their_storage(offset: int, size: Any, stride: Any, match: str) -> None:
    flat = torch.arange(4.0)._typed_storage()
    data = pickle.dumps(Acts(torch._utils._rebuild_tensor_v2, flat, offset, size, stride, False, OrderedDict()))
    with pytest.raises(RefusedError, match=match):
        read(data)


def test_many_views_of_one_storage_are_no_more_than_the_file() -> None:
    flat = torch.arange(4000.0)._typed_storage()
    view = (torch._utils._rebuild_tensor_v2, flat, 0, (4000,), (1,), False, None)
    read(pickle.dumps([Acts(*view)]))
    with pytest.raises(RefusedError, match="claim more bytes"):
        read(pickle.dumps([Acts(*view) for _ in range(50)]))


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(RefusedError, match="wanted numbers"):
        read(pickle.dumps(np.array([{}, []], dtype=object)))
    with pytest.raises(RefusedError, match="does not have as many"):
        read(pickle.dumps(np.zeros(3)).replace(b"K\x03\x85", b"K\x7f\x85"))


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_never_does_more_than_refuse(seed: int) -> None:
    whole = pickle.dumps(
        {"a": torch.arange(4.0), "b": [1.5, np.float64(2), {"text"}], "c": np.arange(3.0)}, 2 + seed % 4
    )
    rng = np.random.default_rng(seed)
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        try:
            read(bytes(data))
        except RefusedError as error:
            assert "\n" not in str(error)
