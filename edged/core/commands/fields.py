"""Validation of commands' fields, and results in pages."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edged.errors import invalid
from edged.protocol import valid_name

MAX_MODEL_NAME_CHARACTERS = 255
ENTRIES_OF_A_PAGE = 50


def check_known(fields: Mapping[str, Any], *known: str) -> None:
    """Refuse fields that the command does not know.

    Raises:
        EdgedError: `invalid`, naming the field.
    """
    for name in fields:
        if name in known:
            continue
        near = difflib.get_close_matches(name[:64], known, n=1)
        takes = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known) or 'none'}"
        raise invalid(f"unknown field {json.dumps(name[:64])}; {takes}", param=name[:64])


def page_of(fields: Mapping[str, Any]) -> int:
    """Return the number of the page that is wanted, the first being 1.

    Raises:
        EdgedError: `invalid`.
    """
    page = fields.get("page")
    if page is None:
        return 1
    if isinstance(page, bool) or not isinstance(page, int) or page < 1:
        raise invalid("page: must be a whole number from 1 on", param="page")
    return page


def client_of(fields: Mapping[str, Any]) -> str | None:
    """Return the client that is meant, None for all.

    Raises:
        EdgedError: `invalid`.
    """
    client = fields.get("client")
    if client is not None and not (isinstance(client, str) and valid_name(client)):
        raise invalid("client: must be 1 to 64 characters of A-Z a-z 0-9 _ . -", param="client")
    return client


def model_of(fields: Mapping[str, Any]) -> str | None:
    """Return the name of the model that is meant, None for the configured one.

    Raises:
        EdgedError: `invalid`.
    """
    if "name" not in fields:
        raise invalid("name is missing: the name of a model, or null for the configured one", param="name")
    name = fields["name"]
    if name is None or (isinstance(name, str) and 0 < len(name) <= MAX_MODEL_NAME_CHARACTERS):
        return name
    raise invalid(
        f"name: must be a text of 1 to {MAX_MODEL_NAME_CHARACTERS} characters, or null", param="name"
    )


def text_of(fields: Mapping[str, Any], name: str, is_valid: Callable[[str], bool]) -> str:
    """Return a field that must be a text of a certain kind.

    Raises:
        EdgedError: `invalid`.
    """
    value = fields.get(name)
    if not (isinstance(value, str) and is_valid(value)):
        raise invalid(
            f"{name}: must be the {name} of a request, as the command requests lists it", param=name
        )
    return value


def one_of(fields: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str:
    """Return a field that must be one of these texts.

    Raises:
        EdgedError: `invalid`.
    """
    value = fields.get(name)
    if value not in allowed:
        raise invalid(f"{name}: must be one of {', '.join(allowed)}", param=name)
    return str(value)


def paged(name: str, entries: Sequence[Mapping[str, Any]], page: int) -> dict[str, Any]:
    """Return one page of a result, under `name`; a page beyond the last is empty."""
    first = (page - 1) * ENTRIES_OF_A_PAGE
    return {
        name: list(entries[first : first + ENTRIES_OF_A_PAGE]),
        "page": page,
        "pages": max(1, -(-len(entries) // ENTRIES_OF_A_PAGE)),
        "total": len(entries),
    }
