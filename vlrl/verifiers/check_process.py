"""A process that judges one case at a time, and is killed and replaced when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from vlrl.config import ConfigError
from vlrl.verifiers.cases import Case

START_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a verifier did with a case: a verdict, or an exception's text, or its end.

    `status` is a Status, or "refused" if the gold can't be used at all. `died` is why there is no
    answer: the process was killed at the limit, or ended.
    """

    correct: bool = False
    reward: float = 0.0
    status: str = ""
    note: str = ""
    raised: str = ""
    died: str = ""
    seconds: float = 0.0


class CheckProcess:
    """`ask` a user's verifier; `limit_s` is the wall time after which it is killed.

    Raises:
        ConfigError: the verifier can't be loaded.
    """

    def __init__(self, reference: str, limit_s: float) -> None:
        self._reference = reference
        self._limit_s = limit_s
        self._start()

    def ask(self, case: Case, response: str) -> Answer:
        """The verifier's answer on a response to the case's gold."""
        row: dict[str, Any] = {
            "gold": case.gold,
            "question": case.question,
            "options": list(case.options),
            "response": response,
        }
        start = time.perf_counter()
        try:
            self._socket.settimeout(self._limit_s)
            self._socket.sendall(json.dumps(row).encode() + b"\n")
            line = self._stream.readline()
            died = "" if line else self._end()
        except TimeoutError:
            line, died = b"", f"no answer in {self._limit_s:g} s"
        except OSError:  # it ended before it read the case
            line, died = b"", self._end()
        if line:
            return Answer(**json.loads(line))
        seconds = time.perf_counter() - start
        self.close()
        self._start()
        return Answer(died=died, seconds=seconds)

    def close(self) -> None:
        """End the process and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stream.close()
        self._socket.close()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "vlrl.verifiers.check_worker",
                str(theirs.fileno()),
                self._reference,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._stream = self._socket.makefile("rb")
        self._socket.settimeout(START_S)
        try:
            said = json.loads(self._stream.readline() or b"{}")
        except TimeoutError:
            said = {"cannot": f"{self._reference!r}: importing took more than {START_S:g} s"}
        if "ready" not in said:
            self.close()
            missing = f"{self._reference!r}: the process ended while it was imported"
            raise ConfigError(said.get("cannot", missing))

    def _end(self) -> str:
        """How the process ended: its side of the socket is closed."""
        code = self._process.wait()
        return f"the process ended with {f'signal {-code}' if code < 0 else f'code {code}'}"
