"""The TCP listener wants a token; Host and Origin are checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from edged.settings import Settings
from tests.frontends.http.conftest import (
    WAIT_SECONDS,
    FakeCore,
    Service,
    chat_body,
    chat_bytes,
    make_frontend,
)

TOKEN = "a-token-of-32-characters-or-so"
PAGE = "http://kitchen.local:8080"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Tcp:
    """A frontend on TCP and a client of it."""

    def __init__(self, core: FakeCore, port: int, session: aiohttp.ClientSession) -> None:
        self.core = core
        self.port = port
        self._session = session

    async def request(
        self, method: str = "GET", path: str = "/health", **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(
            method, f"http://127.0.0.1:{self.port}{path}", headers=fields
        ) as response:
            return response.status, await response.text(), dict(response.headers)


@pytest.fixture
async def tcp(socket_dir: Path) -> AsyncIterator[Tcp]:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    core = FakeCore()
    settings = Settings(
        socket={"path": str(socket_dir / "s")},
        http={"listen": f"edged.home:{port}", "token": TOKEN, "allowed_origins": [PAGE]},
    )
    frontend = make_frontend(core, settings)
    await frontend.start([sock])
    async with aiohttp.ClientSession() as session:
        yield Tcp(core, port, session)
    await frontend.stop(1.0)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \u00e9"},
        {"Authorization": "Bearer"},
    ],
)
async def test_without_the_token(tcp: Tcp, sent: dict[str, str]) -> None:
    status, text, headers = await tcp.request(**sent)
    assert status == 401
    assert '"code": "invalid_api_key"' in text
    assert headers["WWW-Authenticate"] == 'Bearer realm="edged"'


async def test_with_the_token(tcp: Tcp) -> None:
    assert (await tcp.request(**AUTHORIZED))[0] == 200


async def test_client_is_the_tokens(tcp: Tcp) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{tcp.port}/v1/chat/completions"
        async with session.post(url, json=chat_body(user="ann"), headers=AUTHORIZED) as response:
            assert response.status == 200
    client = tcp.core.tickets[0].client
    assert (client.name, client.way, client.user) == ("http", "tcp", "ann")


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:80", "edged.home:1234"])
async def test_own_names_in_host(tcp: Tcp, host: str) -> None:
    assert (await tcp.request(Host=host, **AUTHORIZED))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.2", "localhost.evil.example", "[", "@"])
async def test_foreign_names_in_host(tcp: Tcp, host: str) -> None:
    status, text, _ = await tcp.request(Host=host, **AUTHORIZED)
    assert status == 403
    assert "127.0.0.1, edged.home, localhost" in text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", PAGE + ".evil.example", ""])
async def test_foreign_pages(tcp: Tcp, origin: str) -> None:
    status, _, headers = await tcp.request(Origin=origin, **AUTHORIZED)
    assert status == 403
    assert "Access-Control-Allow-Origin" not in headers


async def test_allowed_page(tcp: Tcp) -> None:
    status, _, headers = await tcp.request(Origin=PAGE, **AUTHORIZED)
    assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (200, PAGE, "Origin")


async def test_allowed_page_can_read_a_refusal(tcp: Tcp) -> None:
    status, _, headers = await tcp.request(Origin=PAGE)
    assert (status, headers["Access-Control-Allow-Origin"]) == (401, PAGE)


async def test_preflight_of_an_allowed_page_needs_no_token(tcp: Tcp) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-a"}
    status, _, headers = await tcp.request("OPTIONS", "/v1/chat/completions", Origin=PAGE, **asked)
    assert (status, headers["Access-Control-Allow-Headers"]) == (204, "authorization,x-a")
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert (await tcp.request("OPTIONS", "/v1/chat/completions", Origin="http://evil.example", **asked))[
        0
    ] == 403
    assert (await tcp.request("OPTIONS", "/v1/chat/completions", **asked))[0] == 401


async def test_end_of_a_tcp_connection_is_a_hang_up(tcp: Tcp) -> None:
    tcp.core.script.go_on.clear()
    request = chat_bytes().replace(
        b"Host: x\r\n", f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    )
    with socket.create_connection(("127.0.0.1", tcp.port)) as raw:
        raw.sendall(request)
        ticket = await asyncio.wait_for(tcp.core.submitted.get(), WAIT_SECONDS)
        assert not ticket.cancelled.is_set()
        raw.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(ticket.cancelled.wait(), WAIT_SECONDS)


async def test_unix_socket_needs_neither_token_nor_host_but_takes_no_pages(service: Service) -> None:
    for headers, expected in (({"Host": "anything"}, 200), ({"Origin": "http://evil.example"}, 403)):
        async with service.session.get(service.url("/health"), headers=headers) as response:
            assert response.status == expected


async def test_reload_changes_the_allowed_pages(service: Service) -> None:
    service.frontend.reload(Settings(http={"allowed_origins": [PAGE]}))
    async with service.session.get(service.url("/health"), headers={"Origin": PAGE}) as response:
        assert response.status == 200
