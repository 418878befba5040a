"""`edgectl ask`: one question, its answer on stdout."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from edged.cli.answer import CHAT_PATH, stream_answer, tell_end
from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import print_json
from edged.cli.terminal import harmless

_MAX_STDIN_BYTES = 16 * 2**20  # far above any context: only there to stop an endless pipe


def run(args: Namespace) -> Exit:
    """Ask, and print the answer."""
    body = _body(args)
    daemon = Daemon.of(args)
    if args.json or args.no_stream:
        tell_end(_whole_answer(daemon, body, args))
    else:
        tell_end(stream_answer(daemon, body, request_id=args.id, timeout=args.timeout))
    return Exit.OK


def _whole_answer(daemon: Daemon, body: dict[str, Any], args: Namespace) -> dict[str, Any]:
    body["stream"] = False
    with daemon.request("POST", CHAT_PATH, body, request_id=args.id, timeout=args.timeout) as response:
        answer: dict[str, Any] = response.json()
    text = answer["choices"][0]["message"]["content"]
    if args.json:
        print_json(answer)
    else:
        text = harmless(text) if sys.stdout.isatty() else text
        print(text, end="" if text.endswith("\n") else "\n")
    return answer


def _body(args: Namespace) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question(args.text)}], **options(args)}


def options(args: Namespace) -> dict[str, Any]:
    """Return the fields of the request that the command line's options give."""
    fields = {
        "system": args.system,
        "session": args.session,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "seed": args.seed,
        "stop": args.stop,
        "priority": args.priority,
        "ttl_s": args.ttl,
    }
    return {name: value for name, value in fields.items() if value is not None}


def question(words: list[str]) -> str:
    """Return the argument's text, then that of a piped stdin after a blank line.

    Raises:
        CommandError: both are empty, or stdin can't be read as text.
    """
    parts = [" ".join(words), "" if sys.stdin is None or sys.stdin.isatty() else _piped()]
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise CommandError("there is no question", Exit.USAGE, hint="give it as TEXT or on stdin: ask --help")
    return text


def _piped() -> str:
    data = sys.stdin.buffer.read(_MAX_STDIN_BYTES + 1)
    if len(data) > _MAX_STDIN_BYTES:
        raise CommandError(f"stdin has more than {_MAX_STDIN_BYTES} bytes", Exit.USAGE)
    try:
        return data.decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise CommandError(f"stdin is no UTF-8 (byte {error.start})", Exit.USAGE) from None
