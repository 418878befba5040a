"""Runs in the virtual machine: makes a stopped process call socket(2), and prints what came of it.

`inject.py PID` prints 0 or more where the process got a socket, else the error's number below zero. Its own
filter decides, as if it had made the call itself. Standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

# linux/ptrace.h
_ATTACH, _DETACH, _STEP, _PEEK, _POKE, _GETREGS, _SETREGS = 16, 17, 9, 1, 4, 0x4204, 0x4205
_PRSTATUS = 1
_WORDS = 64
_AF_UNIX, _SOCK_STREAM = 1, 1
# Where user_regs_struct has them, in words: arguments, the call's number, its result, the program counter.
_LAYOUT = {
    "x86_64": {
        "arguments": (14, 13, 12),
        "number": 10,
        "result": 10,
        "counter": 16,
        "restart": 15,
        "call": 41,
    },
    "aarch64": {
        "arguments": (0, 1, 2),
        "number": 8,
        "result": 0,
        "counter": 32,
        "restart": None,
        "call": 198,
    },
}
_INSTRUCTION = {"x86_64": (0xFFFF, 0x050F), "aarch64": (0xFFFFFFFF, 0xD4000001)}


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, pid: int, address: object = None, data: object = None) -> int:
    ctypes.set_errno(0)
    value: int = libc.ptrace(request, pid, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request}: {os.strerror(ctypes.get_errno())}")
    return value


def main(pid: int) -> int:
    """Make the process call, put everything back and return the result."""
    machine = os.uname().machine
    layout = _LAYOUT[machine]
    mask, instruction = _INSTRUCTION[machine]
    _ptrace(_ATTACH, pid)
    os.waitpid(pid, 0)
    try:
        words = (ctypes.c_uint64 * _WORDS)()
        vector = _Vector(ctypes.addressof(words), ctypes.sizeof(words))
        _ptrace(_GETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        saved = bytes(words)
        counter = words[layout["counter"]]
        code = _ptrace(_PEEK, pid, counter)
        _ptrace(_POKE, pid, counter, (code & ~mask & 0xFFFFFFFFFFFFFFFF) | instruction)
        words[layout["number"]] = layout["call"]
        for place, value in zip(layout["arguments"], (_AF_UNIX, _SOCK_STREAM, 0), strict=True):
            words[place] = value
        if layout["restart"] is not None:
            words[layout["restart"]] = 0xFFFFFFFFFFFFFFFF
        _ptrace(_SETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        _ptrace(_STEP, pid)
        os.waitpid(pid, 0)
        _ptrace(_GETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
        result = ctypes.c_int64(words[layout["result"]]).value
        ctypes.memmove(words, saved, len(saved))
        _ptrace(_POKE, pid, counter, code & 0xFFFFFFFFFFFFFFFF)
        _ptrace(_SETREGS, pid, _PRSTATUS, ctypes.addressof(vector))
    finally:
        _ptrace(_DETACH, pid)
    return result


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
