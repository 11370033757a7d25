"""Which system calls go through: a BPF assembler and the two seccomp filters made with it.

The list is installed once in the fork server and inherited by every fork: what it doesn't name is
refused with EPERM. The second, small filter is each program's own: it takes away what only the
server needs, and holds signals, threads and limits to the program itself. A foreign architecture's
call (i386, x32) kills the process.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable

from . import kernel
from .syscalls import CHECKED, METADATA, PROGRAM, SERVER, numbers

LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
REFUSE = ERRNO | errno.EPERM
UNKNOWN = ERRNO | errno.ENOSYS
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
SET_MODE_FILTER = 1

AF_UNIX = 1
CLONE_THREAD = 0x10000
CLONE_NAMESPACES = 0x7E020080
FCNTL = (*range(8), 36, 37, 38, *range(1030, 1035))
"""Duplicates, flags, locks, pipe sizes, seals; no F_SETOWN and F_SETSIG: they signal others."""
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
PRCTL = (3, 15, 16, 21, 23, 39, 0x53564D41)
"""Get dumpable, name, seccomp, bounding set, no_new_privs; set a name, name a mapping."""
PRCTL_SERVER = (kernel.PR_SET_PDEATHSIG, kernel.PR_SET_DUMPABLE, kernel.PR_SET_NO_NEW_PRIVS)

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, constant)."""


def list_filter(machine: str) -> list[Instruction]:
    """The allow list, of programs and server together."""
    allowed = {**numbers(PROGRAM, machine), **numbers(SERVER, machine)}
    checked = numbers(CHECKED, machine)
    program = _head(machine)
    for number in (*allowed.values(), checked["kill"], checked["tgkill"], checked["prlimit64"]):
        program += _on(number, [_return(ALLOW)])
    program += _on(checked["clone3"], [_return(UNKNOWN)])  # glibc falls back to clone
    program += _on(checked["ioctl"], _argument_in(1, IOCTL))
    program += _on(checked["fcntl"], _argument_in(1, FCNTL))
    program += _on(checked["prctl"], _argument_in(0, (*PRCTL, *PRCTL_SERVER)))
    program += _on(checked["socketpair"], _argument_in(0, (AF_UNIX,)))
    # Without an address: asyncio wakes itself by send() on a socketpair.
    no_address = [_load(4), (JUMP_EQUAL, 0, 3, 0), _load(4, high=True), (JUMP_EQUAL, 0, 1, 0)]
    program += _on(checked["sendto"], [*no_address, _return(ALLOW), _return(REFUSE)])
    plain = [_load(0), (JUMP_BITS, 0, 1, CLONE_NAMESPACES), _return(REFUSE), _return(ALLOW)]
    program += _on(checked["clone"], plain)
    return [*program, _return(REFUSE)]


def program_filter(machine: str, private_tree: bool) -> list[Instruction]:
    """The second filter, where `OWN_PID` stands for the program's process id.

    Without a file tree of its own a program may not change modes and times either.
    """
    checked = numbers(CHECKED, machine)
    program = _head(machine)
    refused = SERVER if private_tree else f"{SERVER};{METADATA}"
    for number in numbers(refused, machine).values():
        program += _on(number, [_return(REFUSE)])
    thread = [_load(0), (JUMP_BITS, 0, 1, CLONE_THREAD), _return(ALLOW), _return(REFUSE)]
    program += _on(checked["clone"], thread)
    program += _on(checked["kill"], _argument_in(0, (OWN_PID,)))
    program += _on(checked["tgkill"], _argument_in(0, (OWN_PID,)))
    program += _on(checked["prlimit64"], _argument_in(0, (0, OWN_PID)))
    program += _on(checked["prctl"], _argument_in(0, PRCTL))
    return [*program, _return(ALLOW)]


OWN_PID = 0x7FFFFFF1
"""A placeholder: no process id is that large (the kernel's limit is 1 << 22)."""


class Filter:
    """An assembled filter, ready to install; building one takes too long for every program."""

    def __init__(self, program: Iterable[Instruction]) -> None:
        instructions = list(program)
        raw = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
        self._code = ctypes.create_string_buffer(raw, len(raw))
        self._pids = [8 * i + 4 for i, found in enumerate(instructions) if found[3] == OWN_PID]
        address = ctypes.addressof(self._code)
        self._header = ctypes.create_string_buffer(
            struct.pack("=HxxxxxxQ", len(instructions), address), 16
        )

    def install(self, pid: int = 0) -> None:
        """Put it on this process for good; `pid` takes OWN_PID's place.

        Raises:
            Refused: the kernel has no seccomp filters, or no_new_privs is not set.
        """
        for offset in self._pids:
            struct.pack_into("=I", self._code, offset, pid)
        kernel.syscall("seccomp", SET_MODE_FILTER, 0, self._header, what="seccomp(FILTER)")


def _head(machine: str) -> list[Instruction]:
    head = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        _return(KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        head += [(JUMP_GREATER_EQUAL, 0, 1, X32_BIT), _return(KILL)]
    return head


def _on(number: int, body: list[Instruction]) -> list[Instruction]:
    """`body`, which ends in a return on every path, for this system call only."""
    return [(JUMP_EQUAL, 0, len(body), number), *body]


def _argument_in(index: int, allowed: Iterable[int]) -> list[Instruction]:
    """Allow where the argument's lower 32 bits, all that the kernel reads, are one of these."""
    body = [_load(index)]
    for value in allowed:
        body += [(JUMP_EQUAL, 0, 1, value), _return(ALLOW)]
    return [*body, _return(REFUSE)]


def _load(argument: int, high: bool = False) -> Instruction:
    return (LOAD, 0, 0, ARGUMENTS + 8 * argument + (4 if high else 0))


def _return(action: int) -> Instruction:
    return (RETURN, 0, 0, action)
