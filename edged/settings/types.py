"""The types of the settings' values: what each takes, said once.

Values are strict: what a source gives must already be of the right type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from edged.settings.device import is_device_id

MAX_SECONDS = 366 * 86_400
MAX_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less its closing zero
MIN_TOKEN_CHARACTERS = 16
_ADDRESS = re.compile(r"(?:(?P<host>[A-Za-z0-9._-]+)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Allowed:
    """Marks a type with the words for what it takes, where its shape does not tell."""

    text: str


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


def is_absolute(path: Path) -> bool:
    """Say whether the system can take `path` for an absolute one."""
    return path.is_absolute() and "\0" not in str(path)


def must(holds: Callable[[Any], object]) -> AfterValidator:
    """Return a validator that refuses what `holds` does not say yes to."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError("not allowed")
        return value

    return AfterValidator(check)


def address(text: str) -> tuple[str, int] | None:
    """Return host and port of `host:port` or `[IPv6]:port`; None where it is neither."""
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match["port"]) < 2**16:
        return None
    return match["host"] or match["ipv6"], int(match["port"])


def _is_origin(text: str) -> bool:
    scheme, _, host = text.partition("://")
    return scheme in ("http", "https") and bool(address(host) or address(f"{host}:80"))


def _is_token(secret: SecretStr) -> bool:
    text = secret.get_secret_value()
    return len(text) >= MIN_TOKEN_CHARACTERS and text.isascii() and text.isprintable() and " " not in text


Source = Literal["default", "file", "environment", "credential"]
Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1, le=10_000)]
Threads = Annotated[int, Field(ge=1, le=256)]
Tokens = Annotated[int, Field(ge=1, le=2**20)]
Bytes = Annotated[int, Field(ge=1, le=2**22)]
Seconds = Annotated[float, Field(ge=0.1, le=MAX_SECONDS)]
Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$"), Allowed("1 to 64 characters of A-Z a-z 0-9 _ . -")
]
AbsolutePath = Annotated[Path, BeforeValidator(_path), must(is_absolute), Allowed("an absolute path")]
SocketPath = Annotated[
    AbsolutePath,
    must(lambda path: len(bytes(path)) <= MAX_SOCKET_PATH_BYTES),
    Allowed(f"an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes"),
]
Mode = Annotated[str, Field(pattern="^0[0-7]{3}$"), Allowed('an octal mode as text, such as "0660"')]
DeviceId = Annotated[
    str, must(is_device_id), Allowed("1 to 63 characters of a-z 0-9 -, the first of them no -")
]
Listen = Annotated[
    str,
    must(lambda text: text == "" or address(text)),
    Allowed('"" or host:port, such as "127.0.0.1:8080" or "[::1]:8080"'),
]
Origin = Annotated[str, must(_is_origin), Allowed('origins, such as "http://kitchen.local:8080"')]
Token = Annotated[
    SecretStr,
    must(_is_token),
    Allowed(f"at least {MIN_TOKEN_CHARACTERS} printable ASCII characters without spaces"),
]


class Table(BaseModel):
    """A table of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)
