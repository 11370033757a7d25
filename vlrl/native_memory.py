"""What native libraries keep for later, bounded: a long run's memory stays what it is.

Every batch has shapes of its own. oneDNN keeps what it compiled for the last 1,024 of them (torch's
copy, and vLLM's too), small pieces that lie for long among tensors that come and go, so that the C
library's heap has ever more holes: after 520 updates of the quickstart 650 MiB, beside 240 MiB of
such pieces.
"""

from __future__ import annotations

import ctypes
from collections.abc import MutableMapping

NUM_PRIMITIVES = 64
"""Compiled operations that oneDNN keeps: with 64 the quickstart is no slower than with 1,024."""
TRIM_EVERY = 10
"""Steps from one `trim` to the next. It takes 0.03 s."""


def bound_caches(environment: MutableMapping[str, str]) -> None:
    """Bound oneDNN's caches, before its first operation; what the user has set stays."""
    environment.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(NUM_PRIMITIVES))


def trim() -> None:
    """Return the holes in the heap to the system. Does nothing where the C library isn't glibc."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))
