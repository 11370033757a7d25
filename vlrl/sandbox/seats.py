"""Places on the pool: handed over in the order in which they were asked for."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue

from vlrl.sandbox.worker import Worker


@dataclass(kw_only=True)
class Seat:
    """A place for one program at a time; its second worker is for the test code of suites."""

    worker: Worker | None = None
    tester: Worker | None = None

    def close(self) -> None:
        """End both workers."""
        for worker in (self.worker, self.tester):
            if worker is not None:
                worker.close()
        self.worker = self.tester = None

    def drop_broken(self) -> None:
        """After a failure: end what is dead or in the middle of a job, keep the other."""
        if self.worker is not None and not self.worker.idle:
            self.worker.close()
            self.worker = None
        if self.tester is not None and not self.tester.idle:
            self.tester.close()
            self.tester = None


class Seats:
    """Some seats for many threads. First come, first served: a queue of the standard library gives
    a seat back to the thread that just left it, and lets others wait for as long as that goes on.
    """

    def __init__(self, number: int) -> None:
        self._lock = threading.Lock()
        self._free = [Seat() for _ in range(number)]
        self._waiting: deque[SimpleQueue[Seat]] = deque()

    def get(self) -> Seat:
        """A seat; the one used last if several are free. Waits for its turn."""
        with self._lock:
            if self._free:
                return self._free.pop()
            turn: SimpleQueue[Seat] = SimpleQueue()
            self._waiting.append(turn)
        return turn.get()

    def put(self, seat: Seat) -> None:
        """Hand it to whoever waits longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(seat)
            else:
                self._free.append(seat)
