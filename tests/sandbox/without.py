"""Runs a Python program where the kernel refuses some system calls, as containers and old kernels.

python tests/sandbox/without.py ERRNO CALL[,CALL...] PROGRAM
"""

from __future__ import annotations

import sys

from vlrl.sandbox.guest import filters, kernel

CALLS = {"unshare": (272, 97), "mount": (165, 40), "seccomp": (317, 277), "landlock": (444, 444)}


def main() -> None:
    errno, names, program = sys.argv[1:]
    column = kernel.KNOWN_MACHINES.index(kernel.MACHINE)
    code = filters._head(kernel.MACHINE)
    for name in names.split(","):
        refuse = [filters._return(filters.ERRNO | int(errno))]
        code += filters._on(CALLS[name][column], refuse)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1, "NO_NEW_PRIVS")
    filters.Filter([*code, filters._return(filters.ALLOW)]).install()
    exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
