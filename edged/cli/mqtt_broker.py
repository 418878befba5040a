"""Which broker edgectl speaks to, and as whom: options, else the environment, else the daemon's [mqtt]."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edged import paths
from edged.cli.errors import CommandError, Exit

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_PASSWORD_BYTES = 4096
_VARIABLES = {
    "url": "EDGED_BROKER",
    "username": "EDGED_BROKER_USERNAME",
    "password_file": "EDGED_BROKER_PASSWORD_FILE",
    "ca_file": "EDGED_BROKER_CA_FILE",
    "cert_file": "EDGED_BROKER_CERT_FILE",
    "key_file": "EDGED_BROKER_KEY_FILE",
    "root": "EDGED_BROKER_ROOT",
}


@dataclass(frozen=True)
class Broker:
    """A broker's address, and what edgectl shows it.

    Attributes:
        url: the address as it was given.
        root: the first levels of edged's topics.
        client: the client level of the topics: whom the device answers.
    """

    url: str
    host: str
    port: int
    tls: bool
    root: str
    client: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @classmethod
    def of(cls, args: Namespace) -> Broker:
        """Return the broker that the command line, the environment or the configuration means.

        With a broker or a user named, nothing of the configuration's login counts: it belongs to another.

        Raises:
            CommandError: there is none, or what was given is wrong or can't be read.
        """
        own = {
            key: getattr(args, "broker" if key == "url" else key) or os.environ.get(name)
            for key, name in _VARIABLES.items()
        }
        file = args.config or paths.config()
        table = {} if own["url"] else _table(file)
        if own["username"]:
            table = {key: value for key, value in table.items() if key not in ("username", "password_file")}
        given = {key: str(value) for key, value in {**table, **_given(own)}.items()}
        if "url" not in given:
            raise CommandError(
                "no broker is known", Exit.USAGE, hint=f"--broker mqtt://HOST or EDGED_BROKER{_why_not(file)}"
            )
        host, port, tls = _address(given["url"])
        username = given.get("username")
        return cls(
            url=given["url"],
            host=host,
            port=port,
            tls=tls,
            root=given.get("root", "edged"),
            client=_client(getattr(args, "client", None), username),
            username=username,
            password=_password(given.get("password_file"), username),
            ca_file=given.get("ca_file"),
            cert_file=given.get("cert_file"),
            key_file=given.get("key_file"),
        )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _table(file: Path | None) -> dict[str, Any]:
    """Return [mqtt] of the daemon's configuration, as far as it can be read: the daemon checks it."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("mqtt") if file else None
    except (OSError, ValueError, RecursionError):
        return {}
    return _given({key: table.get(key) for key in _VARIABLES}) if isinstance(table, dict) else {}


def _why_not(file: Path | None) -> str:
    if file is None:
        return ""
    if not os.access(file, os.R_OK):
        return f"; {file} can't be read"
    return f"; {file} has none in mqtt.url"


def _address(url: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.username is not None or parts.password is not None:
        raise CommandError(
            "a broker's URL has no user or password in it", Exit.USAGE, hint="--username and --password-file"
        )
    if parts.scheme not in _PORTS or not host or parts.path.strip("/") or parts.query or port == 0:
        raise CommandError(
            f"{url} is no address of a broker", Exit.USAGE, hint="mqtt://HOST[:PORT], with TLS mqtts://HOST"
        )
    return host, port or _PORTS[parts.scheme], parts.scheme == "mqtts"


def _password(file: str | None, username: str | None) -> str | None:
    if file is None:
        return None
    if username is None:
        raise CommandError("a password without a user name", Exit.USAGE, hint="--username")
    try:
        with Path(file).open("rb") as opened:
            if os.fstat(opened.fileno()).st_mode & stat.S_IROTH:
                raise CommandError(
                    f"everybody may read the password in {file}", Exit.USAGE, hint=f"chmod o= {file}"
                )
            line = opened.read(_MAX_PASSWORD_BYTES).partition(b"\n")[0].rstrip(b"\r")
        return line.decode()
    except UnicodeDecodeError:
        raise CommandError(f"the password in {file} is no UTF-8", Exit.USAGE) from None
    except PermissionError:
        raise CommandError(
            f"you may not read the password in {file}",
            Exit.NOT_PERMITTED,
            hint="log in as yourself: --username and --password-file",
        ) from None
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", Exit.USAGE, hint="--password-file") from None


def _client(given: str | None, username: str | None) -> str:
    """Return the client's name: as given, else the user at the broker, else the user of this computer."""
    if given:
        return given
    if username is None:
        import getpass

        try:
            login = getpass.getuser()
        except (KeyError, OSError):
            login = f"uid-{os.getuid()}"
        return _NOT_IN_NAMES.sub("-", login)[:64] or "edgectl"
    if not _NAME.fullmatch(username):
        raise CommandError(
            f"the user name {username} can't be a level of edged's topics (A-Z a-z 0-9 _ . -)",
            Exit.USAGE,
            hint="--client",
        )
    return username
