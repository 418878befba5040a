"""An engine for the supervisor's tests: it does what the model's file name says, then what the real one does.

It stands in for what this machine can't have: a processor whose repacked kernels are illegal, a library that
aborts. It speaks the real protocol over the real socketpair; only its computing is made up.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from edged.engine.child.channel import Channel, log
from edged.engine.messages import (
    STACKS_SIGNAL,
    Cancel,
    Delta,
    Generate,
    Heartbeat,
    Left,
    Load,
    LoadFailed,
    Loading,
    Prefixes,
    Prepare,
    Prepared,
    PutBack,
    Reading,
    Ready,
    Step,
    Trim,
    Tune,
)


def hang() -> NoReturn:
    """Wait for ever in native code that lets no other thread of Python's run."""
    library = ctypes.PyDLL(None)
    while True:
        library.sleep(3600)


def main() -> None:
    faulthandler.register(STACKS_SIGNAL)
    sock = socket.socket(fileno=int(sys.argv[1]))
    channel = Channel(sock)
    load = channel.first()
    assert isinstance(load, Load)
    behaviour = Path(load.path).stem
    if behaviour == "bad-kernel" and load.repack:
        os.kill(os.getpid(), signal.SIGILL)
    if behaviour == "refuses":
        channel.send(LoadFailed("unknown model architecture: 'x'"))
        return
    if behaviour == "dies-at-load" or (
        behaviour == "dies-while-broken" and Path(load.path).read_text() == "broken"
    ):
        raise SystemExit(3)
    if behaviour == "loads-for-ever":
        hang()
    if behaviour == "is-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    log("warning", "a line of the child", place="fake")
    print("what a dying library writes", file=sys.stderr, flush=True)
    channel.start()
    channel.send(Loading(1.0))  # from here to Ready is taken for the speed of the engine
    channel.send(
        Ready(
            context=1024,
            template="model",
            stops=[],
            n_tokens=100,
            load_seconds=0.0,
            prefix_reuse="anywhere",
            generates=True,
            pooling=None,
            dimensions=0,
            kernels=["AVX2"],
            kernel_build=None,
            speeds=[float(os.getpid())] if load.measures else [],
        )
    )
    tuned = (0, 0, 0)
    while (message := channel.inbox.get()) is not None:
        match message:
            case Prepare():
                channel.send(Prepared(message.request, [1, 2, 3], 2))
            case Generate() if behaviour == "hangs":
                hang()
            case Generate() if behaviour == "forgets":
                while True:
                    channel.send(Heartbeat())
                    time.sleep(0.05)
            case Generate() if behaviour == "dies-of-requests":
                os.kill(os.getpid(), signal.SIGABRT)
            case Generate() if behaviour == "talks-nonsense":
                sock.sendall(b'\0\0\0\x13["Refused",1,"?",0]')
            case Generate() if behaviour.startswith("pauses"):
                # The first engine that has the request says a word, the next one ends the answer.
                channel.send(
                    Step(
                        [Delta(message.request, [7], "seven ", [], "stop" if message.produced else None)], []
                    )
                )
            case Generate():
                channel.send(Step([], [Reading(message.request, 3, message.boundary)]))
                if behaviour != "keeps-silent":
                    channel.send(Step([Delta(message.request, [7], "seven", [], "stop")], []))
            case PutBack() if behaviour != "keeps-silent":
                channel.send(Left(message.request))
            case Tune():
                tuned = (message.threads, message.threads_batch, round(1000 * message.duty))
            case Trim():
                channel.send(Prefixes(message.prefix_bytes, *tuned, 0, 0, 0))
            case Cancel():
                channel.send(Step([Delta(message.request, [], "", [], "cancelled")], []))


if __name__ == "__main__":
    main()
