"""What the watch over memory asks of core and engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Happening = Literal["memory_level", "memory_evicted", "memory_held", "engine_grown"]


class Actions(Protocol):
    """Core and engine, as far as memory goes. Nothing here may wait or raise.

    What is asked holds until it is taken back.
    """

    def keep_caches(self, allowed: bool) -> None:
        """Let states and caches be kept again, or drop those that nobody uses and give the memory back."""

    def shed(self, reason: str) -> None:
        """Finish what runs, and begin one request at a time.

        Answers are capped, prompts from MQTT wait in the journal, those on the socket are refused with
        `low_memory`, and the context is made smaller when nothing runs.
        """

    def serve_fully(self) -> None:
        """Serve as usual again."""

    def evict(self, reason: str) -> None:
        """End the engine at once and let nothing start it; leave the pool.

        What was being generated ends with a clear frame, or goes on later.
        """

    def drop_file_cache(self) -> None:
        """Give up what the page cache holds of the model's file: the engine has ended."""

    def load_again(self) -> None:
        """Let the engine start again, answer what waited and join the pool."""

    def unload(self, reason: str) -> None:
        """End the engine until somebody asks for something: nothing runs in it."""

    def restart_engine(self, reason: str) -> None:
        """Start the engine anew: nothing runs in it."""

    def exit(self, reason: str) -> None:
        """Say the last words and end the daemon so that the service manager starts it again."""

    def tell(self, happening: Happening, figures: Mapping[str, Any]) -> None:
        """Tell what has happened, to the log and to operators."""


def drop_cached(path: Path) -> bool:
    """Give up what the page cache holds of a file; say whether that could be asked for.

    Pages that a process still has mapped stay.
    """
    try:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return False
    return True
