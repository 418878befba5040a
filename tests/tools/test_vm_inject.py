"""Whether a process can be made to call socket(2), and goes on as if it had not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools.vm import inject

# It says when it is about to wait, and answers what it then reads. With a word it may open no sockets.
_WAITS = """
import ctypes, os, struct, sys
if len(sys.argv) > 1:
    libc = ctypes.CDLL(None)
    number = struct.pack("HBBI", 0x20, 0, 0, 0)
    is_socket = struct.pack("HBBI", 0x15, 0, 1, int(sys.argv[1]))
    refuse, allow = (struct.pack("HBBI", 0x06, 0, 0, value) for value in (0x50001, 0x7fff0000))
    program = ctypes.create_string_buffer(number + is_socket + refuse + allow)
    filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(program)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter) == 0
os.write(1, b"waiting")
os.write(1, os.read(0, 5))
"""


@contextmanager
def _waiting(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-S", "-c", _WAITS, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert os.read(process.stdout.fileno(), 7) == b"waiting"
        yield process
        process.kill()


def _call(process: subprocess.Popen[bytes]) -> int:
    if os.uname().machine not in inject._PROCESSORS:
        pytest.skip("not a processor that edged is packaged for")
    try:
        return inject.main(process.pid)
    except PermissionError:
        pytest.skip("nothing may be traced here")


def test_free_process_gets_a_socket_and_goes_on() -> None:
    with _waiting() as process:
        number = _call(process)

        assert str(Path(f"/proc/{process.pid}/fd/{number}").readlink()).startswith("socket:")
        assert process.communicate(b"again")[0] == b"again"
        assert process.returncode == 0


def test_filter_of_the_process_decides() -> None:
    with _waiting(str(inject._PROCESSORS[os.uname().machine].socket)) as process:
        assert _call(process) == -errno.EPERM
        assert process.communicate(b"again")[0] == b"again"
