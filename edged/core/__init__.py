"""What decides: admission, order, fairness, deadlines, sessions. It knows no wire format and no llama_cpp."""

from edged.core.service import Core
from edged.core.ticket import Admitted, Ticket

__all__ = ["Admitted", "Core", "Ticket"]
