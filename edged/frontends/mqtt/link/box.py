"""paho-mqtt boxed in: one client for one connection, in a thread that always says how it ended.

Only this thread touches the client. It drives it through the functions for foreign event loops, so that
paho has neither a thread nor a reconnect of its own, and nothing that it queued outlives the connection.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.frontends.mqtt.link import packets, reasons
from edged.frontends.mqtt.link.client import Client, Plan
from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.dial import begins_tls, dial
from edged.frontends.mqtt.link.ending import EndedError, Ending, Why
from edged.frontends.mqtt.link.inbox import Inbox
from edged.frontends.mqtt.link.listener import Listener
from edged.frontends.mqtt.link.stream import Head, Stream
from edged.frontends.mqtt.link.subscription import Subscription
from edged.progress import Progress

ANSWER_SECONDS = 10.0  # from CONNECT to CONNACK
TICK_SECONDS = 1.0  # how often paho looks after its keep-alive
LOOKUP_SECONDS = 180.0  # a name, asked of three servers twice with six suffixes, and the connection after it
PATIENCE_SECONDS = 5.0  # for room in the inbox: less than the shortest useful keep-alive
_WITH_WILL = 4  # the reason code of a DISCONNECT that has the will published

Command = Callable[[paho.Client], object]


class Box:
    """One connection, from the look-up of the name to its end.

    Attributes:
        progress: of its thread: a step is making the connection, or a turn of the loop that serves it.
    """

    def __init__(self, plan: Plan, listener: Listener, inbox: Inbox) -> None:
        self.progress = Progress()
        self._plan = plan
        self._listener = listener
        self._inbox = inbox
        self._commands: deque[Command] = deque()
        self._published: dict[int, int] = {}  # serials of our own packets, by packet identifier
        self._asked: dict[int, int] = {}
        self._stream: Stream | None = None
        self._connected = False
        self._closing = False
        self._ending: Ending | None = None
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"mqtt {plan.session}", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        try:
            self._thread.start()
        except BaseException:
            self._wake_reader.close()
            self._wake_writer.close()
            raise

    def publish(self, serial: int, publish: packets.Publish) -> None:
        """Send a publication; `on_published` names the serial again."""

        def send(client: paho.Client) -> None:
            info = client.publish(
                publish.topic, publish.payload, publish.qos, publish.retain, publish.properties
            )
            if info.mid in self._published:  # left alone while 65,535 others were acknowledged
                self._end("protocol")
                self._closing = True
            self._published[info.mid] = serial

        self._do(send)

    def subscribe(self, serial: int, subscriptions: Sequence[Subscription]) -> None:
        """Send one SUBSCRIBE; `on_answered` names the serial again."""
        wanted: list[Any]
        if self._plan.version == "5":
            wanted = [(one.filter, one.options()) for one in subscriptions]
        else:
            wanted = [(one.filter, one.qos) for one in subscriptions]
        self._ask(serial, len(wanted), lambda client: client.subscribe(wanted)[1])

    def unsubscribe(self, serial: int, filters: Sequence[str]) -> None:
        """Send one UNSUBSCRIBE; `on_answered` names the serial again."""
        self._ask(serial, len(filters), lambda client: client.unsubscribe(list(filters))[1])

    def _ask(self, serial: int, count: int, ask: Callable[[paho.Client], int | None]) -> None:
        def send(client: paho.Client) -> None:
            try:
                mid = ask(client)
            except ValueError:
                codes = [reasons.FILTER_INVALID] * count
                self._tell(lambda: self._listener.on_answered(serial, codes))
            else:
                if mid is not None:
                    self._asked[mid] = serial

        self._do(send)

    def acknowledge(self, mid: int, qos: int) -> None:
        """Send the acknowledgement of a message."""
        self._do(lambda client: client.ack(mid, qos))

    def leave(self, *, will: bool) -> None:
        """Send what waits and close the connection; with `will`, have the broker publish the will."""

        def send(client: paho.Client) -> None:
            if not will:
                self._end("left")
                client.disconnect()
            elif self._plan.version == "5":
                self._end("left")
                client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL))
            else:
                self.abort()

        self._do(send)

    def abort(self) -> None:
        """Close the connection at once, without a word; the broker publishes the will. From any thread."""
        self._closing = True
        self._wake()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; False when it is still busy, looking up a name say."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _do(self, command: Command) -> None:
        self._commands.append(command)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it is over
            self._wake_writer.send(b"\0")

    def _end(self, why: Why, *, code: int | None = None, error: BaseException | None = None) -> None:
        """Note how it ends; what was noted first is what counts."""
        if self._ending is None:
            stream = self._stream
            self._ending = Ending(
                why,
                code=code,
                error=error or (stream.error if stream else None),
                answered=self._connected,
                first_bytes=stream.first_bytes if stream else b"",
            )

    # In the thread.

    def _run(self) -> None:
        self.progress.step(LOOKUP_SECONDS)
        try:
            self._serve()
        except EndedError as ended:
            self._ending = self._ending or ended.ending
        except Exception as error:
            self._end("internal", error=error)
        finally:
            self._end("left" if self._closing else "lost")
            if self._stream is not None:
                self._stream.close()
            self._wake_reader.close()
            self._wake_writer.close()
            ending = self._ending
            assert ending is not None
            if ending.why == "hung_up" and not ending.first_bytes and not self._plan.broker.tls:
                self.progress.step(LOOKUP_SECONDS)
                ending = replace(ending, wants_tls=begins_tls(self._plan.broker))
            self._tell(lambda: self._listener.on_ended(ending))
            self.progress.rest()

    def _serve(self) -> None:
        client = Client(self._plan, self)
        client.begin()
        self._drive(client)

    def _drive(self, client: paho.Client) -> None:
        answer_by = time.monotonic() + ANSWER_SECONDS
        while not self._closing and client.socket() is not None:
            self.progress.step()
            while self._connected and self._commands:
                self._commands.popleft()(client)
            rc = self._step(client)
            if rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._end("protocol" if rc is MQTTErrorCode.MQTT_ERR_PROTOCOL else self._broken())
                return
            if not self._connected and time.monotonic() > answer_by:
                self._end("silent")
                return
        if not self._closing:
            self._end(self._broken())

    def _step(self, client: paho.Client) -> MQTTErrorCode:
        """Wait for something to do, and do it."""
        stream = self._stream
        assert stream is not None
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        poll.register(self._wake_reader.fileno(), select.POLLIN)
        pending = stream.pending() > 0
        ready = dict(poll.poll(0 if pending else TICK_SECONDS * 1000))
        if self._wake_reader.fileno() in ready:
            self._wake_reader.recv(4096)
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        happened = ready.get(stream.fileno(), 0)
        if pending or happened & ~select.POLLOUT:
            rc = client.loop_read()
        if rc is MQTTErrorCode.MQTT_ERR_SUCCESS and happened & select.POLLOUT and client.socket():
            rc = client.loop_write()
        if rc is MQTTErrorCode.MQTT_ERR_SUCCESS and client.socket():
            rc = client.loop_misc()
        return rc

    def _broken(self) -> Why:
        return "lost" if self._connected else "hung_up"

    def _tell(self, event: Callable[[], None]) -> None:
        self._inbox.put(event)

    # Called by paho, in the thread.

    def dial(self) -> Stream:
        """Make the socket."""
        sock = dial(self._plan.broker)
        self._stream = Stream(
            sock,
            max_packet_bytes=packets.MAX_PACKET_BYTES,
            on_oversized=lambda head: self._unusable(head, "too large"),
        )
        return self._stream

    def connected(self, session_present: bool, reason: ReasonCode, properties: Properties) -> None:
        """Take in a CONNACK."""
        plan = self._plan
        if reason.is_failure:
            self._end("refused", code=reason.value)
            return
        self._connected = True
        connection = Connection.from_connack(
            plan.session,
            plan.version,
            session_present,
            properties,
            session_expiry_seconds=plan.session_expiry_seconds,
        )
        self._tell(lambda: self._listener.on_connected(connection))

    def disconnected(self, by_broker: bool, reason: ReasonCode) -> None:
        """Take in a DISCONNECT, or paho's own view of the end."""
        if by_broker:
            self._end("disconnected", code=reason.value)
        elif reason.value == reasons.KEEP_ALIVE_TIMEOUT:
            self._end("keepalive")

    def published(self, mid: int, reason: ReasonCode) -> None:
        """Take in a PUBACK, or that a publication of QoS 0 is written."""
        serial = self._published.pop(mid, None)
        if serial is not None:
            self._tell(lambda: self._listener.on_published(serial, reason.value))

    def answered(self, mid: int, reasons: list[ReasonCode]) -> None:
        """Take in a SUBACK or UNSUBACK."""
        serial = self._asked.pop(mid, None)
        if serial is not None:
            codes = [reason.value for reason in reasons]
            self._tell(lambda: self._listener.on_answered(serial, codes))

    def arrived(self, received: paho.MQTTMessage) -> None:
        """Take in a message: QoS 0 is dropped when there is no room, all else makes the broker wait."""
        assert self._stream is not None
        assert self._stream.head is not None
        size = self._stream.head.size
        try:
            received.topic  # noqa: B018
        except UnicodeDecodeError:
            self.unreadable()
            return
        patience = PATIENCE_SECONDS if received.qos else 0.0
        taken = self._inbox.put_message(lambda: self._listener.on_message(received), size, patience)
        if not taken and received.qos:
            self._end("overrun")
            self._closing = True

    def unreadable(self) -> None:
        """Step over a message that paho can't take apart: the broker would deliver it again for ever."""
        assert self._stream is not None
        assert self._stream.head is not None
        self._unusable(self._stream.head, "not readable")

    def _unusable(self, head: Head, why: str) -> None:
        self._tell(lambda: self._listener.on_unusable(head, why))
