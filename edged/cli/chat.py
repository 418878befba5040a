"""`edgectl chat`: a conversation at the prompt; the daemon keeps it as a session."""

from __future__ import annotations

import os
import secrets
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edged.cli.answer import stream_answer, tell_end
from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import note
from edged.cli.terminal import harmless

_HELP = """\
/reset        begin a new conversation
/system TEXT  say how the model should behave from now on
/quit         leave (or Ctrl-D)
/help         this
Ctrl-C ends an answer, or clears the line.
To ask something that begins with /, put a space before it."""
_HISTORY_LINES = 1000


def run(args: Namespace) -> Exit:
    """Take questions until the end of the input."""
    chat = _Chat(Daemon.of(args), args)
    chat.greet()
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    with _line_editing():
        while True:
            try:
                line = input("> " if sys.stdin.isatty() and sys.stdout.isatty() else "")
            except KeyboardInterrupt:
                print()
                continue
            except EOFError:
                break
            if line == "/quit":
                return Exit.OK
            chat.take(line)
    if sys.stdin.isatty():
        print()
    return Exit.OK


class _Chat:
    """One conversation after the other."""

    def __init__(self, daemon: Daemon, args: Namespace) -> None:
        self._daemon = daemon
        self._system: str | None = args.system
        self._sampling = {"max_tokens": args.max_tokens, "temperature": args.temperature}
        self._session = _new_session()

    def greet(self) -> None:
        """Say who listens.

        Raises:
            CommandError: nobody does.
        """
        status = self._daemon.get("/v1/status")
        model = status["model"]
        note(f"{model['name'] if model else 'no model loaded yet'} on {status['device_id']}; /help, /quit")

    def take(self, line: str) -> None:
        """Obey a command, or have a question answered."""
        command, _, rest = line.partition(" ")
        if command == "/reset":
            self._session = _new_session()
            note("a new conversation")
        elif command == "/system":
            self._system = rest.strip()
            note("from the next answer on")
        elif command == "/help":
            print(_HELP)
        elif line.startswith("/"):
            print(harmless(f"unknown command {command}: /help lists them"), file=sys.stderr)
        elif line.strip():
            self._ask(line.strip())

    def _ask(self, question: str) -> None:
        body = {
            "messages": [{"role": "user", "content": question}],
            "session": self._session,
            "system": self._system,
            **self._sampling,
        }
        try:
            tell_end(stream_answer(self._daemon, {k: v for k, v in body.items() if v is not None}))
        except KeyboardInterrupt:
            note("cancelled; the conversation goes on as if it had not been asked")
        except CommandError as error:
            print(f"edgectl: {harmless(str(error))}", file=sys.stderr)


def _new_session() -> str:
    return f"chat-{secrets.token_hex(8)}"


@contextmanager
def _line_editing() -> Iterator[None]:
    """Edit lines and keep a history that only its owner can read, where a person types."""
    if not sys.stdin.isatty():
        yield
        return
    import readline

    file = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edged" / "chat_history"
    readline.set_history_length(_HISTORY_LINES)
    os.umask(0o077)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        readline.read_history_file(file)
    except OSError:
        pass
    try:
        yield
    finally:
        try:
            readline.write_history_file(file)
        except OSError as error:
            note(f"the history was not kept: {error.strerror}")
