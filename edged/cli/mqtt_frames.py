"""Puts the frames of one answer in order, come they twice, late, from two attempts or from two devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]


class Frames:
    """The frames of one request.

    One device and attempt is followed at a time; the first terminal frame counts, whoever sent it.

    Attributes:
        text: what has come without a gap of the attempt that is followed.
        terminal: the frame that ended the request.
        device: whom is listened to.
        attempts: how many streams have been begun.
    """

    def __init__(self) -> None:
        self.text = ""
        self.terminal: Fields | None = None
        self.device: str | None = None
        self.attempts = 0
        self._attempt = -1
        self._next = 0
        self._waiting: dict[int, Fields] = {}
        self._seen: set[tuple[str, int, int]] = set()
        self._any_device = False

    def take(self, device: str, frame: Fields) -> bool:
        """Take a frame; say whether it is new."""
        attempt, seq = frame.get("attempt"), frame.get("seq")
        if not isinstance(attempt, int) or not isinstance(seq, int) or self.terminal is not None:
            return False
        if frame.get("type") in ("done", "error"):
            self.terminal = frame
            self.device = device
            return True
        if (device, attempt, seq) in self._seen:
            return False
        self._seen.add((device, attempt, seq))
        self._follow(device, attempt)
        if (device, attempt) == (self.device, self._attempt):
            self._waiting[seq] = frame
            self._join()
        return True

    def listen_to_any(self) -> None:
        """Follow another device if it is the next to speak: the one that was followed is silent."""
        self._any_device = True

    def _follow(self, device: str, attempt: int) -> None:
        other = device != self.device
        if other and self.device is not None and not self._any_device:
            return
        self._any_device = False
        if other or attempt > self._attempt:
            self.device, self._attempt, self._next, self.text = device, attempt, 0, ""
            self._waiting.clear()
            self.attempts += 1

    def _join(self) -> None:
        while (frame := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            if frame.get("type") == "chunk":
                self.text += str(frame.get("text", ""))
