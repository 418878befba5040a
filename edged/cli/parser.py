"""edgectl's command line: every command with its options, for parsing, --help, docs and completion.

It imports none of the commands' modules: what a command does stands in the module of its name.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from edged import __version__
from edged.cli.arguments import (
    above_zero,
    command_name,
    count,
    device_id,
    moment,
    name,
    natural,
    number,
    request_id,
    topic_root,
)
from edged.cli.parsing import Parser, add_command, add_common

STATES = ("online", "stale", "dead", "stopped", "unknown")

HISTORY_FIGURES = (
    *("temperature", "duty", "power", "memory", "engine", "load", "queue", "running", "answers", "tokens"),
    *("speed", "first_token"),
)


def build_parser() -> Parser:
    """Return the parser of the whole command line; `args.command` names the module to run."""
    parser = Parser(prog="edgectl", description="Ask and tend edged, the language-model daemon.")
    parser.add_argument("--version", action="version", version=f"edgectl {__version__}")
    add_common(parser, default=None)
    commands = parser.add_subparsers(prog="edgectl", dest="command", metavar="COMMAND", required=True)
    _add_ask(add_command(commands, "ask", "Ask one question; the answer alone goes to stdout, as it comes."))
    _add_chat(
        add_command(commands, "chat", "Talk with the model; the daemon keeps the conversation.", json=False)
    )
    _add_status(add_command(commands, "status", "Show how the daemon, its model and its engine do."))
    which = "Watch the daemon live; q quits, k cancels the request that the arrows select."
    _add_top(add_command(commands, "top", which, json=False))
    which = "Show what the daemon has logged, readably; --json: an event a line."
    _add_logs(add_command(commands, "logs", which))
    which = "Draw what the device did in the last hours: heat, memory, speed."
    _add_history(add_command(commands, "history", which))
    _add_cancel(add_command(commands, "cancel", "Cancel a request of yours."))
    which = "Set this device up: configuration, service, model, and a first question."
    _add_setup(add_command(commands, "setup", which, json=False))
    _add_model(add_command(commands, "model", "List, examine, fetch, import, verify and choose models."))
    _add_config(add_command(commands, "config", "Show or check the configuration."))
    _add_order(
        add_command(commands, "cmd", "Give the daemon an operator's command; only root and its own user may.")
    )
    add_command(commands, "doctor", "Check the daemon and what it depends on, and say what to do.")
    which = "Measure how fast the running daemon reads prompts and answers, by requests at once."
    _add_bench(add_command(commands, "bench", which))
    _add_mqtt(add_command(commands, "mqtt", "Ask through an MQTT broker, watch its traffic, tidy up there."))
    _add_fleet(add_command(commands, "fleet", "See, ask and command all devices at an MQTT broker."))
    _add_completion(
        add_command(commands, "completion", "Print a completion script for your shell.", json=False)
    )
    return parser


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of every command, and of its actions after it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from subcommands(command)


def _add_ask(parser: Parser, *, streams: bool = True) -> None:
    add = parser.add_argument
    add("text", nargs="*", metavar="TEXT", help="the question; text from stdin follows it after a blank line")
    if streams:
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


def _add_status(parser: Parser) -> None:
    which = "show it again every so many seconds, in place on a terminal; --json: a line each (default: 2)"
    parser.add_argument("--watch", nargs="?", type=above_zero, const=2.0, metavar="SECONDS", help=which)


def _add_top(parser: Parser) -> None:
    which = "look every so many seconds (default: 2)"
    parser.add_argument("--interval", type=above_zero, metavar="SECONDS", default=2.0, help=which)
    _add_no_color(parser)


def _add_logs(parser: Parser) -> None:
    add = parser.add_argument
    which = "lines of JSON as the daemon writes them, - for stdin (default: systemd's journal)"
    add("file", nargs="?", metavar="FILE", help=which)
    add("-f", "--follow", action="store_true", help="go on with what is logged from now on, until Ctrl-C")
    which = "the last N of what there is (default: 50; with --since or --request, and of stdin, all)"
    add("-n", "--lines", type=natural, metavar="N", help=which)
    add("--level", choices=("debug", "info", "warning", "error"), help="this level and graver ones")
    which = "what was logged since then: 90s, 10min, 2h or 1d back, 14:30, 2026-11-21 or '2026-11-21 14:30'"
    add("--since", type=moment, metavar="TIME", help=which)
    add("--request", type=request_id, metavar="ID", help="what was logged of one request")
    _add_no_color(parser)


def _add_no_color(parser: Parser) -> None:
    parser.add_argument(
        "--no-color", action="store_true", help="no colours, as with NO_COLOR in the environment"
    )


def _add_bench(parser: Parser) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help="short prompts and answers, once")
    add("--prompt-tokens", type=count, metavar="N", help="about N tokens a prompt (default: 256; quick: 64)")
    add("--answer-tokens", type=count, metavar="N", help="N tokens an answer (default: 64; quick: 16)")
    add("--runs", type=count, metavar="N", help="measure each batch N times (default: 3; quick: once)")


def _add_mqtt(parser: Parser) -> None:
    actions = parser.add_subparsers(prog=parser.prog, dest="action", metavar="ACTION", required=True)
    ask = add_command(
        actions, "ask", "Ask a device, or one of a pool, through the broker; --json: a frame a line."
    )
    to = ask.add_mutually_exclusive_group(required=True)
    to.add_argument("--device", type=device_id, metavar="ID", help="the device to ask")
    to.add_argument("--pool", type=name, metavar="NAME", help="ask whichever device of this pool is free")
    which = "the client level of the topics (default: the user name at the broker, else yours)"
    ask.add_argument("--client", type=name, metavar="NAME", help=which)
    _add_ask(ask)
    _add_broker(ask)
    watch = add_command(actions, "watch", "Show the traffic, a message a line, until Ctrl-C.")
    watch.add_argument("--device", type=device_id, metavar="ID", help="of this device alone")
    watch.add_argument("--raw", action="store_true", help="show topic and payload as they are")
    _add_broker(watch)
    forget = add_command(actions, "forget", "Remove what the broker keeps of a device: its retained topics.")
    forget.add_argument("device", type=device_id, metavar="ID", help="the device that is no more")
    forget.add_argument("--force", action="store_true", help="even if its status says that it is online")
    _add_broker(forget)


def _add_fleet(parser: Parser) -> None:
    actions = parser.add_subparsers(prog=parser.prog, dest="action", metavar="ACTION", required=True)
    listed = add_command(actions, "list", "List the devices that the broker knows, the worst troubles first.")
    which = "Watch the devices live: q quits, s sorts, f and / filter, arrows and page keys move."
    watch = add_command(actions, "watch", which, json=False)
    _add_no_color(watch)
    show = add_command(actions, "show", "Show a device; exit code 1 if it is not online.")
    show.add_argument("device", type=device_id, metavar="ID", help="which")
    which = "Ask each device that is selected, and collect the answers."
    ask = add_command(actions, "ask", which)
    order = add_command(actions, "cmd", "Give an operator's command to each device that is selected.")
    _add_order(order)
    which = "give up on whoever has not answered by then (default: 30)"
    order.add_argument("--timeout", type=above_zero, metavar="SECONDS", default=30.0, help=which)
    for each in (listed, watch, ask, order):
        _add_selection(each, all_by_default=each in (listed, watch))
    _add_ask(ask, streams=False)
    which = "the client level of the topics (default: the user name at the broker, else yours)"
    ask.add_argument("--client", type=name, metavar="NAME", help=which)
    for each in (listed, watch, show, ask, order):
        which = "how often devices report that don't say so; stale after three times that (default: 60)"
        each.add_argument("--interval", type=above_zero, metavar="SECONDS", default=60.0, help=which)
        _add_broker(each)


def _add_selection(parser: Parser, *, all_by_default: bool) -> None:
    add = parser.add_argument
    which = "of this id; * and ? stand for any characters; may be repeated"
    add("--device", action="append", metavar="PATTERN", help=which)
    add("--pool", action="append", type=name, metavar="NAME", help="of this pool; may be repeated")
    add("--model", metavar="PATTERN", help="whose model's name fits")
    add("--state", action="append", choices=STATES, help="in this state; may be repeated")
    if not all_by_default:
        add("--all", action="store_true", help="every device that the broker knows")


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


def _add_history(parser: Parser) -> None:
    add = parser.add_argument
    add("--hours", type=above_zero, default=24.0, metavar="N", help="so far back (default: 24)")
    which = "draw this; may be repeated (default: temperature, memory, tokens, speed, queue)"
    add("--figure", action="append", choices=HISTORY_FIGURES, help=which)
    add("--png", type=Path, metavar="FILE", help="write a picture (needs Pillow)")


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
    add_command(actions, "list", "List the catalogue and what is installed of it.")
    show = add_command(actions, "show", "Show a model's facts and the memory it takes by context size.")
    show.add_argument("model", nargs="?", metavar="MODEL", help=which)
    fetch = add_command(actions, "fetch", "Fetch a model, by the daemon if it runs.")
    fetch.add_argument("model", metavar="MODEL", help="a name of the catalogue or an https URL")
    fetch.add_argument("--sha256", metavar="HEX", help="what a file from a URL must hash to")
    take = add_command(actions, "import", "Hand a model's file to the daemon, which may not see your files.")
    take.add_argument("file", type=Path, metavar="FILE", help="the GGUF file")
    take.add_argument("--name", metavar="NAME.gguf", help="what it is called there (default: as here)")
    take.add_argument("--sha256", metavar="HEX", help="what it must hash to")
    verify = add_command(actions, "verify", "Check a model file against its known sha256.")
    verify.add_argument("model", nargs="?", metavar="MODEL", help=which)
    use = add_command(actions, "use", "Have the daemon use another model, also after a restart.")
    use.add_argument("model", nargs="?", metavar="MODEL", help="its name or file, as model list shows it")
    use.add_argument("--default", action="store_true", help="go back to the configured model")
    add_command(actions, "unload", "Free the model's memory; the next request loads it again.")


def _add_config(parser: Parser) -> None:
    actions = parser.add_subparsers(prog=parser.prog, dest="action", metavar="ACTION", required=True)
    add_command(actions, "show", "Show the effective values and where each comes from; secrets are masked.")
    add_command(actions, "check", "Say whether the configuration is right, or list its faults.")


def _add_order(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "name",
        type=command_name,
        metavar="NAME",
        help="health_check, requests [page], cancel way client id, cancel_all [client], model_list [page], "
        "model_use name, model_unload, reload, log_level level, restart_engine, history [page]",
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
