from __future__ import annotations

import ctypes

import psutil
import pytest

from vlrl.native_memory import NUM_PRIMITIVES, bound_caches, trim

LIBC = ctypes.CDLL(None)


def test_what_the_user_has_set_stays() -> None:
    environment: dict[str, str] = {}
    bound_caches(environment)
    assert environment == {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(NUM_PRIMITIVES)}
    environment = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "9"}
    bound_caches(environment)
    assert environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "9"


@pytest.mark.skipif(not hasattr(LIBC, "malloc_trim"), reason="the C library is not glibc")
def test_holes_in_the_heap_go_back_to_the_system() -> None:
    malloc = LIBC.malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free = LIBC.free
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    piece, num = 64 << 10, 1024  # 64 MiB, in pieces that are no mapping of their own
    pieces = [malloc(piece) for _ in range(num)]
    for address in pieces:
        ctypes.memset(address, 1, piece)
    kept = pieces[::64]
    for address in set(pieces) - set(kept):
        free(address)
    process = psutil.Process()
    before = process.memory_info().rss
    trim()
    assert before - process.memory_info().rss > 32 << 20
    for address in kept:
        free(address)
