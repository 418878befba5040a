"""What a topic of edged's and its payload say, in a few words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edged.cli.mqtt_reports import report

_INWARD = ("ask", "cancel", "cmd")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message went.

    Attributes:
        device: the device's id, or pool:NAME.
        kind: the levels of the topic below the device that say what it is.
        client: whom it concerns, where the topic says so.
        id: the request, where the topic says so.
        inward: it goes to the device.
    """

    device: str
    kind: str
    client: str = ""
    id: str = ""
    inward: bool = False

    def told(self, payload: bytes) -> tuple[str, str]:
        """Return the message's kind and what it says."""
        text = payload.decode(errors="backslashreplace")
        fields = _object(payload)
        if not payload:
            return self.kind, "cleared"
        if fields is None:
            return self.kind, text
        if self.kind == "reply":
            return str(fields.get("type", "reply")), _frame(fields)
        if self.kind == "ask":
            return self.kind, f"{str(fields.get('id') or '')[:8]} {_question(fields)}".strip()
        if self.kind == "cancel":
            return self.kind, str(fields.get("id", text))[:8]
        if self.kind == "status":
            parts = [fields.get("state"), fields.get("phase"), fields.get("reason")]
            return self.kind, " ".join(str(part) for part in parts if part)
        if self.kind == "cmd" or self.kind.startswith("cmd/"):
            text = " ".join(str(fields[key]) for key in ("status", "error") if fields.get(key)) or text
        return self.kind, report(self.kind, fields) or text


def place(topic: str, root: str) -> Place:
    """Say what a topic under `<root>/v1/` is."""
    device, *levels = topic.removeprefix(f"{root}/v1/").split("/")
    if device == "_pool" and levels:
        device, levels = f"pool:{levels[0]}", levels[1:]
    match levels:
        case ["ask" | "cancel" as kind, client, *_]:
            return Place(device, kind, client, inward=True)
        case ["reply", client, request, *_]:
            return Place(device, "reply", client, request)
        case ["cmd", *rest] if rest and rest[-1] != "result":
            return Place(device, "/".join(levels), inward=True)
        case _:
            return Place(device, "/".join(levels), inward=bool(levels) and levels[0] in _INWARD[:1])


def _object(payload: bytes) -> Mapping[str, Any] | None:
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _question(fields: Mapping[str, Any]) -> str:
    if isinstance(fields.get("prompt"), str):
        return str(fields["prompt"])
    match fields.get("messages"):
        case [*_, {"content": str(text)}]:
            return text
    return json.dumps(fields, ensure_ascii=False)


def _frame(fields: Mapping[str, Any]) -> str:
    match fields.get("type"):
        case "accepted":
            before = fields.get("queue_position")
            attempt = f", attempt {fields['attempt']}" if fields.get("attempt", 1) != 1 else ""
            return (f"{before} before it" if before else "runs") + attempt
        case "chunk":
            return str(fields.get("text", ""))
        case "progress":
            return f"{fields.get('prompt_tokens_done')} of {fields.get('prompt_tokens')} tokens read"
        case "done":
            return f"({fields.get('finish_reason')}) {fields.get('text', '')}"
        case "error":
            return f"{fields.get('code')}: {fields.get('message')}"
    return json.dumps(fields, ensure_ascii=False)
