"""What a fork server is told, and what it tells: the layers to put up, and those in force."""

from __future__ import annotations

from dataclasses import dataclass, field

LAYERS = (
    "namespaces",
    "file_tree",
    "other_user",
    "syscall_list",
    "program_filter",
    "landlock",
    "no_new_privs",
    "capabilities",
    "close_fds",
    "limits",
    "not_dumpable",
    "fresh_scratch",
    "clocks",
)
"""Each can be left out by tests, which show that its own probe then fails."""


@dataclass(kw_only=True)
class Plan:
    """`tier` is a (all layers) or b (no namespaces); `unsafe` goes on without what is refused.

    `folder` is where programs write if there is no private /tmp; `packages` are imported for them,
    `package_path` are the packages' own folders.
    """

    tier: str
    unsafe: bool = False
    folder: str = ""
    packages: list[str] = field(default_factory=list[str])
    package_path: list[str] = field(default_factory=list[str])
    without: list[str] = field(default_factory=list[str])

    def wants(self, layer: str) -> bool:
        """Whether this layer is to be put up."""
        if layer not in LAYERS:
            raise ValueError(layer)
        if layer in ("namespaces", "file_tree") and self.tier != "a":
            return False
        return layer not in self.without


@dataclass(kw_only=True)
class Isolation:
    """What a worker has in force; `missing` says what was refused, by layer and why.

    `namespaces` are the inode numbers by kind, to be compared with one's own; `landlock` is the
    kernel's ABI, 0 for none; `baseline` the address space in bytes that preloaded packages take.
    """

    tier: str
    machine: str
    uid: int = -1
    namespaces: dict[str, int] = field(default_factory=dict[str, int])
    landlock: int = 0
    layers: list[str] = field(default_factory=list[str])
    baseline: int = 0
    missing: dict[str, str] = field(default_factory=dict[str, str])
