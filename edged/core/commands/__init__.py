"""What operators may order and ask, the same on every way in."""

from edged.core.commands.results import failed, succeeded, take_transaction
from edged.core.commands.service import Commands

__all__ = ["Commands", "failed", "succeeded", "take_transaction"]
