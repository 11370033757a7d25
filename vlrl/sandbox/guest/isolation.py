"""Cuts a process off from the machine: namespaces, a small read-only file tree, another user.

Every step that the kernel refuses is left out and named in `Isolation.missing`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field

NEWNS, NEWUTS, NEWIPC, NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
NEWPID, NEWNET = 0x20000000, 0x40000000
ALL = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
TMP_OPTIONS = b"size=64m,nr_inodes=2048,mode=1777"
FIRST_UID, NUM_UIDS = 61200, 4000
DEVICES = ("null", "zero", "full", "random", "urandom")

_libc = ctypes.CDLL(None, use_errno=True)
_machine = os.uname().machine


@dataclass(kw_only=True)
class Isolation:
    """What a worker has in force. `missing` says what was refused, by name and why."""

    user: bool = False
    network: bool = False
    processes: bool = False
    files: bool = False
    uid: int = -1
    missing: dict[str, str] = field(default_factory=dict[str, str])


def call(name: str, *arguments: object) -> None:
    """A libc function that returns -1 on failure.

    Raises:
        OSError: with the function's name.
    """
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def enter_namespaces() -> tuple[Isolation, int]:
    """Leave the host's namespaces, as many as the kernel lets go; also returns the flags."""
    isolation = Isolation()
    root = os.getuid() == 0
    wanted = [ALL, ALL | NEWUSER] if root else [ALL | NEWUSER]
    uid, gid = os.getuid(), os.getgid()
    for flags in [*wanted, NEWUSER | NEWNET]:
        try:
            call("unshare", flags)
        except OSError as error:
            isolation.missing["namespaces"] = str(error)
            continue
        isolation.missing.pop("namespaces", None)
        if flags & NEWUSER:
            _map_user(uid, gid)
        isolation.user = bool(flags & NEWUSER)
        isolation.network = True
        isolation.processes = bool(flags & NEWPID)
        return isolation, flags
    return isolation, 0


def _map_user(uid: int, gid: int) -> None:
    """Appear as nobody inside; no further user namespaces below this one."""
    for path, text in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"65534 {uid} 1"),
        ("/proc/self/gid_map", f"65534 {gid} 1"),
        ("/proc/sys/user/max_user_namespaces", "0"),
    ):
        try:
            with open(path, "w") as file:
                file.write(text)
        except OSError:
            # A kernel without this file has nothing to deny; unmapped ids are nobody's already.
            continue


def enter_root(isolation: Isolation, flags: int) -> None:
    """Swap the file tree for a read-only one: Python's library, a few devices, a fresh /tmp."""
    if not flags & NEWNS:
        isolation.missing.setdefault("files", "no mount namespace")
        return
    try:
        call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        _build_root()
        isolation.files = True
    except (OSError, KeyError) as error:
        isolation.missing["files"] = str(error)


def _build_root() -> None:
    root = "/proc"  # a folder that is everywhere, of no more use, and holds no library
    call("mount", b"tmpfs", root.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"size=1m,mode=755")
    for source in _library_folders():
        target = root + source
        os.makedirs(target, exist_ok=True)
        call("mount", source.encode(), target.encode(), None, MS_BIND | MS_REC, None)
        _read_only(target)
    for link in ("/lib", "/lib64"):
        if os.path.islink(link):
            os.symlink(os.readlink(link), root + link)
    os.makedirs(root + "/dev")
    for device in DEVICES:
        target = f"{root}/dev/{device}"
        open(target, "w").close()
        call("mount", f"/dev/{device}".encode(), target.encode(), None, MS_BIND, None)
    os.symlink("/tmp", root + "/dev/shm")
    os.makedirs(root + "/tmp", exist_ok=True)
    os.chdir(root)
    call("syscall", SYS_PIVOT_ROOT[_machine], b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    flags = MS_NOSUID | MS_NODEV
    call("mount", b"tmpfs", b"/tmp", b"tmpfs", flags, TMP_OPTIONS)
    _read_only("/", recursive=False)


def _library_folders() -> list[str]:
    """Folders that hold the standard library and the C libraries it loads, outermost first."""
    found: list[str] = []
    candidates = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/share/zoneinfo",
        "/lib",
        "/lib64",
    ]
    candidates += [sys.base_prefix + "/lib", *sys.path]
    for path in sorted(candidates):
        inside = any(path == f or path.startswith(f + "/") for f in found)
        if os.path.isdir(path) and not os.path.islink(path) and not inside:
            found.append(path)
    return found


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _read_only(path: str, recursive: bool = True) -> None:
    attributes = _MountAttr(attr_set=MS_RDONLY | MS_NOSUID | MS_NODEV)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    flags = AT_RECURSIVE if recursive else 0
    target = path.encode()
    call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, target, flags, ctypes.byref(attributes), size)


def die_with_parent() -> None:
    """SIGKILL for this process when the one that made it ends."""
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)


def drop_privileges(isolation: Isolation) -> None:
    """In the child that will run the program: no capabilities, no way to new ones."""
    if isolation.uid >= 0:
        os.setgroups([])
        os.setresgid(isolation.uid, isolation.uid, isolation.uid)
        os.setresuid(isolation.uid, isolation.uid, isolation.uid)
    elif isolation.user:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        call("syscall", SYS_CAPSET[_machine], header, (ctypes.c_uint32 * 6)())
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def choose_user(isolation: Isolation, seat: int) -> None:
    """As root, a user id of this worker's own, if the standard library can be read by it."""
    if os.getuid() != 0 or isolation.user:
        return
    uid = FIRST_UID + seat % NUM_UIDS
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with open(os.__file__, "rb"):
                os._exit(0)
        except OSError:
            os._exit(1)
    if os.waitpid(pid, 0)[1] == 0:
        isolation.uid = uid
    else:
        isolation.missing["uid"] = "another user can't read Python's library; programs run as root"


class Scratch:
    """The folder a program may write to, new for every program."""

    def __init__(self, isolation: Isolation, folder: str) -> None:
        self._isolation = isolation
        self._folder = folder
        self.path = "/tmp" if isolation.files else self._make()

    def renew(self) -> None:
        """Throw away what the last program left: files, folders and time stamps."""
        if self._isolation.files:
            call("umount2", b"/tmp", MNT_DETACH)
            call("mount", b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV, TMP_OPTIONS)
        else:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path = self._make()

    def _make(self) -> str:
        path = tempfile.mkdtemp(dir=self._folder)
        if self._isolation.uid >= 0:
            os.chmod(self._folder, 0o711)
            os.chown(path, self._isolation.uid, self._isolation.uid)
        return path
