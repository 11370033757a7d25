"""Landlock, where the kernel has it: which files a program may open, whatever the tree holds."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterable

from .kernel import Refused, syscall

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << n for n in range(6))
MAKE_DIR, MAKE_REG = 1 << 7, 1 << 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
BY_ABI = ((1, (1 << 13) - 1), (2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
PATH_BENEATH, GET_VERSION = 1, 1


def version() -> int:
    """The kernel's Landlock ABI.

    Raises:
        Refused: it has none, or it is switched off.
    """
    return syscall("landlock_create_ruleset", None, 0, GET_VERSION)


class Ruleset:
    """Rules, as a descriptor; `paths` are opened before the process may lose sight of them."""

    def __init__(self, readable: Iterable[str], devices: Iterable[str]) -> None:
        self.abi = version()
        self._handled = sum(bits for since, bits in BY_ABI if self.abi >= since)
        self._readable = [_open(path) for path in readable if os.path.exists(path)]
        self._devices = [_open(path) for path in devices if os.path.exists(path)]
        self._fd = -1

    def write_to(self, folder: str) -> None:
        """(Re)make the rules; files can be written below `folder` only. A rule names an inode."""
        self.close()
        handled = struct.pack("=QQQ", self._handled, 3, 3)  # no TCP, signals, abstract sockets
        size = 8 if self.abi < 4 else 16 if self.abi < 6 else 24
        low = syscall("landlock_create_ruleset", handled[:size], size, 0)
        self._fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 100)  # low numbers are the program's
        os.close(low)
        for fd in self._readable:
            self._allow(fd, READ)
        for fd in self._devices:
            self._allow(fd, READ_FILE | WRITE_FILE)
        fd = _open(folder)
        self._allow(fd, WRITE)
        os.close(fd)

    def restrict(self, fd: int) -> None:
        """Put the rules, here as descriptor `fd`, on this thread for good."""
        syscall("landlock_restrict_self", fd, 0)

    @property
    def fd(self) -> int:
        """The descriptor of the rules."""
        return self._fd

    def close(self) -> None:
        """Close the rules' descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _allow(self, fd: int, access: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= FILE_ONLY
        rule = struct.pack("=Qi", access & self._handled, fd)
        syscall("landlock_add_rule", self._fd, PATH_BENEATH, rule, 0)


def _open(path: str) -> int:
    low = os.open(path, os.O_PATH | os.O_CLOEXEC)
    fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(low)
    return fd


__all__ = ["Refused", "Ruleset", "version"]
