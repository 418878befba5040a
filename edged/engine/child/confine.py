"""Takes away from the engine child what computing does not need, before it loads the library.

llama.cpp parses files and grammars that strangers wrote. A fault in it should meet a
process that has no network, starts no program, reads little and writes no file.
Everything here holds for the calling thread and those made after it, so call it while
there is one thread only, and in this order: `lower_priority` (which still writes a file),
`keep_to`, `deny_syscalls`. The standard library alone is used: nothing big is loaded yet.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

import edged

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.syscall.restype = ctypes.c_long

# linux/prctl.h, linux/seccomp.h
_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2


class ConfinementError(Exception):
    """This machine can't confine the process; the message says why, in one line."""


class Instruction(NamedTuple):
    """One instruction of classic BPF (struct sock_filter); jumps count from the next one."""

    code: int
    if_true: int
    if_false: int
    k: int


class _Numbers(NamedTuple):
    """A system call's number on each processor; None where it has none."""

    x86_64: int | None
    aarch64: int | None


# Sources: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
DENIED_CALLS = {
    # The network. Sockets that were inherited go on working.
    "socket": _Numbers(41, 198),
    "socketpair": _Numbers(53, 199),
    "connect": _Numbers(42, 203),
    "bind": _Numbers(49, 200),
    "listen": _Numbers(50, 201),
    "accept": _Numbers(43, 202),
    "accept4": _Numbers(288, 242),
    # io_uring does all of the above without their system calls.
    "io_uring_setup": _Numbers(425, 425),
    "io_uring_enter": _Numbers(426, 426),
    "io_uring_register": _Numbers(427, 427),
    # Other programs and processes: starting, signalling, reading and writing them.
    "execve": _Numbers(59, 221),
    "execveat": _Numbers(322, 281),
    "fork": _Numbers(57, None),
    "vfork": _Numbers(58, None),
    "kill": _Numbers(62, 129),
    "tkill": _Numbers(200, 130),
    "rt_sigqueueinfo": _Numbers(129, 138),
    "rt_tgsigqueueinfo": _Numbers(297, 240),
    "pidfd_send_signal": _Numbers(424, 424),
    "pidfd_getfd": _Numbers(438, 438),
    "process_madvise": _Numbers(440, 440),
    "process_vm_readv": _Numbers(310, 270),
    "process_vm_writev": _Numbers(311, 271),
    "ptrace": _Numbers(101, 117),
    # The kernel itself, and ways out of a namespace.
    "add_key": _Numbers(248, 217),
    "request_key": _Numbers(249, 218),
    "keyctl": _Numbers(250, 219),
    "bpf": _Numbers(321, 280),
    "perf_event_open": _Numbers(298, 241),
    "userfaultfd": _Numbers(323, 282),
    "kexec_load": _Numbers(246, 104),
    "kexec_file_load": _Numbers(320, 294),
    "init_module": _Numbers(175, 105),
    "finit_module": _Numbers(313, 273),
    "delete_module": _Numbers(176, 106),
    "reboot": _Numbers(169, 142),
    "mount": _Numbers(165, 40),
    "umount2": _Numbers(166, 39),
    "pivot_root": _Numbers(155, 41),
    "chroot": _Numbers(161, 51),
    "open_by_handle_at": _Numbers(304, 265),
    "setns": _Numbers(308, 268),
    "unshare": _Numbers(272, 97),
}
# Allowed by their argument: new threads but no processes, signals (abort) to oneself but to no one else.
CLONE = _Numbers(56, 220)
CLONE3 = _Numbers(435, 435)
TGKILL = _Numbers(234, 131)
_CLONE_THREAD = 0x00010000

_AUDIT_64BIT_LITTLE_ENDIAN = 0xC0000000  # linux/audit.h; the rest of an AUDIT_ARCH is the ELF machine
AUDIT_ARCHES = {"x86_64": _AUDIT_64BIT_LITTLE_ENDIAN | 62, "aarch64": _AUDIT_64BIT_LITTLE_ENDIAN | 183}
_X32_BIT = 0x40000000

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_JEQ, JGE, JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; of the argument the low half
_ALLOW = 0x7FFF0000
_FAIL_WITH = 0x00050000


def filter_program(machine: str, pid: int) -> list[Instruction]:
    """Return the seccomp filter for a 64-bit process.

    Args:
        machine: "x86_64" or "aarch64".
        pid: the process that may go on signalling itself.

    Raises:
        ConfinementError: another machine.
    """
    if machine not in AUDIT_ARCHES:
        raise ConfinementError(f"no system call filter is written for {machine}")
    tail = [
        Instruction(_RETURN, 0, 0, _ALLOW),
        Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),  # clone
        Instruction(_JUMP_ANY_BIT, 2, 3, _CLONE_THREAD),
        Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),  # tgkill
        Instruction(_JUMP_EQUAL, 0, 1, pid),
        Instruction(_RETURN, 0, 0, _ALLOW),
        Instruction(_RETURN, 0, 0, _FAIL_WITH | errno.EPERM),
        Instruction(_RETURN, 0, 0, _FAIL_WITH | errno.ENOSYS),
    ]
    clone_place, tgkill_place, refuse_place, absent_place = 1, 3, 6, 7

    jumps: list[tuple[int, int, int]] = []  # code, operand, place in the tail
    if machine == "x86_64":
        jumps.append((_JUMP_AT_LEAST, _X32_BIT, refuse_place))
    for numbers in DENIED_CALLS.values():
        number = getattr(numbers, machine)
        if number is not None:
            jumps.append((_JUMP_EQUAL, number, refuse_place))
    # clone3's flags are behind a pointer that a filter can't follow; "no such call" sends libc to clone.
    jumps.append((_JUMP_EQUAL, getattr(CLONE3, machine), absent_place))
    jumps.append((_JUMP_EQUAL, getattr(CLONE, machine), clone_place))
    jumps.append((_JUMP_EQUAL, getattr(TGKILL, machine), tgkill_place))

    head = [
        Instruction(_LOAD, 0, 0, _ARCH),
        Instruction(_JUMP_EQUAL, 0, 1 + len(jumps) + refuse_place, AUDIT_ARCHES[machine]),
        Instruction(_LOAD, 0, 0, _NUMBER),
    ]
    body = [
        Instruction(code, len(jumps) - 1 - index + place, 0, operand)
        for index, (code, operand, place) in enumerate(jumps)
    ]
    return head + body + tail


class _SockFilter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_SockFilter)))


def deny_syscalls() -> None:
    """Refuse the calls of `DENIED_CALLS` from now on with EPERM; there is no way back.

    Threads can still be made, processes can't; the process may signal itself alone.

    Raises:
        ConfinementError: this machine has no filter, its kernel no seccomp, or another
            thread runs already and would stay free.
    """
    if sys.maxsize <= 2**32 or sys.byteorder != "little":
        raise ConfinementError("no system call filter is written for 32-bit or big-endian programs")
    program = filter_program(os.uname().machine, os.getpid())
    _require_one_thread()
    _forbid_new_privileges()
    instructions = (_SockFilter * len(program))(*(_SockFilter(*instruction) for instruction in program))
    fprog = _SockFprog(len(program), instructions)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0):
        _raise_errno("the kernel took no system call filter")


# linux/landlock.h. Numbers are the same on every processor.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# How many rights over files each version of the interface knows (from the second on: refer, truncate, ioctl).
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_RIGHTS = 0b11  # bind and connect TCP
_SCOPES = 0b11  # abstract Unix sockets and signals beyond this process


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def keep_to(readable: Iterable[Path]) -> bool:
    """Let the process open from now on only what is below `readable` or the interpreter needs.

    All of it read-only. Files that are open already stay as they are.

    Args:
        readable: files, or directories with all that is below them; symbolic links are followed.

    Returns:
        False where the kernel has no Landlock: nothing has changed then.

    Raises:
        OSError: one of `readable` can't be opened.
        ConfinementError: the kernel has Landlock but refused, or another thread runs
            already and would stay free.
    """
    version = _landlock_version()
    if version == 0:
        return False
    _require_one_thread()
    ruleset = _RulesetAttr(
        handled_access_fs=(1 << _FILE_RIGHTS.get(version, 16)) - 1,
        handled_access_net=_NET_RIGHTS if version >= 4 else 0,
        scoped=_SCOPES if version >= 6 else 0,
    )
    fd = _libc.syscall(
        _LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0
    )
    if fd < 0:
        _raise_errno("the kernel made no Landlock ruleset")
    try:
        for path in readable:
            _allow_reading(fd, path)
        for path in _needed_by_the_interpreter():
            if path.exists():
                _allow_reading(fd, path)
        _forbid_new_privileges()
        if _libc.syscall(_LANDLOCK_RESTRICT_SELF, fd, 0):
            _raise_errno("the kernel refused to apply the Landlock ruleset")
    finally:
        os.close(fd)
    return True


def _landlock_version() -> int:
    version: int = _libc.syscall(
        _LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION
    )
    return max(version, 0)


def _allow_reading(ruleset_fd: int, path: Path) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        access = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
        rule = _PathBeneathAttr(allowed_access=access, parent_fd=fd)
        if _libc.syscall(_LANDLOCK_ADD_RULE, ruleset_fd, _LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0):
            _raise_errno(f"the kernel took no Landlock rule for {path}")
    finally:
        os.close(fd)


def _needed_by_the_interpreter() -> set[Path]:
    """Return where Python, the libraries and what they ask of the machine are."""
    package = Path(edged.__path__[0])
    system = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc", "/sys", "/dev/null", "/dev/urandom")
    # `python -m` puts the working directory in front, be it somebody's home.
    entries = sys.path if sys.flags.safe_path else sys.path[1:]
    modules = (Path(entry) for entry in entries if entry.startswith("/"))
    return {package, Path(sys.prefix), Path(sys.base_prefix), *modules, *map(Path, system)}


def lower_priority(parent: int, *, oom_score: int = 500) -> None:
    """Make this process the one to go: with its daemon, before its daemon, and leaving no trace.

    The kernel kills it when the thread that started it ends (so start it from a thread
    that lives as long as the daemon), takes it first when memory runs out, and writes no
    core dump of it: the prompts would be in there. It stays dumpable, or else the daemon
    could not read its memory figures.

    Args:
        parent: process id of the daemon.
        oom_score: how far to raise oom_score_adj, which ends at 1000.

    Raises:
        ProcessLookupError: the daemon has ended already, so nobody waits for this process.
        ConfinementError: oom_score_adj can't be written; the rest holds.
    """
    # 1 and not 0, which a core_pattern that pipes into a program would not heed (fs/coredump.c).
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        _raise_errno("the kernel took no parent-death signal")
    if os.getppid() != parent:  # it ended before the line above
        raise ProcessLookupError(errno.ESRCH, f"the daemon (process {parent}) has ended")
    own = Path("/proc/self/oom_score_adj")
    try:
        own.write_text(str(min(int(own.read_text()) + oom_score, 1000)))
    except OSError as error:
        raise ConfinementError(f"{own} can't be written: {error.strerror}") from None


def _require_one_thread() -> None:
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads != 1:
        raise ConfinementError(f"{threads} threads run already; only this one would be confined")


def _forbid_new_privileges() -> None:
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        _raise_errno("the kernel took no_new_privs back")


def _raise_errno(what: str) -> NoReturn:
    raise ConfinementError(f"{what}: {os.strerror(ctypes.get_errno())}")
