"""Tables of label names that a release keeps in pickled files, read without unpickling.

A pickle is a programme. This walks through its instructions, follows those that build numbers,
text, tuples, lists and dictionaries, and runs none: what the programme would import or call is
only noted. It is accepted if all it asks for is one array that holds one dictionary.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from neuroigc._files import read_json, reading
from neuroigc._validation import InputError

__all__ = ["read_mapping"]

# What numpy asks for to rebuild an array of objects.
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
LITERALS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
CONSTANTS = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINBYTES",
    "SHORT_BINBYTES",
}
# Names of a few regions take a few hundred.
MOST_BYTES = 2**20
_MARK = object()


class _Noted:
    """Something the programme names or would build: kept as a note, never made."""

    def __init__(self, name: tuple[str, str] | None = None) -> None:
        self.name = name
        self.state: Any = None


class _RefusedError(Exception):
    pass


def read_mapping(folder: Path, class_name: str) -> dict[int, str]:
    """Read ``mapping_<class>.json`` or, if there is none, ``mapping_<class>.npy``.

    Raises
    ------
    InputError
        If neither is there, or it holds anything but names of integer labels.
    """
    path = folder / f"mapping_{class_name}.json"
    if path.is_file():
        names = read_json(path, "names of labels")
        with reading(path, "names of labels", fix=""):
            mapping = {int(key): name for key, name in names.items()}
    else:
        path = path.with_suffix(".npy")
        if not path.is_file():
            raise InputError(
                str(path.with_suffix("")), expected="a .json or .npy file", got="neither"
            )
        with reading(
            path,
            "one dictionary of int to str and nothing to execute",
            fix=f"Write the names into {path.with_suffix('.json').name} instead.",
            also=(_RefusedError,),
        ):
            mapping = _read_pickled_dict(path)
    for key, name in mapping.items():
        if type(key) is not int or type(name) is not str:
            # Not printed whole: what holds itself twice, and that again, would take for ever.
            got = f"({key!r}, {repr(name) if isinstance(name, (str, int)) else type(name)})"
            raise InputError(str(path), expected="names of integer labels", got=got)
    return mapping


def _read_pickled_dict(path: Path) -> dict[Any, Any]:
    if path.stat().st_size > MOST_BYTES:
        raise _RefusedError(f"more than {MOST_BYTES} bytes")
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise _RefusedError(f"npy version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if shape != () or not dtype.hasobject:
            raise _RefusedError(f"an array of {dtype} of shape {shape}")
        array = _follow(file.read())
    # The state of an array: version, shape, dtype, order, elements.
    elements = array.state[4] if isinstance(array, _Noted) and array.state else None
    if not isinstance(elements, list) or len(elements) != 1 or not isinstance(elements[0], dict):
        raise _RefusedError("something else")
    return elements[0]


def _follow(programme: bytes) -> Any:
    """Return what the programme leaves, with calls and imports only noted."""
    stack: list[Any] = []
    memory: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        start = max(i for i, item in enumerate(stack) if item is _MARK)
        items = stack[start + 1 :]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(programme):
        name = opcode.name
        if name in {"PROTO", "FRAME"}:
            continue
        if name == "STOP":
            break
        if name in LITERALS:
            stack.append(LITERALS[name])
        elif name in CONSTANTS:
            stack.append(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name in {"GLOBAL", "STACK_GLOBAL"}:
            if name == "GLOBAL":
                module, attribute = argument.split(" ")
            else:
                attribute, module = stack.pop(), stack.pop()
            if (module, attribute) not in ARRAY_PARTS:
                raise _RefusedError(f"a call of {module}.{attribute}")
            stack.append(_Noted((module, attribute)))
        elif name == "REDUCE":
            stack[-2:] = [_Noted()]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name in {"BINPUT", "LONG_BINPUT"}:
            memory[argument] = stack[-1]
        elif name == "MEMOIZE":
            memory[len(memory)] = stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            stack.append(memory.get(argument))
        elif name in {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"}:
            stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[name])
        elif name in {"TUPLE1", "TUPLE2", "TUPLE3"}:
            n = int(name[-1])
            stack[-n:] = [tuple(stack[-n:])]
        elif name == "TUPLE":
            stack.append(tuple(to_mark()))
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "APPENDS":
            items = to_mark()
            stack[-1].extend(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _put(stack[-1], [key], [value])
        elif name == "SETITEMS":
            items = to_mark()
            _put(stack[-1], items[::2], items[1::2])
        else:
            raise _RefusedError(f"the instruction {name}")
    return stack[-1]


def _put(mapping: Any, keys: list[Any], values: list[Any]) -> None:
    """Fill a dictionary whose keys are simple; to hash others could take for ever."""
    strange = [key for key in keys if not isinstance(key, (int, str))]
    if type(mapping) is not dict or strange:
        raise _RefusedError("something else than names by number")
    mapping.update(zip(keys, values, strict=True))
