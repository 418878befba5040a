"""Acknowledgements of messages: in the order in which the messages arrived (MQTT-4.6.0-2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Receipts:
    """The messages of one connection that still want an acknowledgement. Lives on the event loop."""

    def __init__(self, send: Callable[[int, int], None]) -> None:
        """`send` takes a packet identifier and a QoS."""
        self._send = send
        self._open: deque[_Receipt] = deque()

    def add(self, mid: int, qos: int) -> Callable[[], None]:
        """Note a message that has arrived; return what acknowledges it."""
        receipt = _Receipt(self, mid, qos)
        if qos:
            self._open.append(receipt)
        return receipt.sign

    def flush(self) -> None:
        """Send all that may leave: those that are signed, up to the first that isn't."""
        while self._open and self._open[0].signed:
            receipt = self._open.popleft()
            self._send(receipt.mid, receipt.qos)


class _Receipt:
    __slots__ = ("_receipts", "mid", "qos", "signed")

    def __init__(self, receipts: Receipts, mid: int, qos: int) -> None:
        self._receipts = receipts
        self.mid = mid
        self.qos = qos
        self.signed = False

    def sign(self) -> None:
        if not self.signed:
            self.signed = True
            self._receipts.flush()
