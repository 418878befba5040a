"""What the handlers know of a request beside its body."""

from __future__ import annotations

from aiohttp import web

from edged.frontends.http.connection import Connection
from edged.protocol import Client

REQUEST_ID = web.RequestKey("request_id", str)
ORIGIN = web.RequestKey("origin", str)


def connection_of(request: web.BaseRequest) -> Connection:
    """Return the connection that a request came by."""
    assert isinstance(request.protocol, Connection)
    return request.protocol


def client_of(request: web.BaseRequest, user: str = "") -> Client:
    """Return whom the core counts a request for."""
    connection = connection_of(request)
    return Client(name=connection.client_name, way=connection.way, user=user)
