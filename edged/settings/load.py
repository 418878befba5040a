"""Reads the settings' sources: a TOML file, the environment, the credentials directory.

Of two sources that give a key a value the later one wins. Every fault found is told at once.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edged.settings.files import unreadable
from edged.settings.keys import (
    CREDENTIALS,
    ENVIRONMENT_PREFIX,
    KEYS,
    SECRETS,
    TABLES,
    allowed,
    near_misses,
    takes_text,
    toml,
    variable,
)
from edged.settings.settings import Layer, Settings
from edged.settings.types import Source, is_absolute

_NOT_SETTINGS = re.compile(r"EDGED_(SOCKET|CONFIG|DEBUG|BROKER|BROKER_.*|TEST_.*)")
# What is mistaken for the name of a secret's file may be the secret itself.
_NOT_SHOWN = {*SECRETS, *CREDENTIALS.values()}
_SHOWN_CHARACTERS = 80
_MAX_SECRET_BYTES = 4096


class SettingsError(Exception):
    """The settings can't be used.

    Attributes:
        faults: a line each: where, what was given, what is allowed. No secret is quoted.
    """

    def __init__(self, faults: list[str]) -> None:
        self.faults = [_printable(fault) for fault in faults]
        super().__init__("\n".join(self.faults))


def load(config: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check all settings; `config` is the file to read, if any.

    Raises:
        SettingsError: with every fault.
    """
    return _Loading(config, environ).settings()


@dataclass
class _Loading:
    config: Path | None
    environ: Mapping[str, str]
    faults: list[str] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)

    def settings(self) -> Settings:
        self.layers = [Layer("environment", self._environment()), Layer("file", self._file())]
        self.layers.insert(0, Layer("credential", self._credentials()))
        self.layers[:0] = [layer for key in SECRETS for layer in self._secret(key)]
        try:
            settings = Settings.from_layers(self.layers)
        except ValidationError as error:
            self.faults += self._explain(error)
        if self.faults:
            raise SettingsError(self.faults)
        return settings

    def _file(self) -> dict[str, Any]:
        if self.config is None:
            return {}
        try:
            tree = tomllib.loads(self.config.read_bytes().decode())
        except OSError as error:
            self.faults.append(f"{self.config}: {unreadable(self.config, error)} (--config, EDGED_CONFIG)")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            self.faults.append(f"{self.config}: line {line}: is no UTF-8")
        except RecursionError:
            self.faults.append(f"{self.config}: is nested too deeply")
        except ValueError as error:
            self.faults.append(f"{self.config}: is no TOML: {error}")
        else:
            for key in SECRETS:
                table, name = key.split(".")
                if isinstance(tree.get(table), dict) and tree[table].pop(name, None) is not None:
                    self._refuse_secret(f"{self.config}: {key}", key)
            return tree
        return {}

    def _environment(self) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        keys = {variable(key): key for key in KEYS}
        for name, text in sorted(self.environ.items()):
            if not name.startswith(ENVIRONMENT_PREFIX) or _NOT_SETTINGS.fullmatch(name):
                continue
            key = keys.get(name)
            if key is None:
                near = near_misses(name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), KEYS)
                self.faults.append(f"{name}: there is no such setting{_hint(map(variable, near))}")
            elif key in SECRETS:
                self._refuse_secret(name, key)
            else:
                *tables, leaf = key.split(".")
                node = tree
                for table in tables:
                    node = node.setdefault(table, {})
                node[leaf] = text if takes_text(key) else _read_value(text)
        return tree

    def _credentials(self) -> dict[str, Any]:
        """Return the files of the credentials directory, each under the key that else names such a file."""
        tree: dict[str, Any] = {}
        if directory := self.environ.get("CREDENTIALS_DIRECTORY"):
            for credential, key in CREDENTIALS.items():
                if (path := Path(directory).absolute() / credential).exists():
                    table, name = key.split(".")
                    tree.setdefault(table, {})[name] = str(path)
        return tree

    def _secret(self, key: str) -> Iterator[Layer]:
        """Read a secret from the first line of the file that is named for it."""
        layer = self._layer_of(SECRETS[key])
        if layer is None:
            return
        given = layer.get(SECRETS[key])
        if not isinstance(given, str) or not is_absolute(path := Path(given)):
            return
        try:
            with path.open("rb") as file:
                if layer.source != "credential" and os.fstat(file.fileno()).st_mode & stat.S_IROTH:
                    self.faults.append(f"{path}: everybody may read it: chmod o= {path}")
                line = file.readline(_MAX_SECRET_BYTES + 1).rstrip(b"\r\n")
            value = line.decode()
        except OSError as error:
            self.faults.append(f"{path}: {unreadable(path, error)}")
        except UnicodeDecodeError:
            self.faults.append(f"{path}: is no UTF-8")
        else:
            if len(line) > _MAX_SECRET_BYTES:
                self.faults.append(f"{path}: its first line is longer than {_MAX_SECRET_BYTES} bytes")
            table, name = key.split(".")
            source: Source = "credential" if layer.source == "credential" else "file"
            yield Layer(source, {table: {name: value}})

    def _refuse_secret(self, where: str, key: str) -> None:
        credential = next(name for name, file_key in CREDENTIALS.items() if file_key == SECRETS[key])
        self.faults.append(
            f"{where}: a secret does not belong here: give the credential {credential}, or name a file "
            f"that holds it in {SECRETS[key]}"
        )

    def _layer_of(self, key: str) -> Layer | None:
        return next((layer for layer in self.layers if layer.has(key)), None)

    def _explain(self, error: ValidationError) -> Iterator[str]:
        told = set()
        for fault in error.errors(include_url=False, include_context=False):
            key = _key(fault["loc"])
            if key in told:  # each member of a union has its own word about the same value
                continue
            told.add(key)
            where = self._where(key)
            if fault["type"] == "extra_forbidden":
                kind = "table" if isinstance(fault["input"], dict) else "key"
                near = (f"[{one}]" if one in TABLES else one for one in near_misses(key, [*KEYS, *TABLES]))
                yield f"{where}: there is no such {kind}{_hint(near)}"
            elif fault["type"] == "told":
                yield f"{where}: {fault['msg']}"
            elif key in KEYS:
                value = "" if key in _NOT_SHOWN else _shown(fault["input"])
                yield f"{where}{value}: must be {allowed(key)}"
            elif fault["type"] == "value_error":
                yield fault["msg"].removeprefix("Value error, ")
            else:
                yield f"{where}: must be a table, [{key}]"

    def _where(self, key: str) -> str:
        if key in SECRETS and (layer := self._layer_of(SECRETS[key])):
            return str(layer.get(SECRETS[key]))
        layer = self._layer_of(key)
        if layer and layer.source == "environment":
            return variable(key)
        if layer and layer.source == "credential":
            return str(layer.get(key))
        return f"{self.config}: {key}"


def _key(location: tuple[int | str, ...]) -> str:
    """Return the key that a fault is about: the rest of its location is indices and names of types."""
    key = ""
    for part in location:
        key = f"{key}.{part}".lstrip(".")
        if key not in TABLES:
            break
    return key


def _read_value(text: str) -> Any:
    """Read a value as TOML has it; what is none is text, so that quotes may be left out."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def _shown(value: Any) -> str:
    text = toml(value)
    return f" = {text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'}"


def _printable(text: str) -> str:
    """Escape what would command a terminal, or is no UTF-8."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _hint(names: Iterable[str]) -> str:
    joined = " or ".join(names)
    return f"; did you mean {joined}?" if joined else ""
