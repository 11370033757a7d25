"""Judges a file of adversarial programs in a given tier, with checks on the host afterwards.

python tests/sandbox/run_programs.py CASES TIER [ID_PREFIX ...]  prints what is wrong, a line each.
The programs look for a folder, listeners and an environment variable at fixed places.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlrl.config import SandboxConfig
from vlrl.sandbox import Ending, Limits, Sandbox
from vlrl.sandbox.judge import Outcome
from vlrl.types import CallTest, CallTests, StdioTests

CANARY = Path("/tmp/vlrl_canary")
PORT, ABSTRACT = 47613, "\0vlrl_canary"


def plain(value: Any) -> Any:
    """A JSON value with its marked tuples and sets."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"__tuple__"}:
            return tuple(plain(item) for item in value["__tuple__"])
        if value.keys() == {"__set__"}:
            return {plain(item) for item in value["__set__"]}
        return {key: plain(item) for key, item in value.items()}
    return value


def tests_of(entry: dict[str, Any]) -> CallTests | StdioTests:
    if entry["type"] == "stdio":
        pairs = tuple((t["stdin"], t["stdout"]) for t in entry["tests"])
        tolerance = entry.get("tol") if entry.get("compare") == "float" else None
        return StdioTests(tests=pairs, tolerance=tolerance)
    calls = tuple(
        CallTest(
            args=tuple(plain(t["args"])),
            kwargs=plain(t.get("kwargs", {})),
            expected=plain(t["expected"]),
        )
        for t in entry["tests"]
    )
    name = f"{entry['cls']}.{entry['fn']}" if entry.get("cls") else entry["fn"]
    return CallTests(function=name, tests=calls, tolerance=float(entry.get("tol") or 0))


@contextlib.contextmanager
def host(hits: list[str]) -> Iterator[None]:
    """The canary folder and listeners; whoever connects is noted in `hits`."""
    shutil.rmtree(CANARY, ignore_errors=True)
    CANARY.mkdir()
    CANARY.chmod(0o777)
    (CANARY / "keep.txt").write_text("keep\n")
    (CANARY / "keep.txt").chmod(0o666)
    (CANARY / "secret.txt").write_text("vlrl-secret-7351\n")
    os.environ["VLRL_CANARY_SECRET"] = "vlrl-env-secret"
    tcp, udp, unix = (
        socket.socket(),
        socket.socket(type=socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
    )
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("127.0.0.1", PORT))
    udp.bind(("127.0.0.1", PORT))
    unix.bind(ABSTRACT)
    tcp.listen()
    unix.listen()

    def listen(name: str, wait: Any) -> None:
        with contextlib.suppress(OSError):
            while True:
                wait()
                hits.append(name)

    for name, wait in (("tcp", tcp.accept), ("udp", lambda: udp.recv(9)), ("unix", unix.accept)):
        threading.Thread(target=listen, args=(name, wait), daemon=True).start()
    try:
        yield
    finally:
        for each in (tcp, udp, unix):
            each.close()
        shutil.rmtree(CANARY, ignore_errors=True)


def broken_checks(rows: list[dict[str, Any]], hits: list[str]) -> list[str]:
    """What happened on the host that must not have."""
    found = [f"host: a {name} connection" for name in hits]
    for row in rows:
        for check in row.get("host_check") or []:
            path = Path(check.get("path", "/"))
            if check["check"] == "file_absent" and path.exists():
                found.append(f"{row['id']}: {path} exists")
            if check["check"] == "file_intact" and path.read_text() != check["content"]:
                found.append(f"{row['id']}: {path} was changed")
    return found


def judge_all(rows: list[dict[str, Any]], sandbox: Sandbox) -> list[str]:
    """Rows that did not get their label, and what happened on the host."""
    hits: list[str] = []

    def one(row: dict[str, Any]) -> Outcome:
        entry = row["entry"]
        limits = Limits(time_s=entry["time_limit_s"], memory_mb=entry["memory_mb"])
        return sandbox.judge(row["program"], tests_of(entry), limits)

    with host(hits):
        with ThreadPoolExecutor(4) as threads:
            outcomes = list(threads.map(one, rows))
        waits = [c.get("after_s", 0) for row in rows for c in row.get("host_check") or []]
        time.sleep(max(waits, default=0))
        wrong = broken_checks(rows, hits)
    for row, outcome in zip(rows, outcomes, strict=True):
        if (outcome.ending is Ending.PASSED) != (row["expect"] == "pass"):
            wrong.append(f"{row['id']}: wanted {row['expect']}, got {outcome}")
    return wrong


def main() -> None:
    cases, tier, *prefixes = sys.argv[1:]
    rows = [json.loads(line) for line in Path(cases).read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["id"].startswith(tuple(prefixes) or ("",))]
    sandbox = Sandbox(config=SandboxConfig(tier=tier, workers=4))  # type: ignore[arg-type]
    print(f"{len(rows)} rows, uid {os.getuid()}, {sandbox.protection().mark}")
    wrong = judge_all(rows, sandbox)
    sandbox.close()
    print("\n".join(wrong))
    print(f"wrong: {len(wrong)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
