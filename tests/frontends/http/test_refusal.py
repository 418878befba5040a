"""Those who connected with a daemon that can't start."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from edged.errors import EdgedError, ErrorCode
from edged.frontends.http.refusal import refuse_waiting


def test_everyone_who_waits_hears_why(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "edged.sock"))
    listener.listen()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in clients:
        client.settimeout(5)
        client.connect(str(tmp_path / "edged.sock"))
    clients[0].sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert refuse_waiting([listener], EdgedError(ErrorCode.SHUTTING_DOWN, "a key is wrong")) == 3

    for client in clients:
        with client, client.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert json.loads(body)["error"]["message"] == "a key is wrong"
    assert listener.fileno() == -1, "a socket that nobody reads would hold them"
