"""The table [mqtt]: the broker, names of topics, where replies may go."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from edged.settings.types import MAX_SECONDS, AbsolutePath, Allowed, Auto, Table, must

SCHEMES = {"mqtt": 1883, "mqtts": 8883}
MAX_ROOT_CHARACTERS = 128
MAX_PREFIX_CHARACTERS = 256
_URL = re.compile(
    r"(?P<scheme>mqtts?)://"
    r"(?:(?P<host>[A-Za-z0-9._-]+)|\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\])(?::(?P<port>[0-9]{1,5}))?/?"
)
_LEVELS = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PLACEHOLDER = re.compile(r"\{(root|device_id|client)\}")

Command = Literal[
    "health_check",
    "requests",
    "cancel",
    "cancel_all",
    "model_list",
    "model_use",
    "model_unload",
    "reload",
    "log_level",
    "restart_engine",
    "history",
]


def parse_url(url: str) -> tuple[str, int, bool] | None:
    """Return a broker's host, port and whether it speaks TLS; None where `url` is no broker's."""
    match = _URL.fullmatch(url)
    if not match:
        return None
    port = int(match["port"] or SCHEMES[match["scheme"]])
    if not 0 < port < 2**16:
        return None
    return match["host"] or match["ipv6"], port, match["scheme"] == "mqtts"


def _without_user(url: str) -> str:
    if "@" in url:
        raise PydanticCustomError(
            "told",
            "a url with a user name or password in it is shown and logged: give the name in mqtt.username, "
            "the password as the credential mqtt_password or in a file that mqtt.password_file names",
        )
    return url


def _is_prefix(text: str) -> bool:
    rest = _PLACEHOLDER.sub("", text)
    return (
        text.endswith("/")
        and len(text) <= MAX_PREFIX_CHARACTERS
        and text.isprintable()
        and not text.startswith("$")
        and not set(rest) & set("+#{}")
    )


def _reaches(prefix: str, own: str) -> bool:
    """Say whether a prefix allows topics below `own` other than replies, whatever a client's name is."""
    levels, owned = prefix.split("/")[:-1], own.split("/")[:-1]
    forms = [re.escape(level).replace(re.escape("{client}"), ".*") for level in levels]
    if not all(re.fullmatch(form, level) for form, level in zip(forms, owned, strict=False)):
        return False
    return levels[len(owned) + 1 : len(owned) + 2] != ["reply"]


Url = Annotated[
    str,
    AfterValidator(_without_user),
    must(lambda text: text == "" or parse_url(text)),
    Allowed('"" or mqtt://host, mqtt://host:port or with TLS mqtts://host; IPv6 as mqtt://[::1]'),
]
UserName = Annotated[
    str,
    Field(min_length=1, max_length=256),
    must(str.isprintable),
    Allowed("1 to 256 printable characters"),
]
Password = Annotated[
    SecretStr, must(lambda secret: secret.get_secret_value()), Allowed("text that is not empty")
]
Root = Annotated[
    str,
    must(lambda text: _LEVELS.fullmatch(text) and len(text) <= MAX_ROOT_CHARACTERS),
    Allowed(
        f'levels of A-Z a-z 0-9 _ . - with / between them, such as "home/edged", '
        f"{MAX_ROOT_CHARACTERS} characters at most"
    ),
]
Pool = Annotated[
    str,
    must(lambda text: text == "" or _NAME.fullmatch(text)),
    Allowed('"" or 1 to 64 characters of A-Z a-z 0-9 _ . -'),
]
ReplyPrefix = Annotated[
    str,
    must(_is_prefix),
    Allowed(
        "beginnings of topics that end in / and have no + # and no leading $; {root}, {device_id} and "
        "{client} are filled in"
    ),
]


class MqttTable(Table):
    """Prompts and answers over MQTT."""

    url: Url = Field(
        "",
        description="The broker; empty: off. Ports, where none is said: 1883, with TLS 8883.",
        examples=["mqtts://broker.local"],
    )
    username: UserName | None = Field(
        None, description="The name to log in with; none: anonymously.", examples=["kitchen-3fa2b1"]
    )
    password: Password | None = Field(
        None, description="Only from the credential mqtt_password or from password_file."
    )
    password_file: AbsolutePath | None = Field(
        None,
        description="A file whose first line is the password; others than owner and group may not read it.",
        examples=["/etc/edged/mqtt_password"],
    )
    ca_file: AbsolutePath | None = Field(
        None,
        description="Certificates (PEM) of those who may vouch for the broker; none: the system's.",
        examples=["/etc/edged/mqtt_ca.pem"],
    )
    cert_file: AbsolutePath | None = Field(
        None,
        description="This device's own certificate (PEM), where the broker asks for one.",
        examples=["/etc/edged/mqtt_cert.pem"],
    )
    key_file: AbsolutePath | None = Field(
        None,
        description="The private key of cert_file (PEM, without a passphrase). "
        "The credential mqtt_key goes before it.",
        examples=["/etc/edged/mqtt_key.pem"],
    )
    root: Root = Field("edged", description="First level or levels of all topics.")
    open_ask: bool = Field(
        True,
        description="Take prompts on <root>/v1/<device_id>/ask too, of whoever may publish there; all count "
        "as one client, open.",
    )
    pool: Pool = Field(
        "", description="The pool of devices that this one answers prompts for too; empty: none."
    )
    reply_prefixes: Annotated[tuple[ReplyPrefix, ...], Field(max_length=16)] = Field(
        ("{root}/v1/{device_id}/reply/{client}/", "{root}/reply/{client}/"),
        strict=False,
        description="Where requesters may have answers sent: how a Response Topic or reply_to must begin.",
    )
    commands: tuple[Command, ...] = Field(
        ("health_check", "requests", "model_list", "history", "cancel", "cancel_all"),
        strict=False,
        description="Commands that are obeyed on <root>/v1/<device_id>/cmd/<name>.",
    )
    session_expiry_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = Field(
        86_400, description="How long the broker keeps prompts for this device while it is away (MQTT 5)."
    )
    keepalive_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        30,
        description="The broker tells of a broken connection within 1.5 times this (mosquitto from 15 s on), "
        "and edged notices it within about twice: one that is quiet for 5 s less is tried.",
    )
    protocol: Auto | Literal["5", "3.1.1"] = Field(
        "auto", description="Version of MQTT; auto: 5, and 3.1.1 where the broker does not speak it."
    )
    chunk_milliseconds: Annotated[int, Field(ge=0, le=60_000)] = Field(
        250, description="After the first chunk of an answer, text is sent on when it has waited this long."
    )
    chunk_characters: Annotated[int, Field(ge=1, le=10_000)] = Field(
        80, description="Or when this many characters are there, or a sentence ends."
    )
    reply_expiry_seconds: Annotated[int, Field(ge=1, le=MAX_SECONDS)] = Field(
        3600, description="How long a broker keeps frames for a requester that is away (MQTT 5)."
    )
    abandon_unheard: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0,
        description="A request is cancelled after this many chunks in a row that nobody had subscribed to "
        "(MQTT 5); 0: never.",
    )
    last_answer: bool = Field(
        False, description="Publish the text of the newest answer on <root>/v1/<device_id>/last_answer."
    )

    @property
    def address(self) -> tuple[str, int, bool] | None:
        """The broker's host and port, and whether with TLS; None where MQTT is off."""
        return parse_url(self.url)

    @model_validator(mode="after")
    def _login_is_whole(self) -> MqttTable:
        if not self.address:
            return self
        if self.password is not None and self.username is None:
            raise ValueError(
                "mqtt.password without mqtt.username: brokers want both; give the name in mqtt.username"
            )
        if (self.cert_file is None) != (self.key_file is None):
            given, missing = (
                ("key_file", "cert_file") if self.cert_file is None else ("cert_file", "key_file")
            )
            raise ValueError(f"mqtt.{given} without mqtt.{missing}: a certificate and its key go together")
        tls = [name for name in ("ca_file", "cert_file") if getattr(self, name) is not None]
        if tls and not self.address[2]:
            raise ValueError(
                f'mqtt.{tls[0]} is for TLS, which mqtt.url = "{self.url}" is without: write mqtts://, '
                f"or leave {' and '.join(tls)} out"
            )
        return self

    @model_validator(mode="after")
    def _replies_stay_out_of_own_topics(self) -> MqttTable:
        own = f"{self.root}/v1/"
        for prefix in self.reply_prefixes:
            if prefix.startswith("{client}"):
                raise ValueError(
                    f'mqtt.reply_prefixes = "{prefix}": a client could choose the topic by '
                    f"its name, and one named {self.root.partition('/')[0]} reach prompts and commands: "
                    "begin with a level of your own, such as replies/{client}/"
                )
            if _reaches(prefix.replace("{root}", self.root), own):
                raise ValueError(
                    f'mqtt.reply_prefixes = "{prefix}": answers could become prompts or commands there; '
                    f"below {own} they may go to {{root}}/v1/{{device_id}}/reply/ only"
                )
        return self
