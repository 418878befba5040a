"""What goes around a command on every way in: its transaction, and the object that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.errors import EdgedError, invalid

MAX_TRANSACTION_CHARACTERS = 128

Transaction = str | int | None


def take_transaction(fields: Mapping[str, Any]) -> tuple[Transaction, dict[str, Any]]:
    """Return the operator's own mark of a command, and the fields without it.

    Raises:
        EdgedError: `invalid`: the mark is neither a short text nor a whole number.
    """
    rest = dict(fields)
    transaction = rest.pop("transaction", None)
    if transaction is None:
        return None, rest
    is_text = isinstance(transaction, str) and len(transaction) <= MAX_TRANSACTION_CHARACTERS
    if not is_text and (isinstance(transaction, bool) or not isinstance(transaction, int)):
        raise invalid(
            f"transaction: must be a text of at most {MAX_TRANSACTION_CHARACTERS} characters, or an integer",
            param="transaction",
        )
    return transaction, rest


def succeeded(data: Mapping[str, Any], transaction: Transaction) -> dict[str, Any]:
    """Return the fields of the answer to a command that was carried out."""
    return {"status": "ok", "data": data, "error": None, "transaction": transaction}


def failed(error: EdgedError, transaction: Transaction) -> dict[str, Any]:
    """Return the fields of the answer to a command that was not carried out."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.param is not None:
        told["param"] = error.param
    if error.retry_after_s is not None:
        told["retry_after_s"] = error.retry_after_s
    return {"status": "error", "data": {}, "error": told, "transaction": transaction}
