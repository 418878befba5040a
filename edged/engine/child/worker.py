"""The engine's process: `python -m edged.engine.child.worker FD DAEMON_PID`, started by the supervisor.

The main thread loads the model and computes; a second one reads messages, so that a
cancellation can stop the decode that is running. It ends when the socketpair closes.
"""

from __future__ import annotations

import faulthandler
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from edged.engine.child.channel import Channel, log
from edged.engine.child.confine import ConfinementError, deny_syscalls, keep_to, lower_priority
from edged.engine.messages import STACKS_SIGNAL, Load

STACK_BYTES = 64 << 20
"""64 KiB of one letter overflow 16 MiB with deepseek's vocabulary; only what is used counts."""


def main() -> None:
    """Confine the process, then serve the daemon at the other end of the given descriptor."""
    # The daemon decides when the engine ends; a signal to the whole group must not cut answers off.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(STACKS_SIGNAL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [STACKS_SIGNAL])  # the daemon waits for its own, blocked
    deepen_stack()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    load = channel.first()
    if not isinstance(load, Load):
        return
    try:
        confine(load, daemon=int(sys.argv[2]))
        channel.start()
        from edged.engine.child.loading import run  # not before: native code runs as soon as it is loaded

        run(channel, load)
    except (BrokenPipeError, ProcessLookupError):
        pass  # the daemon is gone
    except Exception as error:  # the daemon starts the engine again; this is for its log
        log("error", "the engine failed", reason=f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def deepen_stack() -> None:
    """Let the main thread's stack grow: some tokenisers recurse over every character of a long word."""
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if most == resource.RLIM_INFINITY else min(STACK_BYTES, most)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, most))


def confine(load: Load, daemon: int) -> None:
    """Give up, while there is one thread, what computing does not need; say what this machine can't take."""
    model_directory = Path(load.path).resolve().parent

    def keep_to_model() -> None:
        if not keep_to([model_directory]):
            raise ConfinementError("the kernel has no Landlock: the engine may read what the daemon may")

    steps: tuple[Callable[[], None], ...] = (lambda: lower_priority(daemon), keep_to_model, deny_syscalls)
    for give_up in steps:
        try:
            give_up()
        except ProcessLookupError:
            raise
        except (ConfinementError, OSError) as error:
            log("warning", "the engine is less confined than it could be", reason=str(error))


if __name__ == "__main__":
    main()
