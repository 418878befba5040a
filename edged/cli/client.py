"""HTTP/1.1 over the daemon's Unix socket: small, since http.client alone costs 30 ms to import."""

from __future__ import annotations

import json
import socket
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edged import paths
from edged.cli.connect import connect
from edged.cli.errors import CommandError, Exit, error_of_fields

_PIECE_BYTES = 65536
_MAX_LINE_BYTES = 65536
_CONTINUE = 100
FIRST_SECONDS = 30.0
"""How long the first answer may take: systemd may start the daemon for it."""
LIVE_SECONDS = 3.0
"""How long a live view waits for each further one, and obeys no key meanwhile."""


class Daemon:
    """The daemon behind one socket path; each request has a connection of its own."""

    @classmethod
    def of(cls, args: Namespace) -> Daemon:
        """Return the daemon that the command line means, else the configured one.

        Raises:
            CommandError: the configuration that was named is not there.
        """
        if args.config is not None and not args.config.is_file():
            raise CommandError(f"there is no configuration file {args.config}", Exit.USAGE)
        return cls(args.socket or paths.socket_path(args.config or paths.config()))

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, path: str, *, timeout: float = FIRST_SECONDS) -> Any:
        """Return the JSON that the daemon answers to a GET.

        Raises:
            CommandError: the daemon can't be reached, or answers with an error.
        """
        with self.request("GET", path, timeout=timeout) as response:
            return response.json()

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and return its answer, of which only the head has been read.

        Args:
            method: the HTTP method.
            path: the path of the URL.
            body: is sent as JSON.
            request_id: becomes the header X-Request-Id.
            timeout: seconds for all of it, the answer's end included; None waits for ever.

        Raises:
            CommandError: the daemon can't be reached, or answers with an error.
        """
        try:
            payload = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise CommandError("the text is no UTF-8", Exit.USAGE) from None
        fields = {}
        if body is not None:
            fields = {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        if request_id is not None:
            fields["X-Request-Id"] = request_id
        deadline = None if timeout is None else time.monotonic() + timeout
        response = Response(self.path, connect(self.path), deadline)
        with response.closed_on_error():
            response.send(_head(method, path, fields) + payload)
            response.read_head()
        return response

    def upload(self, path: str, size_bytes: int, pieces: Iterable[bytes]) -> Response:
        """Send a body piece by piece, once the daemon wants it, and return the answer.

        Args:
            path: the path of the URL.
            size_bytes: bytes of all pieces together.
            pieces: are taken as fast as the daemon takes them.

        Raises:
            CommandError: the daemon can't be reached, or answers with an error.
        """
        fields = {"Content-Length": str(size_bytes), "Expect": "100-continue"}
        response = Response(self.path, connect(self.path), None)
        with response.closed_on_error():
            response.send(_head("POST", path, fields))
            response.read_head()
            for piece in pieces if response.status == _CONTINUE else ():
                if not response.send(piece):
                    break
            response.read_head()
        return response


def _head(method: str, path: str, fields: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: edged", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


class Response:
    """The answer to one request; closing it before its end cancels what was asked.

    Attributes:
        status: the HTTP status, below 300: others are raised as errors.
        headers: the header fields, names in lower case.
    """

    def __init__(self, path: Path, connection: socket.socket, deadline: float | None) -> None:
        self._path = path
        self._connection = connection
        self._deadline = deadline
        self._file = connection.makefile("rb")
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._connection.close()

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Hang up if what is done within fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def send(self, message: bytes) -> bool:
        """Send all of it; return False if the daemon wants no more: its answer says why."""
        try:
            self._arm()
            self._connection.sendall(message)
        except TimeoutError:
            raise self._too_late() from None
        except OSError:
            return False
        return True

    def read_head(self) -> None:
        """Read status line and headers.

        Raises:
            CommandError: an error came instead of an answer.
        """
        version, _, rest = self._line().partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise self._foreign()
        self.status = int(rest[:3])
        while line := self._line():
            name, _, value = line.partition(b":")
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()
        if self.status >= 300:
            raise self._refused()

    def json(self) -> Any:
        """Return the body, parsed."""
        try:
            return json.loads(b"".join(self._body()))
        except ValueError:
            raise self._foreign() from None

    def events(self) -> Iterator[tuple[str, Any]]:
        """Yield the stream's events as they come: ("data", JSON) or a comment's (name, JSON).

        The end mark `[DONE]` comes as ("done", None).

        Raises:
            CommandError: the stream broke off, or carried an error.
        """
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            raise self._foreign()
        for line in self._lines():
            if line.startswith(b":"):
                name, _, text = line[1:].strip().partition(b" ")
            elif line.startswith(b"data:"):
                name, text = b"data", line[5:].strip()
            else:
                continue
            if text == b"[DONE]":
                yield "done", None
                continue
            try:
                fields = json.loads(text) if text else {}
            except ValueError:
                if name != b"data":
                    continue  # a comment in plain words, such as a keep-alive
                raise self._foreign() from None
            if name == b"data" and isinstance(fields, dict) and isinstance(fields.get("error"), dict):
                raise error_of_fields(fields["error"])
            yield name.decode(errors="replace"), fields

    def gone(self) -> CommandError:
        """Return the error of an answer that broke off."""
        return CommandError(
            "the daemon went away in the middle of the answer", Exit.UNREACHABLE, hint="its log says why"
        )

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        for part in self._body():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.rstrip(b"\r")

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := self._chunk_size():
                yield from self._exactly(size)
                self._line()
        elif "content-length" in self.headers:
            yield from self._exactly(int(self.headers["content-length"]))
        else:
            while part := self._read():
                yield part

    def _chunk_size(self) -> int:
        try:
            return int(self._line().partition(b";")[0], 16)
        except ValueError:
            raise self._foreign() from None

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            part = self._read(size)
            if not part:
                raise self.gone()
            size -= len(part)
            yield part

    def _read(self, size: int = _PIECE_BYTES) -> bytes:
        return self._receive(self._file.read1, min(size, _PIECE_BYTES))

    def _line(self) -> bytes:
        line = self._receive(self._file.readline, _MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise self._foreign() if line else self.gone()
        return line.rstrip(b"\r\n")

    def _receive(self, reader: Callable[[int], bytes], size: int) -> bytes:
        try:
            self._arm()
            return reader(size)
        except TimeoutError:
            raise self._too_late() from None
        except OSError:
            raise self.gone() from None

    def _arm(self) -> None:
        """Give the next operation the time that is left."""
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)

    def _refused(self) -> CommandError:
        body = self.json()
        error = body.get("error") if isinstance(body, dict) else None
        return error_of_fields(error) if isinstance(error, dict) else self._foreign()

    def _foreign(self) -> CommandError:
        return CommandError(
            f"what answers at {self._path} is not edged", Exit.UNREACHABLE, hint="name its socket by --socket"
        )

    def _too_late(self) -> CommandError:
        return CommandError("the daemon did not answer in time, so the request was given up", Exit.FAILED)
