"""The settings' tables: every key's type, range, default and meaning, said once."""

from __future__ import annotations

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
        "auto",
        description="Use flash attention; auto: where kv_type or deterministic needs it. On x86-64 answers "
        "in short chats are a tenth faster with it, and at 1,000 tokens they take twice as long.",
    )
    deterministic: bool = Field(
        False,
        description="Answers at temperature 0, or of one seed, that do not depend on who else asks, at "
        "the cost of speed.",
    )
    prefix_cache_bytes: Annotated[int, Field(ge=0, le=2**40)] | Auto = Field(
        "auto",
        description="Memory for what was computed of system texts and conversations, so that it need not be "
        "computed again; 0: none, and no request takes over what another has computed; auto: 15 % of what "
        "the engine may take, at most 256 MiB.",
    )
    memory_budget_bytes: Annotated[int, Field(ge=2**24, le=2**40)] | None = Field(
        None,
        description="Memory that the engine may take; none: by what is available.",
        examples=[600_000_000],
    )
    idle_unload_seconds: Annotated[float, Field(ge=1, le=MAX_SECONDS)] | None = Field(
        None,
        description="After so long without requests the model leaves memory, and the next request waits for "
        "it; none: it stays.",
        examples=[3600],
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
