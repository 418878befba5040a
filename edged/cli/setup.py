"""`edgectl setup`: the first run on a device, from a few questions to the first answer."""

from __future__ import annotations

import os
import platform
import shlex
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edged import __version__, paths
from edged.cli.answer import stream_answer
from edged.cli.checks import checks
from edged.cli.checks_kernel import kernel_checks
from edged.cli.checks_processor import require_64_bit
from edged.cli.client import Daemon
from edged.cli.cmd import order
from edged.cli.doctor import print_checks
from edged.cli.errors import CommandError, Exit
from edged.cli.setup_models import Wanted, bring, offers, wanted
from edged.cli.setup_questions import Questions
from edged.cli.setup_service import Service, ready
from edged.cli.terminal import harmless
from edged.settings import Settings, SettingsError, load
from edged.settings.edit import edited, write

QUESTION = "In one sentence: why is the sky blue?"
_ROOT = Path("/")


def run(args: Namespace) -> Exit:
    """Ask, write the configuration, start the service, bring the model and have a question answered."""
    require_64_bit()
    file = args.config or paths.config() or paths.SYSTEM_CONFIG
    _require_writable(file)
    draft = Draft(file)
    service = Service.reading(file)
    questions = Questions(silent=args.yes)
    _tell_machine(_status(args))
    _ask_device(args, draft, questions)
    model = _ask_model(args, draft, questions)
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


class Draft:
    """The configuration as it is going to be.

    Attributes:
        settings: what it comes to.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._text = self._before = file.read_text(encoding="utf-8") if file.exists() else ""
        self.settings = self._load(self._text)

    def set(self, changes: Mapping[str, str | None]) -> None:
        """Change keys.

        Raises:
            CommandError: the values are wrong, or the file can't be changed line by line.
        """
        try:
            text = edited(self._text, changes)
        except ValueError as error:
            raise CommandError(
                f"{self._file} can't be changed by a program: {error}",
                Exit.FAILED,
                hint=f"set {', '.join(changes)} there yourself",
            ) from None
        self.settings, self._text = self._load(text), text

    def save(self) -> bool:
        """Write the file if it has changed, and say whether it has.

        Raises:
            CommandError: it can't be written.
        """
        if self._text == self._before:
            return False
        try:
            write(self._file, self._text)
        except OSError as error:
            raise CommandError(f"{self._file} can't be written: {error.strerror}", Exit.FAILED) from None
        return True

    def _load(self, text: str) -> Settings:
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            try:
                return load(Path(file.name))
            except SettingsError as error:
                faults = "; ".join(error.faults).replace(file.name, str(self._file))
                raise CommandError(faults, Exit.USAGE) from None


def _require_writable(file: Path) -> None:
    nearest = next(place for place in (file, *file.parents) if os.path.lexists(place))
    if not os.access(nearest, os.W_OK):
        raise CommandError(f"you may not write {file}", Exit.NOT_PERMITTED, hint="sudo edgectl setup")


def _status(args: Namespace) -> Mapping[str, Any]:
    """Return what a daemon that runs already says; nothing if none does."""
    try:
        status: Mapping[str, Any] = Daemon(args.socket or paths.socket_path(args.config)).get("/v1/status")
    except CommandError:
        return {}
    return status


def _tell_machine(status: Mapping[str, Any]) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"edged {__version__} on {platform.node()}, {platform.machine()} with {cores} processors")
    print_checks(kernel_checks(_ROOT, status.get("pid")))


def _ask_device(args: Namespace, draft: Draft, questions: Questions) -> None:
    current = draft.settings.device_id

    def take(text: str) -> None:
        if text != current:
            draft.set({"device_id": text})

    questions.ask("The name of this device", args.device_id, current, take)


def _ask_model(args: Namespace, draft: Draft, questions: Questions) -> Wanted:
    models = paths.models_dir(draft.settings.state_dir)
    shown = offers(draft.settings, models)
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
    current = draft.settings.mqtt

    def take_url(text: str) -> None:
        url = "" if text == "none" else text
        if url != current.url:
            draft.set({"mqtt.url": url})

    def take_user(text: str) -> None:
        if text != (current.username or "none"):
            draft.set({"mqtt.username": None if text == "none" else text})

    print() if not args.yes else None
    questions.ask("MQTT broker (mqtt://HOST, or none)", args.broker, current.url or "none", take_url)
    if not draft.settings.mqtt.url:
        return None
    questions.ask("User at the broker", args.username, current.username or "none", take_user)
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
    print(f"\n$ edgectl ask {shlex.quote(QUESTION)}", flush=True)
    stream_answer(daemon, {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60})
    _tell_group(daemon.path)


def _tell_group(socket: Path) -> None:
    """Tell who used sudo how to do without."""
    import grp
    import pwd

    user = os.environ.get("SUDO_USER")
    group = grp.getgrgid(socket.stat().st_gid)
    if user and group.gr_gid not in os.getgrouplist(user, pwd.getpwnam(user).pw_gid):
        print(
            f"\n{harmless(user)} may ask after: sudo usermod -aG {group.gr_name} {harmless(user)}, and a new login"
        )


def _tell_rest(file: Path, model: Wanted) -> None:
    """Say what is left to do where edged is no service that reads this file."""
    print(f"\nNo service of this computer reads {file}. Start the daemon yourself, then bring the model:")
    print(f"  edged --config {shlex.quote(str(file))}")
    if model.command:
        print(f"  {model.command}")
    print(f"  edgectl ask {shlex.quote(QUESTION)}")
