"""What may stand where a broker should: any TCP server, a broker that speaks no MQTT 5."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a TCP server that `serve` answers, one connection after the other; give its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def broker_of_3_1_1(port: int, refusal: bytes) -> Iterator[tuple[int, list[int]]]:
    """Turn MQTT 5 down by `refusal`, pass the rest on to the broker on `port`; note the versions."""
    versions: list[int] = []

    def serve(connection: socket.socket) -> None:
        connect = connection.recv(4096)
        versions.append(connect[8])
        if connect[8] == 5:
            connection.sendall(refusal)
            return
        with socket.create_connection(("127.0.0.1", port)) as onward:
            onward.sendall(connect)
            back = threading.Thread(target=_pump, args=(onward, connection))
            back.start()
            _pump(connection, onward)
            back.join()

    with server(serve) as own_port:
        yield own_port, versions


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
