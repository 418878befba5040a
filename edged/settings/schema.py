"""The settings' tables: every key's type, range, default and meaning, said once.

Values are strict: what a source gives must already be of the right type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from edged import paths
from edged.log import Level
from edged.settings.device import default_device_id, is_device_id

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


def _must(holds: Callable[[Any], object]) -> AfterValidator:
    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError("not allowed")
        return value

    return AfterValidator(check)


def _address(text: str) -> tuple[str, int] | None:
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match["port"]) < 2**16:
        return None
    return match["host"] or match["ipv6"], int(match["port"])


def _is_origin(text: str) -> bool:
    scheme, _, host = text.partition("://")
    return scheme in ("http", "https") and bool(_address(host) or _address(f"{host}:80"))


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
AbsolutePath = Annotated[Path, BeforeValidator(_path), _must(is_absolute), Allowed("an absolute path")]
SocketPath = Annotated[
    AbsolutePath,
    _must(lambda path: len(bytes(path)) <= MAX_SOCKET_PATH_BYTES),
    Allowed(f"an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes"),
]
Mode = Annotated[str, Field(pattern="^0[0-7]{3}$"), Allowed('an octal mode as text, such as "0660"')]
DeviceId = Annotated[
    str, _must(is_device_id), Allowed("1 to 63 characters of a-z 0-9 -, the first of them no -")
]
Listen = Annotated[
    str,
    _must(lambda text: text == "" or _address(text)),
    Allowed('"" or host:port, such as "127.0.0.1:8080" or "[::1]:8080"'),
]
Origin = Annotated[str, _must(_is_origin), Allowed('origins, such as "http://kitchen.local:8080"')]
Token = Annotated[
    SecretStr,
    _must(_is_token),
    Allowed(f"at least {MIN_TOKEN_CHARACTERS} printable ASCII characters without spaces"),
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ModelTable(_Table):
    """The language model."""

    path: AbsolutePath | None = Field(
        None,
        description="A GGUF file. It goes before name.",
        examples=["/var/lib/edged/models/my-model.gguf"],
    )
    name: Name = Field(
        "smollm2-135m-instruct-q4_1", description="A model of the catalogue (edgectl model list)."
    )
    context: Annotated[int, Field(ge=256, le=2**20)] | Auto = Field(
        "auto",
        description="Tokens that one request may use, prompt and answer together; "
        "auto: by the model and the memory.",
    )
    sequences: Annotated[int, Field(ge=1, le=64)] | Auto = Field(
        "auto",
        description="Requests that run at once; each takes memory for a whole context; "
        "auto: by cores and memory.",
    )
    kv_type: Literal["f16", "q8_0", "q4_0"] = Field(
        "f16",
        description="Numbers in the KV cache; q8_0 and q4_0 save memory and need flash attention.",
    )


class EngineTable(_Table):
    """How the engine, a process of its own, computes."""

    threads: Threads | Auto = Field("auto", description="Threads that generate; auto: by the cores.")
    threads_batch: Threads | Auto = Field(
        "auto", description="Threads that read prompts; auto: by the cores."
    )
    batch_tokens: Annotated[int, Field(ge=65, le=2**20)] = Field(
        512, description="Tokens of all requests in one step, at most; more than there are sequences."
    )
    ubatch_tokens: Tokens = Field(
        256, description="Tokens computed at a time within a step; more want more memory."
    )
    step_milliseconds: Annotated[int, Field(ge=1, le=10_000)] = Field(
        100, description="How long a step may take, so that a long prompt does not stall the others."
    )
    repack: bool | Auto = Field(
        "auto",
        description="Keep a copy of the weights laid out for this processor: faster, but takes memory; "
        "auto: unless it was found not to work here.",
    )
    flash_attention: bool | Auto = Field(
        "auto", description="Use flash attention; auto: where kv_type or deterministic needs it."
    )
    deterministic: bool = Field(
        False,
        description="Answers at temperature 0 that do not depend on who else asks, at the cost of speed.",
    )
    memory_budget_bytes: Annotated[int, Field(ge=2**24, le=2**40)] | None = Field(
        None,
        description="Memory that the engine may take; none: by what is available.",
        examples=[600_000_000],
    )


class LimitsTable(_Table):
    """What is accepted."""

    queue: Count = Field(64, description="Requests that wait, at most; more are answered busy.")
    per_client: Count = Field(16, description="Requests of one client that wait or run, at most.")
    max_prompt_bytes: Bytes = Field(65_536, description="Bytes of a request's texts, at most.")
    max_tokens: Tokens = Field(2048, description="Tokens of an answer that a request may ask for, at most.")
    max_tokens_default: Tokens = Field(256, description="Tokens of an answer where the request does not say.")
    ttl_seconds: Seconds = Field(
        600, description="How long a request may wait before it begins, where it does not say."
    )

    @model_validator(mode="after")
    def _default_within_ceiling(self) -> LimitsTable:
        if self.max_tokens_default > self.max_tokens:
            raise ValueError(
                f"max_tokens_default = {self.max_tokens_default} is more than max_tokens = {self.max_tokens}"
            )
        return self


class SessionsTable(_Table):
    """Conversations that are kept on the device."""

    count: Annotated[int, Field(ge=0, le=10_000)] = Field(
        64, description="Sessions of all clients, at most; 0: none are kept."
    )
    turns: Count = Field(64, description="Messages kept of a session, at most.")
    bytes: Bytes = Field(65_536, description="Bytes of text kept of a session, at most.")
    idle_seconds: Seconds = Field(3600, description="A session that rests this long is forgotten.")


class SocketTable(_Table):
    """The Unix socket that local programs and edgectl use."""

    path: SocketPath = Field(
        default_factory=lambda: paths.default_socket(paths.runtime_dir()),
        description="Where the socket is made.",
        examples=["/run/edged/edged.sock"],
        json_schema_extra={"default": "<runtime_dir>/edged.sock"},
    )
    mode: Mode = Field("0660", description="The socket's permissions: who may write to it may ask.")
    group: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="The group that it belongs to; none: the daemon's own.", examples=["edged"]
    )


class HttpTable(_Table):
    """HTTP over TCP, beside the Unix socket."""

    listen: Listen = Field("", description="Where to listen; empty: off. It wants a token.")
    token: Token | None = Field(
        None,
        description="What TCP clients must show. Only from the credential http_token or from token_file.",
    )
    token_file: AbsolutePath | None = Field(
        None,
        description="A file whose first line is the token; others than owner and group may not read it.",
        examples=["/etc/edged/http_token"],
    )
    allowed_origins: Annotated[tuple[Origin, ...], Field(max_length=64)] = Field(
        (),
        strict=False,
        description="Web pages of other origins that may use the API.",
        examples=[["http://kitchen.local:8080"]],
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on, or None."""
        return _address(self.listen)

    @model_validator(mode="after")
    def _listener_wants_token(self) -> HttpTable:
        if self.listen and self.token is None:
            raise ValueError(
                f'listen = "{self.listen}" without a token: give the credential http_token, or name a file '
                "with it in token_file"
            )
        return self


class JournalTable(_Table):
    """What is remembered of requests."""

    keep_results_seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)] = Field(
        600, description="How long a finished request's answer is kept for whoever asks again."
    )


class LivenessTable(_Table):
    """When a process counts as dead."""

    engine_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        15, description="An engine that is silent this long is killed and started again."
    )


class WatchTable(_Table):
    """What is watched over."""

    liveness: LivenessTable = Field(default_factory=LivenessTable)


@dataclass(frozen=True)
class Layer:
    """What one source says.

    Attributes:
        source: "file", "environment" or "credential".
        tree: tables and values, as TOML nests them.
    """

    source: Source
    tree: Mapping[str, Any]

    def get(self, key: str) -> Any:
        """Return the value that the layer gives to a key.

        Raises:
            KeyError: it gives none.
        """
        node: Any = self.tree
        for part in key.split("."):
            if not isinstance(node, Mapping):
                raise KeyError(key)
            node = node[part]
        return node

    def has(self, key: str) -> bool:
        """Say whether the layer gives the key a value."""
        try:
            self.get(key)
        except KeyError:
            return False
        return True


class Settings(BaseSettings):
    """All settings; the attributes are named as the keys (settings.watch.liveness.engine_seconds).

    Built directly it takes nothing but its arguments; `load` reads files and the environment.
    """

    # Not strict as a whole, so that type checkers allow Settings(model={"context": 512}); each key is.
    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    _layers: tuple[Layer, ...] = PrivateAttr(())

    device_id: DeviceId = Field(
        default_factory=default_device_id,
        description="The name of this device among others.",
        examples=["kitchen-3fa2b1"],
        json_schema_extra={"default": "<hostname>-<six hex digits of the serial number or the machine's id>"},
    )
    log_level: Level = Field("info", description="Events of this level and above are logged.")
    state_dir: AbsolutePath = Field(
        default_factory=paths.state_dir,
        description="Directory of what outlives a restart: models, journal.",
        examples=["/var/lib/edged"],
        json_schema_extra={"default": "$STATE_DIRECTORY, /var/lib/edged for root, else ~/.local/state/edged"},
    )
    runtime_dir: AbsolutePath = Field(
        default_factory=paths.runtime_dir,
        description="Directory of what a reboot may take: the socket.",
        examples=["/run/edged"],
        json_schema_extra={"default": "$RUNTIME_DIRECTORY, /run/edged for root, else $XDG_RUNTIME_DIR/edged"},
    )
    stop_seconds: Annotated[float, Field(ge=0, le=3600, strict=True)] = Field(
        10, description="How long a stop waits for running requests before it cuts them off."
    )
    model: ModelTable = Field(default_factory=ModelTable)
    engine: EngineTable = Field(default_factory=EngineTable)
    limits: LimitsTable = Field(default_factory=LimitsTable)
    sessions: SessionsTable = Field(default_factory=SessionsTable)
    socket: SocketTable = Field(default_factory=SocketTable)
    http: HttpTable = Field(default_factory=HttpTable)
    journal: JournalTable = Field(default_factory=JournalTable)
    watch: WatchTable = Field(default_factory=WatchTable)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments alone: the library's own sources pass over unknown names in silence."""
        return (init_settings,)

    @classmethod
    def from_layers(cls, layers: Sequence[Layer]) -> Settings:
        """Merge the layers, the first one winning, and validate them.

        Raises:
            pydantic.ValidationError: with every fault in it.
        """
        sources = tuple(InitSettingsSource(cls, dict(layer.tree)) for layer in layers)
        settings = cls(_build_sources=(sources, {}))
        settings._layers = tuple(layers)
        return settings

    def source(self, key: str) -> Source:
        """Say where a key's value comes from."""
        return next((layer.source for layer in self._layers if layer.has(key)), "default")

    @model_validator(mode="before")
    @classmethod
    def _socket_in_runtime_dir(cls, given: Any) -> Any:
        table = given.get("socket", {})
        if isinstance(given.get("runtime_dir"), str) and isinstance(table, dict):
            path = paths.default_socket(Path(given["runtime_dir"]))
            return {**given, "socket": {"path": str(path), **table}}
        return given

    @model_validator(mode="after")
    def _tables_agree(self) -> Settings:
        if self.engine.flash_attention is False:
            if self.model.kv_type != "f16":
                raise ValueError(
                    f'model.kv_type = "{self.model.kv_type}" needs flash attention, which '
                    "engine.flash_attention = false turns off"
                )
            if self.engine.deterministic:
                raise ValueError(
                    "engine.deterministic = true needs flash attention, which "
                    "engine.flash_attention = false turns off"
                )
        if self.engine.ubatch_tokens > self.engine.batch_tokens:
            raise ValueError(
                f"engine.ubatch_tokens = {self.engine.ubatch_tokens} is more than "
                f"engine.batch_tokens = {self.engine.batch_tokens}"
            )
        if self.model.context != "auto" and self.model.context <= self.limits.max_tokens_default:
            raise ValueError(
                f"model.context = {self.model.context} leaves no room for a prompt beside "
                f"limits.max_tokens_default = {self.limits.max_tokens_default}"
            )
        return self
