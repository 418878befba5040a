"""The entry of edgectl: runs the command's module, and turns what goes wrong into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from edged.cli.errors import CommandError, Exit, error_of_exception
from edged.cli.parser import build_parser
from edged.cli.terminal import harmless
from edged.errors import EdgedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return edgectl's exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
            code = _run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except Exception as error:
            code = _tell(_readable(error), as_json="--json" in arguments)
    except BrokenPipeError:
        # What is still buffered has no reader: let it go, or the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _run(arguments: Sequence[str]) -> Exit:
    args = build_parser().parse_args(arguments)
    command = import_module(f"edged.cli.{args.command}")
    code: Exit = command.run(args)
    return code


def _readable(error: Exception) -> CommandError:
    match error:
        case CommandError():
            return error
        case EdgedError():
            return error_of_exception(error)
    if os.environ.get("EDGED_DEBUG"):
        import traceback

        traceback.print_exception(error)
    what = f"{type(error).__name__}: {error}"
    return CommandError(
        f"unexpected: {what}", Exit.FAILED, hint="EDGED_DEBUG=1 shows where; please report it"
    )


def _tell(error: CommandError, *, as_json: bool) -> Exit:
    if as_json:
        from edged.cli.output import print_json

        print_json({"error": error.fields})
        sys.stdout.flush()
    print(f"edgectl: {harmless(str(error))}", file=sys.stderr)
    return error.exit


if __name__ == "__main__":
    sys.exit(main())
