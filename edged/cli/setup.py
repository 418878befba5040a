"""`edgectl setup`: the first run on a device, from a few questions to the first answer."""

from __future__ import annotations

import os
import platform
import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edged import __version__, paths
from edged.cli.answer import stream_answer
from edged.cli.checks import checks
from edged.cli.checks_kernel import kernel_checks
from edged.cli.checks_processor import processor_checks
from edged.cli.client import Daemon
from edged.cli.cmd import order
from edged.cli.doctor import print_checks
from edged.cli.errors import CommandError, Exit
from edged.cli.setup_draft import Draft
from edged.cli.setup_models import Wanted, bring, offers, wanted
from edged.cli.setup_questions import Questions
from edged.cli.setup_service import Service, ready
from edged.cli.terminal import harmless

QUESTION = "In one sentence: why is the sky blue?"
_ROOT = Path("/")


def run(args: Namespace) -> Exit:
    """Ask, write the configuration, start the service, bring the model and have a question answered."""
    _require_64_bits()
    file = args.config or paths.config() or paths.SYSTEM_CONFIG
    _require_writable(file)
    service = Service.reading(file)
    draft = Draft(file, service.credentials() if service else {})
    questions = Questions(silent=args.yes)
    status = _status(Daemon(args.socket or paths.socket_path(file)))
    print(f"edged {__version__} on {platform.node()}")
    print_checks([*processor_checks(_ROOT, None), *kernel_checks(_ROOT, status.get("pid"))])
    device_id = draft.settings.device_id
    questions.ask(
        "\nThe name of this device", args.device_id, device_id, lambda text: draft.set({"device_id": text})
    )
    model = _ask_model(args, draft, questions, status)
    password = _ask_broker(args, draft, questions, has_service=service is not None)
    if draft.save():
        print(f"\nwritten: {file}")
    if service is None:
        _tell_rest(file, model)
        return Exit.OK
    if password is not None:
        service.keep_password(password)
    service.start()
    print("started: edged.service")
    args.config = file
    _serve(args, model)
    return Exit.OK


def _require_64_bits() -> None:
    for check in processor_checks(_ROOT, None):
        if check.state == "fail":
            raise CommandError(check.says, Exit.FAILED, hint=check.remedy)


def _require_writable(file: Path) -> None:
    nearest = next(place for place in (file, *file.parents) if os.path.lexists(place))
    if not os.access(nearest, os.W_OK):
        raise CommandError(f"you may not write {file}", Exit.NOT_PERMITTED, hint="sudo edgectl setup")


def _status(daemon: Daemon) -> Mapping[str, Any]:
    """Return what a daemon that runs already says; nothing if none does."""
    try:
        status: Mapping[str, Any] = daemon.get("/v1/status")
    except CommandError:
        return {}
    return status


def _ask_model(args: Namespace, draft: Draft, questions: Questions, status: Mapping[str, Any]) -> Wanted:
    models = paths.models_dir(draft.settings.state_dir)
    shown = offers(draft.settings, models, status["memory"]["engine_bytes"] or 0 if status else 0)
    if args.model is None and not args.yes:
        print("\nModels:")
        for line in shown.lines:
            print(f"  {line}")
        print("Or the https address of a GGUF file, or a file of this device, or none.")
    taken: list[Wanted] = []

    def take(text: str) -> None:
        found = wanted(text, shown, models, sha256=args.sha256)
        draft.set(found.changes)
        taken[:] = [found]

    questions.ask("Model", args.model, shown.default, take)
    return taken[0]


def _ask_broker(args: Namespace, draft: Draft, questions: Questions, *, has_service: bool) -> str | None:
    """Ask for the broker and the login there; return the password that the service is to keep."""

    def take(key: str, none: str | None) -> Callable[[str], None]:
        return lambda text: draft.set({key: none if text == "none" else text})

    current = draft.settings.mqtt
    questions.ask(
        "\nMQTT broker (mqtt://HOST, or none)", args.broker, current.url or "none", take("mqtt.url", "")
    )
    if not draft.settings.mqtt.url:
        return None
    user = current.username or "none"
    questions.ask("User at the broker", args.username, user, take("mqtt.username", None))
    if draft.settings.mqtt.username is None:
        return None
    if not has_service:
        if args.password_file is not None:
            draft.set({"mqtt.password_file": str(args.password_file.absolute())})
        return None
    return questions.password("Password there (empty: as it was)", args.password_file)


def _serve(args: Namespace, model: Wanted) -> None:
    """Bring the model to the daemon, wait until it serves, and ask it."""
    daemon = Daemon.of(args)
    bring(daemon, model)
    if model.is_none:
        print("There is no model yet: edgectl model list")
        return
    status = ready(daemon)
    if status["model"]["chosen_by"] != "configuration":  # by an earlier edgectl model use
        order(args, "model_use", {"name": None})
        status = ready(daemon)
    print_checks(check for check in checks(status) if check.state != "ok")
    if status["model"]["generates"]:
        print(f"\n$ edgectl ask {shlex.quote(QUESTION)}", flush=True)
        stream_answer(daemon, {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60})
    _tell_group(daemon.path)


def _tell_group(socket: Path) -> None:
    """Tell who used sudo how to do without."""
    import grp
    import pwd

    user, number = os.environ.get("SUDO_USER"), socket.stat().st_gid
    try:
        if user and number not in os.getgrouplist(user, pwd.getpwnam(user).pw_gid):
            join = f"sudo usermod --append --groups {grp.getgrgid(number).gr_name} {user}"
            print(harmless(f"\n{user} may ask after: {join}, and a new login"))
    except KeyError:
        return  # a user or a group without a name


def _tell_rest(file: Path, model: Wanted) -> None:
    """Say what is left to do where edged is no service that reads this file."""
    print(f"\nNo service of this computer reads {file}. Start the daemon yourself, then bring the model:")
    print(f"  edged --config {shlex.quote(str(file))}")
    if model.command:
        print(f"  {model.command}")
    print(f"  edgectl ask {shlex.quote(QUESTION)}")
