"""Runs in the virtual machine: makes a process call socket(2), and prints what came of it.

`inject.py PID` prints 0 or more where the process got a socket, else the error's number below zero. Its own
filter decides, as if it had made the call itself. Standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NamedTuple

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

# linux/ptrace.h
_ATTACH, _DETACH, _CALL, _SETOPTIONS, _GETREGS, _SETREGS = 16, 17, 24, 0x4200, 0x4204, 0x4205
_MARK_CALLS = 1
_MARKED = signal.SIGTRAP | 0x80
_PRSTATUS, _ARM_SYSTEM_CALL = 1, 0x404
_WORDS = 64
_AF_UNIX, _SOCK_STREAM = 1, 1


class _Processor(NamedTuple):
    """Where user_regs_struct has what, in words.

    Attributes:
        arguments: of a call.
        number: which call it is, for who makes it.
        entered: which call it is, for the kernel that was just entered; None where a set of its own has it.
        result: of a call.
        counter: the instruction after the one that calls.
        length: of that one, in bytes.
        socket: the number of socket(2).
    """

    arguments: tuple[int, int, int]
    number: int
    entered: int | None
    result: int
    counter: int
    length: int
    socket: int


_PROCESSORS = {
    "x86_64": _Processor((14, 13, 12), 10, 15, 10, 16, 2, 41),
    "aarch64": _Processor((0, 1, 2), 8, None, 0, 32, 4, 198),
}


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, pid: int, address: object = None, data: object = None) -> None:
    ctypes.set_errno(0)
    libc.ptrace(request, pid, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request}: {os.strerror(ctypes.get_errno())}")


def main(pid: int) -> int:
    """Make the next call of the process another one, return its result, and let the process call again."""
    kind = _PROCESSORS[os.uname().machine]
    _ptrace(_ATTACH, pid)
    os.waitpid(pid, 0)
    try:
        _ptrace(_SETOPTIONS, pid, None, _MARK_CALLS)
        _to_call(pid)
        words = (ctypes.c_uint64 * _WORDS)()
        vector = _Vector(ctypes.addressof(words), ctypes.sizeof(words))
        _ptrace(_GETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        saved = bytes(words)
        for place, value in zip(kind.arguments, (_AF_UNIX, _SOCK_STREAM, 0), strict=True):
            words[place] = value
        if kind.entered is not None:
            words[kind.entered] = kind.socket
        _ptrace(_SETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        if kind.entered is None:
            number = ctypes.c_int(kind.socket)
            of_number = _Vector(ctypes.addressof(number), ctypes.sizeof(number))
            _ptrace(_SETREGS, pid, _ARM_SYSTEM_CALL, ctypes.addressof(of_number))
        _to_call(pid)
        _ptrace(_GETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        result = ctypes.c_int64(words[kind.result]).value
        ctypes.memmove(words, saved, len(saved))
        words[kind.counter] -= kind.length
        if kind.entered is not None:
            words[kind.number] = words[kind.entered]
        _ptrace(_SETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
    finally:
        _ptrace(_DETACH, pid)
    return result


def _to_call(pid: int) -> None:
    """Let the process run until it enters or leaves the kernel by a call; signals reach it."""
    passed = 0
    while passed != _MARKED:
        _ptrace(_CALL, pid, None, passed)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            raise SystemExit("the process ended")
        passed = os.WSTOPSIG(status)


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
