"""A pickle reader that cannot call anything: a small stack machine with a list of allowed names."""

from __future__ import annotations

import io
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_INSTRUCTIONS = 1_000_000
"""A published 1024 x 1024 file has some tens of thousands; a file of nothing but `{` would fill the memory."""

_KEYS = (str, bytes, int, float, bool, type(None))  # hashing nested tuples could overflow the stack


class RefusedError(ValueError):
    """What a file holds that is not read; the caller adds the file's name."""


@dataclass(frozen=True)
class Name:
    """A class or function mentioned in a pickle. Nothing is imported: `stand_in` is ours, None for a mere mention."""

    path: str
    stand_in: Callable[..., Any] | None


class Buildable:
    """A stand-in that takes a pickled state."""

    def build(self, state: Any) -> None:
        """Take the state."""
        raise NotImplementedError


def read_pickle(
    stream: io.BytesIO,
    names: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any] | None = None,
    explain: Callable[[str], str] = lambda path: "",
) -> Any:
    """Read one pickle.

    Containers, numbers and texts become themselves. A class or function is looked up in `names` by its dotted path and
    never imported; calling it calls our stand-in. Python's own unpickler, which can import and call, is not used.

    Args:
        stream: at the first byte of a pickle; left behind its last one.
        names: every class and function that may be mentioned, with our stand-in (None: may be mentioned, not called).
        persistent: resolves persistent ids; None: there are none.
        explain: adds to the message about a name that is refused.

    Returns:
        The value.

    Raises:
        RefusedError: a name that is not in `names`, an instruction no such file needs, or a damaged file.
    """
    machine = _Machine(names, persistent, explain)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_INSTRUCTIONS:
                raise RefusedError(f"more than {MAX_INSTRUCTIONS} instructions; no network needs as many")
            if opcode.name == "STOP":
                break
            machine.run(opcode.name, argument)
        return machine.pop()
    except RefusedError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, struct.error, EOFError, OverflowError, MemoryError) as error:
        raise RefusedError("it is damaged or was cut off; fetch it again") from error


class _Machine:
    """The stack, the memo, and what each instruction does with them."""

    def __init__(
        self,
        names: Mapping[str, Callable[..., Any] | None],
        persistent: Callable[[Any], Any] | None,
        explain: Callable[[str], str],
    ) -> None:
        self.names, self.persistent, self.explain = names, persistent, explain
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name == "INST":
            self.name(argument)  # refuses it by name
            raise RefusedError("the instruction INST, which no network file needs")
        else:
            raise RefusedError(f"the instruction {name}, which no network file needs")

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError("nothing above the mark")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """The container below what was just popped."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise TypeError("another container was wanted")
        return value

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def name(self, path: str) -> Name:
        module, _, attribute = path.partition(" ")
        path = f"{module}.{attribute}"
        if path not in self.names:
            raise RefusedError(
                f"it mentions {path!r:.200}, which is not on the list of what a network needs"
                f"{self.explain(path)}; nothing was executed"
            )
        return Name(path, self.names[path])

    def call(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Name) or not isinstance(arguments, tuple):
            raise RefusedError("it calls something that is not a known class or function; nothing was executed")
        self.stack.append(call_stand_in(target, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Buildable):
            target.build(state)
        elif not isinstance(target, dict):  # attributes of a dictionary (`_metadata`) are not needed
            raise RefusedError(f"it gives a state to a {type(target).__name__}; nothing was executed")

    def persist(self) -> None:
        if self.persistent is None:
            raise RefusedError("it refers to storages outside of the pickle; wanted a file that holds its tensors")
        self.stack.append(self.persistent(self.pop()))


def call_stand_in(target: Name, arguments: tuple[Any, ...]) -> Any:
    """Let our stand-in answer a call.

    Raises:
        RefusedError: the name may be mentioned, not called, or the arguments are not such a call's.
    """
    if target.stand_in is None:
        raise RefusedError(f"it calls {target.path}, which is only a name in such files; nothing was executed")
    try:
        return target.stand_in(*arguments)
    except RefusedError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError, KeyError, OverflowError, RuntimeError) as error:
        raise RefusedError(f"it calls {target.path} with arguments of the wrong kind") from error


def _key(value: Any) -> Any:
    if not isinstance(value, _KEYS):
        raise RefusedError(f"a dictionary or set has a {type(value).__name__} as key, wanted text or a number")
    return value


def _add(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _add_to_set(machine: _Machine, items: list[Any]) -> None:
    machine.top(set).update(_key(item) for item in items)


def _dictionary(items: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def action(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return action


def _stack_global(machine: _Machine, _: Any) -> None:
    attribute, module = machine.pop(), machine.pop()
    if not isinstance(attribute, str) or not isinstance(module, str):
        raise TypeError("a name is not text")
    machine.stack.append(machine.name(f"{module} {attribute}"))


def _pop(machine: _Machine, _: Any) -> None:
    if machine.marks and len(machine.stack) == machine.marks[-1]:
        machine.marks.pop()  # a mark lies on the stack like a value
    else:
        machine.stack.pop()


def _pop_to_mark(machine: _Machine, _: Any) -> None:
    machine.pop_mark()


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _frozen_set(items: list[Any]) -> frozenset[Any]:
    return frozenset(_key(item) for item in items)


_IGNORED = {"PROTO", "FRAME"}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": _pop,
    "POP_MARK": _pop_to_mark,
    "BYTEARRAY8": lambda m, data: m.stack.append(bytes(data)),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "DICT": lambda m, _: m.stack.append(_dictionary(m.pop_mark())),
    "FROZENSET": lambda m, _: m.stack.append(_frozen_set(m.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda m, _: _add(m, [m.pop()]),
    "APPENDS": lambda m, _: _add(m, m.pop_mark()),
    "ADDITEMS": lambda m, _: _add_to_set(m, m.pop_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "GLOBAL": lambda m, path: m.stack.append(m.name(path)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persist(),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, at: m.memo.__setitem__(at, m.stack[-1])),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, at: m.stack.append(m.memo[at])),
}


def ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """Stand-in of `collections.OrderedDict`: empty, or from a list of pairs."""
    return OrderedDict((_key(key), value) for key, value in pairs)


def plain_set(items: Any = ()) -> set[Any]:
    """Stand-in of `builtins.set`."""
    return {_key(item) for item in items}
