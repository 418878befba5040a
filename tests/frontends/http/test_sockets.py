"""Sockets: permissions before anyone can connect, stale files replaced, living daemons left alone."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from edged.errors import EdgedError
from edged.frontends.http import server
from edged.frontends.http.sockets import SocketFile, listen_tcp, listen_unix
from edged.settings import Settings
from tests.frontends.http.conftest import FakeCore, Service, make_frontend


def listen(path: Path, mode: int = 0o660, group: str | None = None) -> socket.socket:
    return listen_unix(path, mode=mode, group=group)


def test_mode_and_group_stand_before_it_listens(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = socket_dir / "s"
    group = grp.getgrgid(os.getgid()).gr_name
    modes: list[int] = []

    class Watched(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(address)  # type: ignore[arg-type]
            modes.append(stat.S_IMODE(path.stat().st_mode))

        def listen(self, backlog: int = 0, /) -> None:
            modes.append(stat.S_IMODE(path.stat().st_mode))
            super().listen(backlog)

    monkeypatch.setattr(socket, "socket", Watched)
    with listen(path, 0o620, group):
        assert modes == [0o600, 0o620]
        assert path.stat().st_gid == os.getgid()


def test_stale_file_is_replaced(socket_dir: Path) -> None:
    path = socket_dir / "s"
    listen(path).close()
    with listen(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_living_daemons_socket_is_left_alone(socket_dir: Path) -> None:
    path = socket_dir / "s"
    with listen(path), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(EdgedError, match=f"already listens on {path}"):
            listen(path)
        client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(socket_dir: Path) -> None:
    path = socket_dir / "s"
    path.write_text("dear")
    with pytest.raises(EdgedError, match="is no socket"):
        listen(path)
    assert path.read_text() == "dear"


@pytest.mark.parametrize(
    ("name", "what"),
    [("none/s", "no directory"), ("file/s", "is no directory"), ("x" * 120, "of 107 at most")],
)
def test_faults_name_path_and_remedy(socket_dir: Path, name: str, what: str) -> None:
    (socket_dir / "file").touch()
    with pytest.raises(EdgedError, match=what) as caught:
        listen(socket_dir / name)
    assert str(socket_dir) in caught.value.message
    assert caught.value.param == "socket.path"


def test_not_permitted(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal is the system call's stand-in."""

    class Refused(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(EdgedError, match="let it write to") as caught:
        listen(socket_dir / "s")
    assert caught.value.code == "not_allowed"


def test_unknown_group_leaves_no_file(socket_dir: Path) -> None:
    with pytest.raises(EdgedError, match="there is no group nobodys-group") as caught:
        listen(socket_dir / "s", group="nobodys-group")
    assert caught.value.param == "socket.group"
    assert not (socket_dir / "s").exists()


def test_only_the_own_file_is_removed(socket_dir: Path) -> None:
    path = socket_dir / "s"
    with listen(path):
        own = SocketFile(path)
        path.rename(socket_dir / "moved")
        path.touch()
        own.remove()
        assert path.exists()
        (socket_dir / "moved").rename(path)
        own.remove()
        assert not path.exists()
        own.remove()


def test_tcp_port_in_use(socket_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EdgedError, match=f"can't listen on 127.0.0.1:{port}: Address already in use"):
            listen_tcp("127.0.0.1", port)


async def test_stopped_frontend_leaves_no_file(service: Service) -> None:
    assert stat.S_IMODE(service.path.stat().st_mode) == 0o660
    await service.frontend.stop(1.0)
    assert not service.path.exists()


async def test_given_sockets_take_the_place_of_their_kind_alone(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = socket_dir / "given"
    given = listen(path)
    tcp = socket.create_server(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    monkeypatch.setattr(server, "listen_tcp", lambda *address: [tcp] if address == ("a.home", 80) else [])
    settings = Settings(
        socket={"path": str(socket_dir / "s")}, http={"listen": "a.home:80", "token": "x" * 20}
    )
    frontend = make_frontend(FakeCore(), settings)
    await frontend.start([given])
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://x/health") as answer,
    ):
        assert answer.status == 200
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/health") as answer:
        assert answer.status == 401
    await frontend.stop(1.0)
    assert not (socket_dir / "s").exists()
    assert path.exists(), "systemd's socket file is systemd's"
