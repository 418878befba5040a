"""Doing what may take for ever without waiting for it for ever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

WAIT_SECONDS = 5.0


def aside(words: Callable[[], None]) -> None:
    """Log in a thread of its own and wait for it, but no longer than `WAIT_SECONDS`.

    The log may lie on the card that hangs, or go to a pipe that nobody reads.
    """
    thread = threading.Thread(target=words, name="liveness words", daemon=True)
    with contextlib.suppress(RuntimeError):  # there can be no more threads
        thread.start()
        thread.join(WAIT_SECONDS)
