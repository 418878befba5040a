"""`edgectl model`: what models there are, and whether they are whole."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edged import paths
from edged.cli.client import Daemon
from edged.cli.config import load
from edged.cli.errors import CommandError, Exit
from edged.cli.model_import import import_
from edged.cli.model_show import show
from edged.cli.model_use import unload, use
from edged.cli.output import note, print_json, print_rows, size
from edged.cli.progress import FetchProgress
from edged.errors import EdgedError
from edged.models.catalogue import CATALOGUE, Entry, find
from edged.models.fetch import fetch
from edged.models.store import entry_of, installed, resolve, verify
from edged.settings import Settings

_BY_DAEMON = {"use": use, "unload": unload, "import": import_}


def run(args: Namespace) -> Exit:
    """Run the action that the command line names."""
    if (by_daemon := _BY_DAEMON.get(args.action)) is not None:
        by_daemon(args)
        return Exit.OK
    settings = load(args)
    if args.action == "list":
        _list(args, settings)
    elif args.action == "fetch":
        _fetch(args, settings)
    elif args.action == "show":
        show(_file(args, settings), settings, as_json=args.json)
    else:
        _verify(args, settings)
    return Exit.OK


def _list(args: Namespace, settings: Settings) -> None:
    directory = paths.models_dir(settings.state_dir)
    loaded = _loaded_file(args)
    here = {path.name: path for path in installed(directory)}
    known = {entry.file_name: entry for entry in CATALOGUE.values()}
    models: list[dict[str, Any]] = []
    for file in [*known, *(here.keys() - known.keys())]:
        entry, path = known.get(file), here.get(file)
        models.append(
            {
                "name": entry.name if entry else file,
                "file": file,
                "path": str(path) if path else None,
                "size_bytes": path.stat().st_size if path else entry.size_bytes if entry else None,
                "license": entry.license if entry else None,
                "languages": entry.languages if entry else [],
                "installed": path is not None,
                "loaded": file == loaded,
            }
        )
    if args.json:
        print_json(models)
        return
    rows = [("NAME", "SIZE", "LICENSE", "LANGUAGES", "STATE")]
    for model in models:
        state = "loaded" if model["loaded"] else "installed" if model["installed"] else "not fetched"
        languages = ", ".join(model["languages"]) or "-"
        rows.append((model["name"], size(model["size_bytes"]), model["license"] or "-", languages, state))
    print_rows(rows)
    if directory.is_dir() and not os.access(directory, os.R_OK | os.X_OK):
        note(f"{directory} can't be read by you: more may be installed")


def _loaded_file(args: Namespace) -> str | None:
    """Return the name of the file that the daemon has loaded, None if it has none or is not there."""
    try:
        status = Daemon.of(args).get("/v1/status", timeout=2.0)
    except CommandError:
        return None
    is_loaded = status["model"] and status["engine"]["state"] == "ready"
    return Path(status["model"]["file"]).name if is_loaded else None


def _fetch(args: Namespace, settings: Settings) -> None:
    is_url = "://" in args.model
    if args.sha256 and not is_url:
        raise CommandError("--sha256 belongs to a URL: the catalogue knows its own", Exit.USAGE)
    source = args.model if is_url else _entry(args.model)
    with FetchProgress() as progress:
        try:
            fields = {"url" if is_url else "name": args.model, "sha256": args.sha256}
            fields = {name: value for name, value in fields.items() if value is not None}
            done = fetch_by_daemon(Daemon.of(args), fields, progress)
        except CommandError as error:
            directory = paths.models_dir(settings.state_dir)
            if error.exit != Exit.UNREACHABLE or progress.begun:
                raise
            if not _writable(directory):
                hint = "start the daemon, which fetches for you, or use sudo"
                raise CommandError(
                    f"{error.message}, and you may not write to {directory}", Exit.NOT_PERMITTED, hint=hint
                ) from None
            fetched = fetch(source, directory, sha256=args.sha256, progress=progress.update)
            done = {"path": str(fetched.path), "sha256": fetched.sha256}
    if args.json:
        print_json(done)
    else:
        print(done["path"])
        note(f"sha256 {done['sha256']}")


def fetch_by_daemon(daemon: Daemon, fields: Mapping[str, str], progress: FetchProgress) -> dict[str, str]:
    """Have the daemon fetch a model; return its answer, `path` and `sha256`.

    Args:
        daemon: the daemon.
        fields: `name`, or `url` and `sha256`.
        progress: hears of the bytes that have come.

    Raises:
        CommandError: it can't be reached, or can't fetch it.
    """
    with daemon.request("POST", "/v1/models/fetch", fields) as response:
        for name, event in response.events():
            if name == "data" and "path" in event:
                return {"path": event["path"], "sha256": event["sha256"]}
            if name == "data":
                progress.update(event["bytes_done"], event["bytes_total"])
        raise response.gone()


def _writable(directory: Path) -> bool:
    """Say whether files can be made in the directory, or it itself can."""
    nearest = next(place for place in (directory, *directory.parents) if os.path.lexists(place))
    return os.access(nearest, os.W_OK | os.X_OK)


def _file(args: Namespace, settings: Settings) -> Path:
    """Return the file that MODEL means: a catalogued name, a path or an installed file."""
    directory = paths.models_dir(settings.state_dir)
    if args.model is None:
        return resolve(settings.model.path, settings.model.name, directory)
    if args.model not in CATALOGUE:
        for path in (Path(args.model), directory / args.model):
            if path.is_file():
                return path
        if args.model.endswith(".gguf"):
            raise CommandError(f"there is no file {args.model}", Exit.USAGE, hint="edgectl model list")
    return resolve(None, _entry(args.model).name, directory)


def _entry(name: str) -> Entry:
    try:
        return find(name)
    except EdgedError as error:
        raise CommandError(error.message, Exit.USAGE, hint="edgectl model list") from None


def _verify(args: Namespace, settings: Settings) -> None:
    path = _file(args, settings)
    name, beside = entry_of(path), path.with_name(f"{path.name}.sha256")
    if name is not None:
        expected, source = find(name).sha256, "the catalogue"
    elif beside.is_file():
        expected, source = beside.read_text().split(maxsplit=1)[0], str(beside)
    else:
        hint = f"put it into {beside.name}, as sha256sum prints it"
        raise CommandError(f"no sha256 is known for {path}", Exit.FAILED, hint=hint)
    with FetchProgress() as progress:
        verify(path, expected, progress=progress.update)
    if args.json:
        print_json({"path": str(path), "sha256": expected.lower(), "according_to": source})
    else:
        print(f"{path}: whole, as {source} says")
