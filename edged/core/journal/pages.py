"""Rows read from the pages of a damaged database, without SQLite, which gives up at the first fault.

Each page is looked at by itself, as if it were a leaf of the table; what a row's checksum confirms is taken.
The form is stable and documented (sqlite.org/fileformat2.html, "B-tree Pages" and "Record Format").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from edged.core.journal.records import Row

_LEAF_HEADER_BYTES = 8
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Fetch = Callable[[int], bytes]


def rows_of(page: bytes, fetch: Fetch) -> Iterator[Row]:
    """Return those of the page's rows that can be read.

    Args:
        page: its bytes.
        fetch: gives another page, for rows that are longer than one; empty if there is none.
    """
    if page[:1] != b"\x0d":
        return
    cells = min(int.from_bytes(page[3:5], "big"), (len(page) - _LEAF_HEADER_BYTES) // 2)
    for index in range(cells):
        at = _LEAF_HEADER_BYTES + 2 * index
        with contextlib.suppress(ValueError, IndexError):
            yield _row(page, int.from_bytes(page[at : at + 2], "big"), fetch)


def _row(page: bytes, at: int, fetch: Fetch) -> Row:
    size, at = _varint(page, at)
    _, at = _varint(page, at)  # the row's place
    payload = _payload(page, at, size, fetch)
    header_end, at = _varint(payload, 0)
    values: list[Any] = []
    body = header_end
    while at < header_end:
        kind, at = _varint(payload, at)
        value, body = _value(payload, body, kind)
        values.append(value)
    if len(values) != len(Row._fields):
        raise ValueError("another number of columns")
    return Row.verified(values)


def _payload(page: bytes, at: int, size: int, fetch: Fetch) -> bytes:
    """Join what lies in the leaf and what lies in overflow pages."""
    usable = len(page)
    if size <= usable - 35:
        return page[at : at + size]
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    if local > usable - 35:
        local = least
    payload = bytearray(page[at : at + local])
    following = page[at + local : at + local + 4]
    seen = set()
    while len(payload) < size:
        more = fetch(int.from_bytes(following, "big"))
        if len(more) != usable or following in seen:
            raise ValueError("an overflow page is missing")
        seen.add(following)
        payload += more[4:]
        following = more[:4]
    return bytes(payload[:size])


def _value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind >= 12:
        end = at + (kind - 12) // 2
        if end > len(payload):
            raise ValueError("a value that is longer than its row")
        data = payload[at:end]
        return (data.decode() if kind % 2 else data), end
    if kind in (8, 9):
        return kind - 8, at
    if kind == 0:
        return None, at
    if kind not in _INTEGER_BYTES:
        raise ValueError("a type that no column has")
    end = at + _INTEGER_BYTES[kind]
    return int.from_bytes(payload[at:end], "big", signed=True), end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + index + 1
    raise AssertionError
