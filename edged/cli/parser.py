"""edgectl's command line: every command with its options, for parsing, --help, docs and completion.

It imports none of the commands' modules: what a command does stands in the module of its name.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from edged import __version__
from edged.cli.errors import EXIT_MEANINGS, CommandError, Exit

EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_MEANINGS.items())


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Sets the help in a fixed width: argparse asks for the terminal's at every option, by a slow import."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options,
            epilog=EXIT_CODES,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise CommandError(message, Exit.USAGE, hint=f"{self.prog} --help")


def build_parser() -> Parser:
    """Return the parser of the whole command line; `args.command` names the module to run."""
    parser = Parser(prog="edgectl", description="Ask and tend edged, the language-model daemon.")
    parser.add_argument("--version", action="version", version=f"edgectl {__version__}")
    _add_common(parser, default=None)
    commands = parser.add_subparsers(prog="edgectl", dest="command", metavar="COMMAND", required=True)
    _add_ask(_add(commands, "ask", "Ask one question; the answer alone goes to stdout, as it comes."))
    _add_chat(_add(commands, "chat", "Talk with the model; the daemon keeps the conversation.", json=False))
    _add(commands, "status", "Show how the daemon, its model and its engine do.")
    _add_cancel(_add(commands, "cancel", "Cancel a request of yours."))
    what = "Set this device up: configuration, service, model, and a first question."
    _add_setup(_add(commands, "setup", what, json=False))
    _add_model(_add(commands, "model", "List, examine, fetch, import, verify and choose models."))
    _add_config(_add(commands, "config", "Show or check the configuration."))
    _add_cmd(_add(commands, "cmd", "Give the daemon an operator's command; only root and its own user may."))
    _add(commands, "doctor", "Check the daemon and what it depends on, and say what to do.")
    which = "Measure how fast the running daemon reads prompts and answers, by requests at once."
    _add_bench(_add(commands, "bench", which))
    _add_mqtt(_add(commands, "mqtt", "Ask through an MQTT broker, watch its traffic, tidy up there."))
    _add_completion(_add(commands, "completion", "Print a completion script for your shell.", json=False))
    return parser


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of every command, and of its actions after it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from subcommands(command)


def number(text: str) -> float:
    """Parse a finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def count(text: str) -> int:
    """Parse a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _matching(pattern: str, words: str) -> Callable[[str], str]:
    """Return what parses a text that must match a pattern as a whole."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"must be {words}")
        return text

    return parse


request_id = _matching("[A-Za-z0-9_.:-]{1,64}", "1 to 64 characters of A-Z a-z 0-9 _ . : -")
command_name = _matching("[a-z_]{1,64}", "of the letters a-z and _")
name = _matching("[A-Za-z0-9_.-]{1,64}", "1 to 64 characters of A-Z a-z 0-9 _ . -")


def device_id(text: str) -> str:
    """Parse the id of a device."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise argparse.ArgumentTypeError("must be 1 to 63 characters of a-z 0-9 -, the first of them no -")
    return text


def topic_root(text: str) -> str:
    """Parse the first levels of edged's topics."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", text):
        raise argparse.ArgumentTypeError("must be levels of A-Z a-z 0-9 _ . - with / between them")
    return text


def _add(commands: Any, name: str, description: str, *, json: bool = True) -> Parser:
    parser: Parser = commands.add_parser(name, help=description, description=description)
    _add_common(parser, default=argparse.SUPPRESS, json=json)
    return parser


def _add_common(parser: Parser, *, default: Any, json: bool = True) -> None:
    """Add the options that stand before or after the command (SUPPRESS: only what is given counts)."""
    add = parser.add_argument
    which = "the daemon's socket (default: EDGED_SOCKET, else as configured)"
    add("--socket", type=Path, metavar="PATH", default=default, help=which)
    which = "the configuration file (default: EDGED_CONFIG, else /etc/edged/edged.toml)"
    add("--config", type=Path, metavar="FILE", default=default, help=which)
    if json:
        which = "print one JSON document, of an error too"
        add("--json", action="store_true", default=default or False, help=which)


def _add_ask(parser: Parser) -> None:
    add = parser.add_argument
    add("text", nargs="*", metavar="TEXT", help="the question; text from stdin follows it after a blank line")
    add("--no-stream", action="store_true", help="print the answer only when it is whole")
    add("--system", metavar="TEXT", help="how the model should behave")
    add("--session", metavar="NAME", help="a conversation that the daemon keeps and this question continues")
    add("--max-tokens", type=int, metavar="N", help="end the answer after N tokens (default: as configured)")
    add("--temperature", type=number, metavar="X", help="0: always the likeliest token; higher: more varied")
    add(
        "--top-p",
        type=number,
        metavar="X",
        help="draw from the likeliest tokens of together this probability",
    )
    add("--top-k", type=int, metavar="N", help="draw from the N likeliest tokens")
    add("--seed", type=int, metavar="N", help="makes the draw repeatable")
    add("--stop", action="append", metavar="TEXT", help="end the answer before this text; may be repeated")
    add("--priority", choices=("low", "normal", "high"), help="the place in the queue (default: normal)")
    add("--ttl", type=number, metavar="SECONDS", help="have it dropped if it has not begun by then")
    add("--timeout", type=number, metavar="SECONDS", help="give up if the answer is not whole by then")
    add(
        "--id",
        type=request_id,
        metavar="ID",
        help="the request's id, for cancel (default: one is made)",
    )


def _add_bench(parser: Parser) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help="short prompts and answers, once")
    add("--prompt-tokens", type=count, metavar="N", help="about N tokens a prompt (default: 256; quick: 64)")
    add("--answer-tokens", type=count, metavar="N", help="N tokens an answer (default: 64; quick: 16)")
    add("--runs", type=count, metavar="N", help="measure each batch N times (default: 3; quick: once)")


def _add_mqtt(parser: Parser) -> None:
    actions = parser.add_subparsers(prog=parser.prog, dest="action", metavar="ACTION", required=True)
    ask = _add(actions, "ask", "Ask a device, or one of a pool, through the broker; --json: a frame a line.")
    to = ask.add_mutually_exclusive_group(required=True)
    to.add_argument("--device", type=device_id, metavar="ID", help="the device to ask")
    to.add_argument("--pool", type=name, metavar="NAME", help="ask whichever device of this pool is free")
    which = "the client level of the topics (default: the user name at the broker, else yours)"
    ask.add_argument("--client", type=name, metavar="NAME", help=which)
    _add_ask(ask)
    _add_broker(ask)
    watch = _add(actions, "watch", "Show the traffic, a message a line, until Ctrl-C.")
    watch.add_argument("--device", type=device_id, metavar="ID", help="of this device alone")
    watch.add_argument("--raw", action="store_true", help="show topic and payload as they are")
    _add_broker(watch)
    forget = _add(actions, "forget", "Remove what the broker keeps of a device: its retained topics.")
    forget.add_argument("device", type=device_id, metavar="ID", help="the device that is no more")
    forget.add_argument("--force", action="store_true", help="even if its status says that it is online")
    _add_broker(forget)


def _add_broker(parser: Parser) -> None:
    add = parser.add_argument
    which = "mqtt://HOST[:PORT] or mqtts://… (default: EDGED_BROKER, else [mqtt] of the configuration file)"
    add("--broker", metavar="URL", help=which)
    add("--username", metavar="NAME", help="the user at the broker (EDGED_BROKER_USERNAME)")
    which = "a file whose first line is the password (EDGED_BROKER_PASSWORD_FILE)"
    add("--password-file", metavar="FILE", help=which)
    which = "the authorities to trust instead of the system's (EDGED_BROKER_CA_FILE)"
    add("--ca-file", metavar="FILE", help=which)
    add("--cert-file", metavar="FILE", help="your certificate for the broker (EDGED_BROKER_CERT_FILE)")
    add("--key-file", metavar="FILE", help="its key, where it is not in there (EDGED_BROKER_KEY_FILE)")
    which = "the first levels of edged's topics (EDGED_BROKER_ROOT; default: edged)"
    add("--root", type=topic_root, metavar="TOPIC", help=which)


def _add_chat(parser: Parser) -> None:
    add = parser.add_argument
    add("--system", metavar="TEXT", help="how the model should behave (in the chat: /system TEXT)")
    add("--max-tokens", type=int, metavar="N", help="end each answer after N tokens (default: as configured)")
    add("--temperature", type=number, metavar="X", help="0: always the likeliest token; higher: more varied")


def _add_cancel(parser: Parser) -> None:
    parser.add_argument("id", type=request_id, metavar="ID", help="the id that the request was asked under")


def _add_setup(parser: Parser) -> None:
    add = parser.add_argument
    add("--yes", action="store_true", help="ask nothing: what is not given stays as it is")
    add("--device-id", metavar="ID", help="the name of this device")
    which = "a model of the catalogue, an https address, a GGUF file, or none"
    add("--model", metavar="MODEL", help=which)
    add("--sha256", metavar="HEX", help="what the file from an address must hash to")
    add("--broker", metavar="URL", help="mqtt://HOST[:PORT], mqtts://…, or none")
    add("--username", metavar="NAME", help="the user at the broker, or none")
    which = "a file whose first line is the password at the broker"
    add("--password-file", type=Path, metavar="FILE", help=which)


def _add_model(parser: Parser) -> None:
    actions = parser.add_subparsers(prog=parser.prog, dest="action", metavar="ACTION", required=True)
    which = "a name of the catalogue or a GGUF file (default: the configured model)"
    _add(actions, "list", "List the catalogue and what is installed of it.")
    show = _add(actions, "show", "Show a model's facts and the memory it takes by context size.")
    show.add_argument("model", nargs="?", metavar="MODEL", help=which)
    fetch = _add(actions, "fetch", "Fetch a model, by the daemon if it runs.")
    fetch.add_argument("model", metavar="MODEL", help="a name of the catalogue or an https URL")
    fetch.add_argument("--sha256", metavar="HEX", help="what a file from a URL must hash to")
    take = _add(actions, "import", "Hand a model's file to the daemon, which may not see your files.")
    take.add_argument("file", type=Path, metavar="FILE", help="the GGUF file")
    take.add_argument("--name", metavar="NAME.gguf", help="what it is called there (default: as here)")
    take.add_argument("--sha256", metavar="HEX", help="what it must hash to")
    verify = _add(actions, "verify", "Check a model file against its known sha256.")
    verify.add_argument("model", nargs="?", metavar="MODEL", help=which)
    use = _add(actions, "use", "Have the daemon use another model, also after a restart.")
    use.add_argument("model", nargs="?", metavar="MODEL", help="its name or file, as model list shows it")
    use.add_argument("--default", action="store_true", help="go back to the configured model")
    _add(actions, "unload", "Free the model's memory; the next request loads it again.")


def _add_config(parser: Parser) -> None:
    actions = parser.add_subparsers(prog=parser.prog, dest="action", metavar="ACTION", required=True)
    _add(actions, "show", "Show the effective values and where each comes from; secrets are masked.")
    _add(actions, "check", "Say whether the configuration is right, or list its faults.")


def _add_cmd(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "name",
        type=command_name,
        metavar="NAME",
        help="health_check, requests [page], cancel_all [client], model_list [page], model_use name, "
        "model_unload, reload, log_level level, restart_engine",
    )
    add(
        "fields",
        nargs="*",
        default=[],  # else argparse calls it required
        metavar="KEY=VALUE",
        help="its fields; a value is JSON, or else text as it stands",
    )


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell it is for")
