"""Runs in the virtual machine: makes a stopped process call socket(2), and prints what came of it.

`inject.py PID` prints 0 or more where the process got a socket, else the error's number below zero. Its own
filter decides, as if it had made the call itself. Standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import NamedTuple

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

# linux/ptrace.h
_ATTACH, _DETACH, _STEP, _PEEK, _GETREGS, _SETREGS = 16, 17, 9, 1, 0x4204, 0x4205
_PRSTATUS = 1
_WORDS = 64
_AF_UNIX, _SOCK_STREAM = 1, 1


class _Processor(NamedTuple):
    """Where user_regs_struct has what, in words; the instruction that calls the kernel; socket's number."""

    arguments: tuple[int, int, int]
    number: int
    result: int
    counter: int
    restart: int | None
    instruction: bytes
    socket: int


_PROCESSORS = {
    "x86_64": _Processor((14, 13, 12), 10, 10, 16, 15, b"\x0f\x05", 41),
    "aarch64": _Processor((0, 1, 2), 8, 0, 32, None, b"\x01\x00\x00\xd4", 198),
}


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, pid: int, address: object = None, data: object = None) -> int:
    ctypes.set_errno(0)
    value: int = libc.ptrace(request, pid, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request}: {os.strerror(ctypes.get_errno())}")
    return value


def main(pid: int) -> int:
    """Make the process, which waits in a call, call again by the same instruction; return the result."""
    kind = _PROCESSORS[os.uname().machine]
    _ptrace(_ATTACH, pid)
    os.waitpid(pid, 0)
    try:
        words = (ctypes.c_uint64 * _WORDS)()
        vector = _Vector(ctypes.addressof(words), ctypes.sizeof(words))
        _ptrace(_GETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        saved = bytes(words)
        words[kind.counter] -= len(kind.instruction)
        code = _ptrace(_PEEK, pid, words[kind.counter]) & (1 << 64) - 1
        if not code.to_bytes(8, "little").startswith(kind.instruction):
            raise SystemExit("the process is not in a system call")
        words[kind.number] = kind.socket
        for place, value in zip(kind.arguments, (_AF_UNIX, _SOCK_STREAM, 0), strict=True):
            words[place] = value
        if kind.restart is not None:
            words[kind.restart] = (1 << 64) - 1
        _ptrace(_SETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        _ptrace(_STEP, pid)
        os.waitpid(pid, 0)
        _ptrace(_GETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        result = ctypes.c_int64(words[kind.result]).value
        ctypes.memmove(words, saved, len(saved))
        _ptrace(_SETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
    finally:
        _ptrace(_DETACH, pid)
    return result


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
