"""Getting a model from a web server."""

from __future__ import annotations

import hashlib
import http
import http.client
import ipaddress
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from edged.errors import invalid
from edged.models.catalogue import UrlSource
from edged.models.header import require_magic
from edged.models.store import unavailable
from edged.models.transfer import BLOCK_BYTES, Transfer

_TIMEOUT_SECONDS = 20
_TORN_TAIL_BYTES = 1 << 20


def check_url(url: str, *, has_sha256: bool) -> None:
    """Check that a model may be fetched from there.

    Raises:
        EdgedError: invalid if not: by https; by http only from this device or with a checksum.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise invalid(f"the address cannot be read: {error}", param="url") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise invalid(f"{_shown(url)!r} is no address of a model: it must begin with https://", param="url")
    if parts.username is not None:
        raise invalid("an address with a user name or password in it is not served", param="url")
    if parts.scheme == "http" and not has_sha256 and not _is_loopback(parts.hostname):
        raise invalid("plain http is served only together with the file's sha256; use https", param="url")
    if not re.fullmatch(r"\w[\w.+-]*\.gguf", UrlSource(url).file_name, re.ASCII):
        raise invalid(f"{_shown(url)!r} does not end in the plain name of a .gguf file", param="url")


def from_url(
    source: UrlSource, directory: Path, transfer: Transfer, *, sha256: str | None
) -> tuple[Path, str]:
    """Download the file into `directory`, going on where an earlier try ended; return its path and SHA-256.

    What has come stays in `directory` when the connection breaks or the download is called off.

    Raises:
        EdgedError: model_unavailable if that fails; invalid if the server leads to a forbidden address.
        OSError: if the disk fails.
    """
    path, tag = directory / source.file_name, directory / "etag"
    validator = tag.read_text() if tag.exists() else None
    # Without the server's word or a checksum, two versions of the file could be joined.
    may_resume = path.exists() and (validator or sha256)
    kept = max(path.stat().st_size - _TORN_TAIL_BYTES, 0) if may_resume else 0
    headers = {"User-Agent": "edged", "Accept-Encoding": "identity"}
    if kept:
        headers["Range"] = f"bytes={kept}-"
        if validator:
            headers["If-Range"] = validator
    opener = urllib.request.build_opener(_CheckedRedirects(has_sha256=sha256 is not None))
    shown = _shown(source.url)
    try:
        request = urllib.request.Request(source.url, headers=headers)
        response = opener.open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            path.unlink()  # the file there has become shorter than what is here
        raise unavailable(
            f"{shown} cannot be fetched: the server answered {error.code} {error.reason}"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise unavailable(f"{shown} cannot be fetched: {_reason(error)}") from error
    with response:
        start = kept if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise unavailable(f"{shown} answered with another part of the file than was asked for")
        if start == 0:
            path.unlink(missing_ok=True)  # before the new tag: a power loss must not join the old part to it
        tag.write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
        return path, _receive(response, path, start, transfer, shown)


def _receive(
    response: http.client.HTTPResponse, path: Path, start: int, transfer: Transfer, shown: str
) -> str:
    total = None if response.length is None else start + response.length
    transfer.require_space(path.parent, (total or start) - start)
    digest = hashlib.sha256()
    with path.open("r+b" if start else "wb") as file:
        while file.tell() < start:
            digest.update(file.read(min(BLOCK_BYTES, start - file.tell())))
            transfer.check()
        if start:
            file.truncate()
        while block := _read(response, shown):
            if file.tell() == 0:
                require_magic(block, shown)
            digest.update(block)
            file.write(block)
            transfer.progress(file.tell(), total)
            transfer.check()
            if total is None:
                transfer.require_space(path.parent, 0)
        done = file.tell()
    if total is not None and done < total:
        raise unavailable(
            f"the connection to {shown} broke after {done} of {total} bytes; fetch again to go on from there"
        )
    return digest.hexdigest()


def _read(response: http.client.HTTPResponse, shown: str) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise unavailable(
            f"the connection to {shown} broke: {_reason(error)}; fetch again to go on from there"
        ) from error


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, *, has_sha256: bool) -> None:
        self._has_sha256 = has_sha256

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        parts = urlsplit(newurl)
        if parts.scheme == "http" and not self._has_sha256 and not _is_loopback(parts.hostname or ""):
            fp.close()
            raise invalid("the address leads to plain http, which needs the file's sha256", param="url")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: str) -> str:
    """Return the address as it may be told: its query can hold a signature, its host part a password."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({reason.verify_message}); is the device's clock right?"
    return str(reason) or type(reason).__name__
