"""All tables together, merged from the layers that the sources give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from edged import paths
from edged.log import Level
from edged.settings.device import default_device_id
from edged.settings.mqtt import MqttTable
from edged.settings.schema import (
    EngineTable,
    HttpTable,
    JournalTable,
    LimitsTable,
    ModelTable,
    SessionsTable,
    SocketTable,
)
from edged.settings.types import AbsolutePath, DeviceId, Source
from edged.settings.watch import WatchTable


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
    mqtt: MqttTable = Field(default_factory=MqttTable)
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
