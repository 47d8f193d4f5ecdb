"""Limits for code that nobody has looked at: what `grade-class` runs a submission in.

Two layers.  Limits of the operating system on memory, files and processes hold everywhere on Linux.  Where the kernel lets an
ordinary user make namespaces, the process also sees no other process, no network, the disk read-only but for a small scratch
folder, and empty folders in place of the reference, the graders and the other submissions.  SECURITY.md says what remains.

All in the standard library, because it runs between `fork` and the learner's code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NEW_USER, NEW_PID, NEW_NET, NEW_MOUNT, NEW_IPC = 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0002_0000, 0x0800_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 0x1000, 0x4000, 1 << 18
MOUNT_SETATTR, MOUNT_ATTR_RDONLY, AT_FDCWD, AT_RECURSIVE = 442, 1, -100, 0x8000  # the same number on every architecture
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38


@dataclass(frozen=True)
class Limits:
    """What a submission may use.  Travels to the worker as a dict.

    memory: bytes that it may take on top of what Python and torch hold; in one process, and all its processes together.
    processes: how many it may start (threads count too); `file_size`: bytes in one file; `scratch`: bytes in all.
    walled: whether to use namespaces; see `walls_work`.  `hidden`: folders and files that look empty to it.
    """

    memory: int = 2 * 2**30
    processes: int = 64
    file_size: int = 64 * 2**20
    scratch: int = 256 * 2**20
    walled: bool = False
    hidden: tuple[str, ...] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def walls_work() -> bool:
    """Whether a process can be shut in here, found out by doing it."""
    if not sys.platform.startswith("linux"):
        return False
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        pid = os.fork()
        if pid == 0:
            try:
                shut_in(scratch, 2**20, [])
                os._exit(0)
            except BaseException:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0


def shut_in(scratch: str, scratch_bytes: int, hidden: Sequence[str]) -> int:
    """Go on as the first process of a new world.  Linux only; the caller has just been forked and has one thread.

    Returns:
        The process id as the world outside knows it.

    Raises:
        OSError: the kernel does not allow it.  The process is of no use then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _call(libc.prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)
    _call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call(libc.unshare, NEW_USER | NEW_PID | NEW_NET | NEW_MOUNT | NEW_IPC)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{file}", "w") as out:  # noqa: PTH123  nothing but builtins here
            out.write(text)
    _call(libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    for path in hidden:
        if os.path.isdir(path):  # noqa: PTH112
            _call(libc.mount, b"none", os.fsencode(path), b"tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, b"size=4k")
        elif os.path.isfile(path):  # noqa: PTH113
            _call(libc.mount, b"/dev/null", os.fsencode(path), None, MS_BIND, None)
    _set_read_only(libc)
    options = f"size={scratch_bytes}".encode()
    _call(libc.mount, b"none", scratch.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid != 0:
        os.close(read_end)
        os.write(write_end, str(pid).encode())
        os.close(write_end)
        os.closerange(0, 4096)  # it holds nothing of the judge's, and ends with the world that it waits for
        os._exit(0 if os.waitpid(pid, 0)[1] == 0 else 1)
    os.close(write_end)
    outside = int(os.read(read_end, 32))
    os.close(read_end)
    _call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setsid()
    with contextlib.suppress(OSError):  # forbidden in some containers; the old /proc stays then
        _call(libc.mount, b"proc", b"/proc", b"proc", MS_RDONLY, None)
    _give_up_rights(libc)
    return outside


def _give_up_rights(libc: Any) -> None:
    """Without capabilities nobody can take the read-only flags and the empty folders away again."""
    _call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x2008_0522, 0)
    _call(libc.capset, ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _set_read_only(libc: Any) -> None:
    class MountAttr(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]

    attr = MountAttr(MOUNT_ATTR_RDONLY, 0, 0, 0)
    _call(libc.syscall, MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, ctypes.byref(attr), ctypes.sizeof(attr))


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


# ------------------------------------------------------------------------------------------------------------ limits


def limit(limits: dict[str, Any]) -> None:
    """Lay the limits on this process and all that it will start.  Linux only."""
    import resource

    def lower(what: int, to: int) -> None:
        hard = resource.getrlimit(what)[1]
        to = to if hard == resource.RLIM_INFINITY else min(to, hard)
        resource.setrlimit(what, (to, to))

    lower(resource.RLIMIT_AS, _own_pages() * resource.getpagesize() + limits["memory"])
    lower(resource.RLIMIT_FSIZE, limits["file_size"])
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, 1024)
    lower(resource.RLIMIT_NPROC, limits["processes"] + (0 if limits["walled"] else _processes_of_user()))
    with contextlib.suppress(OSError):
        os.nice(5)  # the judge comes first


def _own_pages() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[0])


def _processes_of_user() -> int:
    """Threads of this user, all of which count against the limit outside of a namespace."""
    count, user = 0, os.getuid()
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == user:  # noqa: PTH116
                    count += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
    return count


# ------------------------------------------------------------------------------------- for the judge: who is out there


def close_to_others() -> None:
    """Another process of the same user may then neither debug this one nor open what it has open."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    anonymous: int  # bytes of memory of its own
    name: str


def descendants(of: int) -> list[Process]:
    """All processes that `of` started, and those that they started.  Empty where there is no /proc."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return []
    return below(of, [one for name in names if name.isdigit() and (one := process(int(name))) is not None])


def below(of: int, everyone: Sequence[Process]) -> list[Process]:
    """Those of `everyone` that descend from `of`."""
    children: dict[int, list[Process]] = {}
    for one in everyone:
        children.setdefault(one.parent, []).append(one)
    found, todo = [], [of]
    while todo:
        below_it = children.get(todo.pop(), [])
        found += below_it
        todo += [one.pid for one in below_it]
    return found


def process(pid: int) -> Process | None:
    """What there is to know about a process; None if there is none."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        kilobytes = int(fields.get("RssAnon", "0 kB").split()[0])
        return Process(pid, int(fields["PPid"]), kilobytes * 1024, fields["Name"].strip())
    except (OSError, ValueError, KeyError):
        return None


MARK = "FLEXNANO_SUBMISSION"
"""Environment variable by which the processes of a submission are known, wherever they have gone."""


def marked(mark: str) -> list[int]:
    """Processes whose environment bears a mark.  (A program started with another environment loses it.)"""
    wanted, found = f"{MARK}={mark}".encode(), []
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
    return found


def end_all(which: Callable[[], Iterable[int]]) -> None:
    """Kill processes, again and again until there are none.  `which` says what is there now."""
    for _round in range(100):
        alive = [pid for pid in which() if pid != os.getpid() and not _is_dead(pid)]
        if not alive:
            return
        for how in (signal.SIGSTOP, signal.SIGKILL):  # first none may start another
            send(how, alive)
        time.sleep(0.01)


def send(what: signal.Signals, to: Iterable[int]) -> None:
    """Send a signal to processes; some may have ended already."""
    for pid in to:
        with contextlib.suppress(OSError):
            os.kill(pid, what)


def _is_dead(pid: int) -> bool:
    """Whether only its parent's interest keeps it in the list."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True
