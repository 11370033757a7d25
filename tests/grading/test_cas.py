"""The pool of killable math processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from vlrl.grading.cas import CasBroken, CasPool, Said


@pytest.fixture(scope="module")
def pool() -> Iterator[CasPool]:
    pool = CasPool(workers=1)
    yield pool
    pool.close()


def test_many_threads_share_one_worker(pool: CasPool) -> None:
    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(lambda n: pool.equal(f"{n}x+{n}", "3(x+1)"), range(8)))
    assert said == [Said.SAME if n == 3 else Said.DIFFERENT for n in range(8)]


@pytest.mark.parametrize("bomb", ["10^{10^{10}}", "(a+b+c+d+e+f)^{300}", "10000000!"])
def test_a_hanging_comparison_is_killed_and_the_next_one_works(pool: CasPool, bomb: str) -> None:
    pool.equal("x", "x")
    start = time.perf_counter()
    assert pool.equal("5", bomb) is not Said.SAME
    assert time.perf_counter() - start < 8  # 0.5 s of CPU; the machine may be busy
    assert pool.equal("x+1", "1+x") is Said.SAME


def test_a_killed_worker_is_replaced(pool: CasPool) -> None:
    pool.equal("x", "x")
    worker = pool._seats.get()
    pool._seats.put(worker)
    assert worker is not None
    os.kill(worker._process.pid, signal.SIGKILL)
    assert pool.equal("x+1", "1+x") is Said.SAME


def test_a_worker_that_never_comes_up_is_an_exception_and_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(CasBroken, match="failed twice"):
        CasPool(workers=1).equal("x+1", "1+x")


def test_a_closed_pool_says_so() -> None:
    pool = CasPool(workers=1)
    pool.close()
    with pytest.raises(CasBroken, match="closed"):
        pool.equal("x", "y")
