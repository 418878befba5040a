"""`edgectl model use` and `unload`: which model the daemon uses, and whether it is in memory."""

from __future__ import annotations

from argparse import Namespace

from edged.cli.cmd import order
from edged.cli.errors import CommandError, Exit
from edged.cli.output import note, print_json, size
from edged.errors import ErrorCode


def use(args: Namespace) -> None:
    """Have the daemon take another model, or the configured one again.

    Raises:
        CommandError: it can't, or the command line names none or both.
    """
    if (args.model is None) is not args.default:
        raise CommandError("give a model's name or --default", Exit.USAGE, hint="edgectl model list")
    note("what runs comes to its end first, then the model is loaded")
    try:
        answer = order(args, "model_use", {"name": args.model})
    except CommandError as error:
        if error.fields.get("code") == ErrorCode.INVALID:
            raise CommandError(
                error.message, Exit.USAGE, hint="edgectl model list", fields=error.fields
            ) from None
        raise
    if args.json:
        print_json(answer)
        return
    data = answer["data"]
    how = "as configured" if data["chosen_by"] == "configuration" else "also after a restart"
    print(f"{data['name']} is in use, {how}; a request may use {data['context']} tokens")


def unload(args: Namespace) -> None:
    """Have the daemon free the model's memory.

    Raises:
        CommandError: it can't.
    """
    answer = order(args, "model_unload", {})
    if args.json:
        print_json(answer)
    else:
        freed = answer["data"]["freed_bytes"]
        done = f"unloaded: {size(freed)} freed" if freed else "the model is not loaded"
        print(f"{done}; the next request loads it")
