"""An answer that comes through the broker, as it is printed."""

from __future__ import annotations

import sys

from edged.cli.answer import AnswerText
from edged.cli.mqtt_frames import Fields, Frames
from edged.cli.output import note, print_json_line
from edged.cli.terminal import bar


class Answer:
    """Prints new frames: their text as it comes, the whole text at the end, or each as a line of JSON.

    Attributes:
        frames: what has come.
    """

    def __init__(self, *, whole: bool, as_json: bool) -> None:
        self.frames = Frames()
        self._whole = whole
        self._as_json = as_json
        self._out = AnswerText()
        self._printed = ""
        self._attempts = 1
        self._differs = False

    def __enter__(self) -> Answer:
        self._out.status.show("asking ...")
        return self

    def __exit__(self, *exception: object) -> None:
        self._out.close()

    def clear(self) -> None:
        """Erase the status line, for a line that is to stay."""
        self._out.status.clear()

    def tell(self, text: str) -> None:
        """Tell the person something beside the answer."""
        self.clear()
        note(text)

    def take(self, device: str, frame: Fields) -> bool:
        """Take a frame and print what is new of it; say whether it is new.

        Raises:
            BrokenPipeError: nobody reads the answer any more.
        """
        if not self.frames.take(device, frame):
            return False
        if self._as_json:
            print_json_line(frame)
            return True
        self._show_state(frame)
        if self.frames.attempts > self._attempts:
            self._attempts = self.frames.attempts
            self.tell(f"{self.frames.device} has begun anew")
        terminal = self.frames.terminal
        if terminal is None:
            if not self._whole and not self._differs:
                self._go_on(self.frames.text)
        elif terminal["type"] == "done":
            self._end(str(terminal.get("text", "")))
        return True

    def _show_state(self, frame: Fields) -> None:
        if frame.get("type") == "accepted" and frame.get("queue_position"):
            self._out.status.show(f"waiting: {frame['queue_position']} before you")
        elif frame.get("type") == "progress":
            done, total = int(frame["prompt_tokens_done"]), int(frame["prompt_tokens"])
            self._out.status.show(f"reading the prompt {bar(done, total)} of {total} tokens")

    def _go_on(self, text: str) -> None:
        """Print what `text` has beyond what is printed; a new attempt repeats that first."""
        if text.startswith(self._printed):
            self._out.write(text[len(self._printed) :])
            self._printed = text
        elif not self._printed.startswith(text):
            self._void()

    def _end(self, text: str) -> None:
        if not text.startswith(self._printed):
            self._void()
        self._out.write(text[len(self._printed) :])
        self._printed = text

    def _void(self) -> None:
        """Give up what is printed: only the whole text of the end counts now."""
        self._out.close()
        line = "the answer was begun anew and differs: what stands above is void, the whole follows"
        print(f"edgectl: {line}", file=sys.stderr, flush=True)
        self._printed = ""
        self._differs = True
