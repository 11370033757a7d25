"""Each layer by itself: its probe holds with all layers up, and fails when just it is gone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from vlrl.sandbox import Limits
from vlrl.sandbox.guest import kernel
from vlrl.sandbox.guest.isolation import Boundary
from vlrl.sandbox.guest.plan import LAYERS, Plan
from vlrl.sandbox.selftest import prove
from vlrl.sandbox.worker import Job, Run, Worker, WorkerDied

LIMITS = Limits(time_s=1.0, memory_mb=256)
LIBC = "import ctypes, errno, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def run(worker: Worker, program: str, limits: Limits = LIMITS) -> Run:
    return worker.run(Job(mode="script", program=program.encode()), limits)


def says(worker: Worker, program: str) -> str:
    found = run(worker, program)
    return found.stdout.decode().strip() if found.clean else found.stderr.decode().strip()


def error_of(worker: Worker, statement: str) -> str:
    """The errno's name that the statement ends with; empty if it works."""
    program = f"import errno, os, socket\ntry:\n    {statement}\nexcept OSError as e:\n"
    return says(worker, program + "    print(errno.errorcode[e.errno])")


def namespaces(worker: Worker) -> bool:
    mine = {k: os.stat(f"/proc/self/ns/{k}").st_ino for k in worker.isolation.namespaces}
    alone = says(worker, "import os; print(os.getppid(), os.uname().nodename)")
    apart = [kind for kind, inode in worker.isolation.namespaces.items() if inode != mine[kind]]
    return len(apart) == 6 and alone == "1 sandbox"


def no_host_files(worker: Worker) -> bool:
    look = "import os; print(os.path.exists('/etc'), os.statvfs('/usr/lib').f_flag & 1)"
    return says(worker, look) == "False 1"


def other_user(worker: Worker) -> bool:
    with open(f"/proc/{worker.pid}/status") as file:
        uids = next(line for line in file if line.startswith("Uid:")).split()[1:]
    return "0" not in uids


def no_sockets(worker: Worker) -> bool:
    return error_of(worker, "socket.socket()") == "EPERM"


def no_forks(worker: Worker) -> bool:
    return error_of(worker, "os.fork() or os._exit(0)") == "EPERM"


def libraries_only(worker: Worker) -> bool:
    return error_of(worker, "os.listdir('/')") == "EACCES"


def no_new_privileges(worker: Worker) -> bool:
    try:
        return says(worker, LIBC + "print(libc.prctl(39, 0, 0, 0, 0))") == "1"
    except WorkerDied:  # without it the program's filter can't be put on, so nothing runs
        return False


def no_capabilities(worker: Worker) -> bool:
    program = "h = (ctypes.c_uint32 * 2)(0x20080522, 0)\nd = (ctypes.c_uint32 * 6)()\n"
    return says(worker, LIBC + program + "print(libc.capget(h, d), any(d))") == "0 False"


def no_descriptors(worker: Worker) -> bool:
    program = "import os\nfor fd in range(4096):\n    try: os.fstat(fd); print(fd)\n"
    return says(worker, program + "    except OSError: pass").split() == [*"012345"]


def limits(worker: Worker) -> bool:
    program = "from resource import *\nprint([getrlimit(r)[1] for r in (RLIMIT_AS, RLIMIT_CPU, "
    program += "RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_CORE, RLIMIT_MEMLOCK)])"
    wanted = f"[{256 << 20}, 2, {8 << 20}, 64, 64, 0, 0]"
    greedy = run(worker, "x = bytearray(300 << 20)").stderr
    return says(worker, program) == wanted and b"MemoryError" in greedy


def not_dumpable(worker: Worker) -> bool:
    return says(worker, LIBC + "print(libc.prctl(3, 0, 0, 0, 0))") == "0"


def nothing_left(worker: Worker) -> bool:
    marks = ("open('/tmp/x', 'w')", "os.utime('/tmp', (1, 1))", "os.mkdir('x'); os.rmdir('x')")
    state = "import os; s = os.stat('/tmp'); print(os.listdir('/tmp'), s.st_mtime_ns, s.st_mode)"
    for mark in marks:
        run(worker, f"import os\n{mark}")
        time.sleep(0.01)
        now = says(worker, f"{state}\nprint(s.st_mtime_ns > 10 ** 10)")
        if not now.startswith("[]") or not now.endswith("True"):
            return False
    return True


def an_end(worker: Worker) -> bool:
    try:
        short = Limits(time_s=0.2, wall_factor=1.0)
        return run(worker, "import time; time.sleep(60)", short).timed_out
    except WorkerDied:  # the parent's own, second deadline
        return False


PROBES: dict[str, Callable[[Worker], bool]] = {
    "namespaces": namespaces,
    "file_tree": no_host_files,
    "other_user": other_user,
    "syscall_list": no_sockets,
    "program_filter": no_forks,
    "landlock": libraries_only,
    "no_new_privs": no_new_privileges,
    "capabilities": no_capabilities,
    "close_fds": no_descriptors,
    "limits": limits,
    "not_dumpable": not_dumpable,
    "fresh_scratch": nothing_left,
    "clocks": an_end,
}
NEEDS_ROOT = {"other_user"}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(Plan(tier="a"))
    yield worker
    worker.close()


def test_every_layer_has_a_probe() -> None:
    assert set(PROBES) == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_holds_and_is_missed(
    worker: Worker, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layer in NEEDS_ROOT and os.getuid() != 0:
        pytest.skip("an ordinary user has no other user to become")
    monkeypatch.setattr("vlrl.sandbox.worker.GRACE_S", 0.3)
    assert PROBES[layer](worker)
    weaker = Worker(Plan(tier="a", without=[layer]))
    try:
        assert not PROBES[layer](weaker)
    finally:
        weaker.close()


@pytest.mark.parametrize("layer", ["syscall_list", "program_filter", "limits", "clocks"])
def test_the_self_test_misses_it_too(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlrl.sandbox.worker.GRACE_S", 0.3)
    with pytest.raises(Exception, match=r"not refused|does not answer"):
        prove(Plan(tier="a", without=[layer]))


def test_inputs_are_sealed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os\nfor fd in (0, 3, 4):\n    try: os.pwrite(fd, b'x', 0); print(fd)\n"
    program += "    except OSError: pass\n    try: os.ftruncate(fd, 9); print(fd)\n"
    program += "    except OSError: pass"
    assert says(worker, program) == ""
    monkeypatch.setattr("vlrl.sandbox.worker.SEALS", 0)
    assert says(worker, program) != ""


def test_the_program_is_not_read_unless_all_is_up(worker: Worker) -> None:
    weaker = Worker(Plan(tier="a", without=["no_new_privs"]))
    with pytest.raises(WorkerDied, match=r"could not be locked in(.|\n)*not permitted"):
        run(weaker, "print('ran')")
    weaker.close()


REFUSED = {
    "connect": "socket.create_connection(('127.0.0.1', 9))",
    "listen": "socket.create_server(('127.0.0.1', 0))",
    "unix": "socket.socket(socket.AF_UNIX)",
    "inet pair": "socket.socketpair(socket.AF_INET)",
    "exec": "os.execv('/proc/self/exe', ['x'])",
    "spawn": "os.posix_spawn('/bin/true', ['x'], {})",
    "memory file": "os.memfd_create('x')",
    "signal to all": "os.kill(-1, 9)",
    "signal to the group": "os.kill(0, 9)",
    "signal to the server": "os.kill(os.getppid(), 9)",
    "another's limits": "__import__('resource').prlimit(1, 7)",
    "pidfd": "os.pidfd_open(1)",
    "other user": "os.setuid(0)",
    "nice": "os.nice(-5)",
    "symbolic link": "os.symlink('/', 'x')",
    "signals by fcntl": "__import__('fcntl').fcntl(0, 8, 1)",
    "typing at a terminal": "__import__('fcntl').ioctl(0, 0x5412, b'x')",
    "descriptors over a socket": "a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0])",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(worker: Worker, name: str) -> None:
    assert error_of(worker, REFUSED[name]) == "EPERM"


CALLS = {"ptrace": 101, "unshare": 272, "mount": 165, "bpf": 321, "io_uring_setup": 425}
CALLS |= {"keyctl": 250, "userfaultfd": 323, "setns": 308, "clone3": 435, "shmget": 29}


@pytest.mark.skipif(kernel.MACHINE != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize("name", CALLS)
def test_refused_by_number(worker: Worker, name: str) -> None:
    program = f"libc.syscall({CALLS[name]}, 0, 0, 0, 0, 0)\nprint(ctypes.get_errno())"
    assert says(worker, LIBC + program) == ("38" if name == "clone3" else "1")


@pytest.mark.skipif(kernel.MACHINE != "x86_64", reason="numbers of x86_64")
def test_foreign_calls_kill(worker: Worker) -> None:
    assert run(worker, LIBC + "libc.syscall(0x40000000 + 39)").signal == 31  # x32's getpid
    # mov eax, 20; int 0x80; ret: i386's getpid
    code = "import mmap\nm = mmap.mmap(-1, 4096, prot=7)\n"
    code += "m.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
    call = "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    assert run(worker, LIBC + code + call).signal == 31


def test_an_architecture_without_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MACHINE", "riscv64")
    with pytest.raises(kernel.Refused, match="no system call table for riscv64"):
        Boundary(Plan(tier="a"))
