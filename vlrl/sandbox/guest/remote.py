"""Stand-ins for the program's names and objects in the tester's process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from . import runner
from .values import Unplain
from .wire import Message, Objects, Peer, PeerGone, give_library, take_library


class Program:
    """The other process. `gone`: it has ended, whatever the test code made of that."""

    def __init__(self) -> None:
        self.gone = False
        self._own = Objects()
        self._known: dict[int, Any] = {}
        self._peer = Peer(runner.PEER, self._answer)

    def names(self) -> list[str]:
        """The names that the program's module defines."""
        return [name for name in self.ask("names") if isinstance(name, str)]

    def get(self, name: str) -> Any:
        """What the program's module calls by that name.

        Raises:
            NameError: nothing.
        """
        try:
            return self.ask("get", name)
        except KeyError:
            raise NameError(f"the program defines no {name!r}") from None

    def ask(self, *message: Any) -> Any:
        """The reply's value; the program's exception is raised here as one of the same name."""
        try:
            reply = self._peer.ask(list(message), self._give, self._take)
        except PeerGone:
            self.gone = True
            raise
        if reply[0] == "unsupported":
            return NotImplemented
        if reply[0] == "value":
            if message[0] == "call":
                _change(message[2], reply[2])
            return reply[1]
        kind, arguments, attributes = reply[1:]
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = Exception
        if issubclass(kind, StopIteration) and message[2:3] != ("__next__",):
            kind = RuntimeError  # else it would end the test code's own `zip(map(f, ..), ..)`
        error = kind.__new__(kind)
        error.args = tuple(arguments)
        if isinstance(attributes, dict):
            vars(error).update({str(k): v for k, v in attributes.items()})
        raise error

    def _answer(self, message: Message) -> Message:
        """The program calls a function that test code gave it."""
        if message[0] != "callback":
            raise Unplain("unknown message")
        try:
            return ["value", self._own.get(message[1])(*message[2], **message[3]), []]
        except Exception as error:  # noqa: BLE001 - raised again in the program
            return ["raise", type(error).__name__, [str(error)[:1000]], {}]

    def _give(self, value: Any) -> tuple[str, object]:
        number = getattr(value, "_remote_number", None)
        if isinstance(value, Remote | type) and isinstance(number, int):
            return "p", number
        known = give_library(value)
        if known is not None:
            return known
        if callable(value):
            return "k", self._own.number(value)
        raise Unplain(f"a {type(value).__name__} can't be handed to the program")

    def _take(self, tag: str, body: Any) -> object:
        if tag != "h":
            return take_library(tag, body)
        number, kind, name = body[:3]
        if number not in self._known:
            if kind == "exception":
                base = body[3] if isinstance(body[3], type) else Exception
                if not issubclass(base, BaseException):
                    raise Unplain("an exception that is none")
                space = {"_remote_number": number, "__module__": "solution"}
                self._known[number] = type(str(name), (base,), space)
            else:
                self._known[number] = Remote(self, number, str(name))
        return self._known[number]


class Remote:
    """One object of the program."""

    def __init__(self, program: Program, number: int, kind: str) -> None:
        vars(self).update(_program=program, _remote_number=number, _kind=kind)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it in the program's process."""
        return self._program.ask("call", self, list(arguments), keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._program.ask("attribute", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._program.ask("set", self, name, value)

    def __instancecheck__(self, value: object) -> bool:
        if not isinstance(value, Remote):
            return False
        return self._program.ask("isinstance", value, self) is True

    def __iter__(self) -> Iterator[Any]:
        iterator, size = self._special("__iter__"), 1
        if not isinstance(iterator, Remote):
            raise TypeError(f"{self._kind!r} object is not iterable")
        while True:
            items = self._program.ask("take", iterator, size)
            yield from items
            if len(items) < size:
                return
            size = min(2 * size, 256)

    def __hash__(self) -> int:
        return hash(("remote", self._remote_number))

    def __bool__(self) -> bool:
        return self._special("__bool__") is not False and self._special("__len__") != 0

    def __str__(self) -> str:
        return str(self._special("__str__"))

    def __repr__(self) -> str:
        return str(self._special("__repr__"))

    def _special(self, name: str, *arguments: object) -> Any:
        return self._program.ask("special", self, name, list(arguments))


def _any(name: str) -> Callable[..., Any]:
    """An operator that tells the program nothing that a test expects."""

    def method(self: Remote, *arguments: object) -> Any:
        result = self._special(name, *arguments)
        if result is NotImplemented:
            raise TypeError(f"{self._kind!r} object has no {name}")
        return result

    return method


def _between(name: str) -> Callable[[Remote, object], Any]:
    """An operator between two objects of the program; against a test's own value it has none."""

    def method(self: Remote, other: object) -> Any:
        return self._special(name, other) if isinstance(other, Remote) else NotImplemented

    return method


for _name in ("len", "next", "getitem", "setitem", "delitem", "enter", "neg", "pos", "invert"):
    setattr(Remote, f"__{_name}__", _any(f"__{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv"):
    setattr(Remote, f"__{_name}__", _between(f"__{_name}__"))
for _name in ("mod", "pow", "and", "or", "xor", "matmul"):
    setattr(Remote, f"__{_name}__", _between(f"__{_name}__"))


def _exit(self: Remote, *_: object) -> bool:
    """Leaves the program's context manager; it may not swallow a test's failure."""
    self._special("__exit__", None, None, None)
    return False


Remote.__exit__ = _exit  # pyright: ignore[reportAttributeAccessIssue]


def _change(arguments: list[Any], changed: Any) -> None:
    """What the call did to its arguments, done to the test's own."""
    for place, new in changed:
        old = arguments[place]
        if type(old) is not type(new):
            raise Unplain("an argument that changed its type")
        if isinstance(old, list | bytearray):
            old[:] = new
        elif isinstance(old, deque):
            old.clear()
            old.extend(new)
        elif isinstance(old, dict | set):
            old.clear()
            old.update(new)
