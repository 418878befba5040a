"""The settings' tables: every key's type, range, default and meaning, said once."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edged import paths
from edged.settings.types import (
    MAX_SECONDS,
    AbsolutePath,
    Auto,
    Bytes,
    Count,
    Listen,
    Mode,
    Name,
    Origin,
    Seconds,
    SocketPath,
    Table,
    Threads,
    Token,
    Tokens,
    address,
)

Left = Annotated[int, Field(ge=2**20, le=2**40)] | Auto


class ModelTable(Table):
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


class EngineTable(Table):
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
        80, description="How long running answers wait for their next token while prompts are read, about."
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
    prefix_cache_bytes: Annotated[int, Field(ge=0, le=2**40)] | Auto = Field(
        "auto",
        description="Memory for what was computed of system texts and conversations, so that it need not be "
        "computed again; 0: none; auto: 15 % of what the engine may take, at most 256 MiB.",
    )
    memory_budget_bytes: Annotated[int, Field(ge=2**24, le=2**40)] | None = Field(
        None,
        description="Memory that the engine may take; none: by what is available.",
        examples=[600_000_000],
    )


class LimitsTable(Table):
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


class SessionsTable(Table):
    """Conversations that are kept on the device."""

    count: Annotated[int, Field(ge=0, le=10_000)] = Field(
        64, description="Sessions of all clients, at most; 0: none are kept."
    )
    turns: Count = Field(64, description="Messages kept of a session, at most.")
    bytes: Bytes = Field(65_536, description="Bytes of text kept of a session, at most.")
    idle_seconds: Seconds = Field(3600, description="A session that rests this long is forgotten.")


class SocketTable(Table):
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


class HttpTable(Table):
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
        return address(self.listen)

    @model_validator(mode="after")
    def _listener_wants_token(self) -> HttpTable:
        if self.listen and self.token is None:
            raise ValueError(
                f'listen = "{self.listen}" without a token: give the credential http_token, or name a file '
                "with it in token_file"
            )
        return self


class JournalTable(Table):
    """What is remembered of requests, through a loss of power too."""

    max_bytes: Annotated[int, Field(ge=2**23, le=2**34)] = Field(
        2**24, description="Bytes on disk, at most; where it is full, new prompts are refused."
    )
    keep_results_seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)] = Field(
        600, description="How long a finished request's answer is kept for whoever asks again."
    )
    outbox_max_bytes: Annotated[int, Field(ge=2**16, le=2**34)] = Field(
        2**22,
        description="Bytes of answers and events that wait for the broker, at most; beyond that the oldest "
        "events go first, then the oldest answers.",
    )

    @model_validator(mode="after")
    def _outbox_within_journal(self) -> JournalTable:
        if self.outbox_max_bytes > self.max_bytes:
            raise ValueError(
                f"journal.outbox_max_bytes = {self.outbox_max_bytes} is more than "
                f"journal.max_bytes = {self.max_bytes}"
            )
        return self


class LivenessTable(Table):
    """When a process counts as dead."""

    engine_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        15, description="An engine that is silent this long is killed and started again."
    )


class MemoryTable(Table):
    """When memory counts as short; the defaults fit 512 MB to 8 GB."""

    warn_bytes: Left = Field(
        "auto",
        description="With less left, beside the weights in use, kept states are dropped; auto: by memory.",
    )
    shed_bytes: Left = Field(
        "auto", description="With less left, requests are admitted one at a time; auto: by the memory."
    )
    evict_bytes: Left = Field(
        "auto", description="With less available, the model leaves memory; auto: by the memory."
    )
    critical_bytes: Left = Field(
        "auto",
        description="With less available, though the model has left, the daemon ends and is started again; "
        "auto: by the memory.",
    )
    shed_pressure_percent: Annotated[float, Field(ge=1, le=100)] = Field(
        10, description="Requests are admitted one at a time when nothing got on for this share of the time."
    )
    evict_pressure_percent: Annotated[float, Field(ge=1, le=100)] = Field(
        40, description="The model leaves memory when nothing got on for this share of the time."
    )
    major_faults_per_second: Annotated[float, Field(ge=1, le=1_000_000)] = Field(
        50,
        description="While memory is short: requests are admitted one at a time when the engine waits for "
        "this many pages to be read, and the model leaves memory at four times as many.",
    )
    engine_growth_bytes: Annotated[int, Field(ge=2**20, le=2**40)] = Field(
        2**26, description="An engine at rest that has grown by more is started anew."
    )

    @model_validator(mode="after")
    def _in_order(self) -> MemoryTable:
        names = ("critical_bytes", "evict_bytes", "shed_bytes", "warn_bytes")
        given = [(name, value) for name in names if (value := getattr(self, name)) != "auto"]
        for (lower, less), (higher, more) in pairwise(given):
            if less > more:
                raise ValueError(f"watch.memory.{lower} = {less} is more than watch.memory.{higher} = {more}")
        if self.shed_pressure_percent > self.evict_pressure_percent:
            raise ValueError(
                f"watch.memory.shed_pressure_percent = {self.shed_pressure_percent:g} is more than "
                f"watch.memory.evict_pressure_percent = {self.evict_pressure_percent:g}"
            )
        return self


class ThermalTable(Table):
    """How warm the processor may get, and how much energy computing may take."""

    target_celsius: Annotated[float, Field(ge=40, le=85)] | Auto = Field(
        "auto",
        description="The engine computes less where the processor would get warmer; auto: 75, or 5 below the "
        "kernel's first passive trip, or 3 below the firmware's soft limit, whichever is the least.",
    )
    most_duty: Annotated[float, Field(ge=0.01, le=1)] = Field(
        1, description="The share of full work that computing may come to, in the mean of ten minutes."
    )
    mean_watts: Annotated[float, Field(ge=0.1, le=1000)] | None = Field(
        None,
        description="Power that the device may take, in the mean of ten minutes; none: all it needs.",
        examples=[5.0],
    )
    rest_watts: Annotated[float, Field(ge=0, le=1000)] = Field(
        3, description="Power that the device takes at rest; mean_watts is reckoned with it."
    )
    full_watts: Annotated[float, Field(ge=0.1, le=1000)] = Field(
        8, description="Power that it takes while it computes; mean_watts is reckoned with it."
    )

    @model_validator(mode="after")
    def _in_order(self) -> ThermalTable:
        mean = self.full_watts if self.mean_watts is None else self.mean_watts
        if not self.rest_watts < mean <= self.full_watts:
            raise ValueError(
                f"watch.thermal.mean_watts = {mean:g} is not above watch.thermal.rest_watts = "
                f"{self.rest_watts:g} and at most watch.thermal.full_watts = {self.full_watts:g}"
            )
        return self


class WatchTable(Table):
    """What is watched over."""

    liveness: LivenessTable = Field(default_factory=LivenessTable)
    memory: MemoryTable = Field(default_factory=MemoryTable)
    thermal: ThermalTable = Field(default_factory=ThermalTable)
