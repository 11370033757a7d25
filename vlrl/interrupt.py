"""Ctrl-C and SIGTERM end a run cleanly: the step in hand is finished, then the loop stops."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interrupt:
    """Whether somebody asked for the end."""

    asked: bool = False


@contextmanager
def on_interrupt() -> Iterator[Interrupt]:
    """Turn the first SIGINT or SIGTERM into a flag; a second one interrupts at once."""
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True
        print("\nstopping after this step (again: at once) ...", flush=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
