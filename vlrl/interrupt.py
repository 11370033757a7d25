"""Ctrl-C and SIGTERM end a run cleanly: the step in hand is finished, then the loop stops."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted(Exception):
    """Somebody asked for the end, at a place where stopping loses nothing."""


@dataclass
class Interrupt:
    """Whether somebody asked for the end."""

    asked: bool = False

    def check(self) -> None:
        """Stop here if asked.

        Raises:
            Interrupted: somebody asked for the end.
        """
        if self.asked:
            raise Interrupted


@contextmanager
def on_interrupt() -> Generator[Interrupt]:
    """Turn the first SIGINT or SIGTERM into a flag; a second one interrupts at once."""
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True
        print("\nfinishing the step in hand (again: stop at once) ...", flush=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
