"""Plain Python values as JSON trees and back, by exact type and within bounds; no pickle, no eval.

None, booleans and strings stand for themselves, a list is a list; everything else is an object with
one key: `{"i": "0x2a"}`, `{"f": "0.5"}`, `{"t": [...]}` tuple, `{"s": [...]}` set,
`{"z": [...]}` frozenset, `{"d": [[k, v]]}`, `{"b": "00ff"}` bytes, `{"c": ["1.0", "0.0"]}` complex.
Integers are hexadecimal: no quadratic time.
"""

from __future__ import annotations

import itertools
import json
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 1_000_000
MAX_INT_BITS = 1 << 20
MAX_LENGTH = 1 << 22
MAX_EQUAL_HASHES = 64
_NAMED_KINDS = (Counter, OrderedDict, deque)
"""Lists and mappings that are more than that to test code."""
_MAPPINGS = (dict, Counter, OrderedDict, defaultdict)
_SEQUENCE_TAGS = {tuple: "t", set: "s", frozenset: "z"}
_ITERATORS = (
    range,
    map,
    filter,
    zip,
    enumerate,
    reversed,
    types.GeneratorType,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)
_MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


class Unplain(ValueError):
    """A value that is not made of plain builtins, or one that is too deep or too large."""


Give = Callable[[Any], "tuple[str, object]"]
"""A value that is not plain -> its tag and body, themselves plain; or raises Unplain."""
Take = Callable[[str, Any], object]
"""A tag and a body -> the value; or raises Unplain."""


def dumps(value: object, give: Give | None = None) -> bytes:
    """One line of ASCII JSON. `give` writes what is no plain value.

    Raises:
        Unplain: the value holds something else than plain builtins, or is over a bound.
    """
    return json.dumps(_to_tree(value, _Budget(give=give), 0)).encode("ascii")


def loads(line: bytes, take: Take | None = None) -> object:
    """The value that `dumps` wrote; safe on bytes from an untrusted program. `take` reads tags.

    Raises:
        Unplain: not such a line, or over a bound.
    """
    try:
        tree = json.loads(line, parse_int=_refuse, parse_float=_refuse, parse_constant=_refuse)
        return _from_tree(tree, _Budget(take=take), 0)
    except _MALFORMED as error:
        raise Unplain(f"not a plain value: {error}") from error


class _Budget:
    """Counts nodes down; carries what is known of other values than plain ones."""

    def __init__(self, give: Give | None = None, take: Take | None = None) -> None:
        self.left, self.give, self.take = MAX_NODES, give, take

    def spend(self, depth: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise Unplain(f"more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise Unplain(f"nested deeper than {MAX_DEPTH}")


def _refuse(text: str) -> Any:
    raise Unplain(f"bare number {text[:20]}")


def _to_tree(value: Any, budget: _Budget, depth: int) -> object:
    budget.spend(depth)
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str or kind is bytes or kind is bytearray:
        if len(value) > MAX_LENGTH:
            raise Unplain(f"a {kind.__name__} of length {len(value)}")
        return value if kind is str else {"b": value.hex()}
    if kind is int:
        if value.bit_length() > MAX_INT_BITS:
            raise Unplain(f"an integer of {value.bit_length()} bits")
        return {"i": hex(value)}
    if kind is float:
        return {"f": repr(value)}
    if budget.give is not None and kind in _NAMED_KINDS:
        tag, body = budget.give(value)
        return {tag: _to_tree(body, budget, depth + 1)}
    if kind is list or kind is deque:
        return [_to_tree(item, budget, depth + 1) for item in value]
    if kind in _SEQUENCE_TAGS:
        return {_SEQUENCE_TAGS[kind]: [_to_tree(item, budget, depth + 1) for item in value]}
    if kind in _MAPPINGS:
        items = dict.items(value)
        return {"d": [[_to_tree(part, budget, depth + 1) for part in pair] for pair in items]}
    if kind is complex:
        return {"c": [repr(value.real), repr(value.imag)]}
    if budget.give is not None:
        tag, body = budget.give(value)
        return {tag: _to_tree(body, budget, depth + 1)}
    return _to_tree(_plain_form(value), budget, depth)


def _plain_form(value: Any) -> object:
    """A named tuple as a tuple, an iterator as a list, an array as nested lists."""
    if isinstance(value, tuple):
        return (*tuple.__iter__(value),)
    if type(value) in _ITERATORS:
        return list(itertools.islice(value, MAX_NODES))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        plain = value.tolist()
        if type(plain) is not type(value):
            return plain
    raise Unplain(f"a {type(value).__name__} is no plain value")


def _from_tree(tree: Any, budget: _Budget, depth: int) -> object:
    budget.spend(depth)
    if tree is None or isinstance(tree, bool | str):
        return tree
    if isinstance(tree, list):
        return [_from_tree(item, budget, depth + 1) for item in tree]
    if not isinstance(tree, Mapping) or len(tree) != 1:
        raise Unplain("not a tagged value")
    ((tag, body),) = tree.items()
    if tag == "i":
        if len(body) > MAX_INT_BITS // 4 + 3:
            raise Unplain("an integer with too many digits")
        return int(body, 16)
    if tag == "f":
        return float(body)
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "c":
        return complex(float(body[0]), float(body[1]))
    if tag == "t":
        return tuple(_from_tree(item, budget, depth + 1) for item in body)
    if tag == "s":
        return set(_hashable(_from_tree(item, budget, depth + 1) for item in body))
    if tag == "z":
        return frozenset(_hashable(_from_tree(item, budget, depth + 1) for item in body))
    if tag == "d":
        keys = _hashable(_from_tree(key, budget, depth + 1) for key, _ in body)
        return dict(zip(keys, (_from_tree(item, budget, depth + 1) for _, item in body)))  # noqa: B905
    if budget.take is not None:
        return budget.take(tag, _from_tree(body, budget, depth + 1))
    raise Unplain(f"unknown tag {str(tag)[:20]!r}")


def _hashable(items: Iterable[object]) -> list[object]:
    """Keys that don't share a hash: a million multiples of 2**61 - 1 would take hours to insert."""
    keys = list(items)
    hashes = sorted(map(hash, keys))
    if any(a == b for a, b in zip(hashes, hashes[MAX_EQUAL_HASHES:])):  # noqa: B905
        raise Unplain("too many keys with the same hash")
    return keys
