"""Streaming an answer from the daemon to stdout: what the commands that ask have in common."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import note
from edged.cli.terminal import StatusLine, bar, harmless

CHAT_PATH = "/v1/chat/completions"


def stream_answer(
    daemon: Daemon,
    body: Mapping[str, Any],
    *,
    request_id: str | None = None,
    timeout: float | None = None,
) -> Mapping[str, Any]:
    """Write the answer to stdout as it comes, and return the stream's last chunk.

    What was written ends in a newline, also when the answer breaks off.

    Raises:
        CommandError: the request was refused or failed.
    """
    request = {**body, "stream": True}
    last: Mapping[str, Any] | None = None
    with AnswerText() as text:
        text.status.show("asking ...")
        with daemon.request("POST", CHAT_PATH, request, request_id=request_id, timeout=timeout) as response:
            for name, fields in response.events():
                if name == "data" and fields.get("choices"):
                    choice = fields["choices"][0]
                    text.write(choice["delta"].get("content") or "")
                    if choice.get("finish_reason"):
                        last = fields
                elif name == "accepted" and fields.get("queue_position"):
                    text.status.show(f"waiting: {fields['queue_position']} before you")
                elif name == "progress":
                    done, total = fields["prompt_tokens_done"], fields["prompt_tokens"]
                    text.status.show(f"reading the prompt {bar(done, total)} of {total} tokens")
                elif name == "done":
                    break
            if last is None:
                raise response.gone()
    return last


def tell_end(answer: Mapping[str, Any]) -> None:
    """Tell the person what the end of an answer leaves out.

    Raises:
        CommandError: the request was cancelled by another hand.
    """
    reason = answer["choices"][0]["finish_reason"]
    if reason == "cancelled":
        raise CommandError("the request was cancelled elsewhere", Exit.FAILED)
    if reason == "length":
        note("cut at the limit of tokens: --max-tokens allows more")
    if dropped := answer.get("session_turns_dropped"):
        note(f"{dropped} old turns no longer fit the model's context and were left out")


class AnswerText:
    """The answer on stdout, flushed piece by piece, and the status line that stands before it."""

    def __init__(self) -> None:
        self.status = StatusLine()
        self._harmless = sys.stdout.isatty()
        self._open_line = False

    def __enter__(self) -> AnswerText:
        return self

    def write(self, text: str) -> None:
        """Print a piece of the answer."""
        if not text:
            return
        self.status.clear()
        self._open_line = not text.endswith("\n")
        sys.stdout.write(harmless(text) if self._harmless else text)
        sys.stdout.flush()

    def close(self) -> None:
        """End the line that is open, and erase the status line."""
        self.status.clear()
        if self._open_line:
            self._open_line = False
            sys.stdout.write("\n")
            sys.stdout.flush()

    def __exit__(self, *exception: object) -> None:
        self.close()
