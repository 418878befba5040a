"""Commands about models: which there are, which one is used, and whether it is in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import structlog

from edged.core.commands.fields import check_known, model_of, page_of, paged
from edged.errors import EdgedError, ErrorCode
from edged.models.catalogue import CATALOGUE
from edged.models.store import name_of

if TYPE_CHECKING:
    from edged.core.service import Core
    from edged.engine.plan import EnginePlan, Planner

_log = structlog.get_logger(__name__)


class ModelCommands:
    """Handlers of the commands about models.

    Args:
        core: whose engine it is.
        planner: knows the models of the device, and the chosen one.
    """

    def __init__(self, core: Core, planner: Planner) -> None:
        self._core = core
        self._planner = planner
        self._change: asyncio.Task[dict[str, Any]] | None = None

    async def list(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """List the models of the device and of the catalogue, a page at a time.

        Raises:
            EdgedError: `invalid`.
        """
        check_known(fields, "page")
        page = page_of(fields)
        plan, is_loaded = self._core.engine.plan, self._core.engine.state == "ready"
        models = []
        for path in await asyncio.to_thread(self._planner.models):
            is_chosen = plan is not None and plan.file == str(path)
            models.append(_entry(name_of(path), path, is_loaded=is_chosen and is_loaded, is_chosen=is_chosen))
        here = {model["file"] for model in models}
        models += [
            _absent(entry.name, entry.file_name, entry.size_bytes)
            for entry in CATALOGUE.values()
            if entry.file_name not in here
        ]
        models.sort(key=lambda model: str(model["name"]))
        return {**paged("models", models, page), "chosen_by": plan.chosen_by if plan else None}

    async def use(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Take another model, and remember it across restarts; null goes back to the configured one.

        It is checked before anything is stopped. What runs has `stop_seconds` to end, what comes meanwhile
        waits. If the engine can't serve with the model, the earlier one is loaded again. An operator who
        does not wait for the end stops nothing.

        Raises:
            EdgedError: `invalid` (as where no model has that name), `model_unavailable`, `busy` (another
                change is under way), or `journal_full` (the choice can't be kept).
        """
        check_known(fields, "name")
        name = model_of(fields)
        self.check_idle()
        self._change = asyncio.create_task(self._use(name), name="model_use")
        self._change.add_done_callback(self._changed)
        return await asyncio.shield(self._change)

    async def unload(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Free the model's memory until something is asked again.

        Raises:
            EdgedError: `invalid`, `busy` (requests are in hand), or `model_unavailable` (none is loaded).
        """
        check_known(fields)
        self.check_idle()
        engine = self._core.engine
        if count := len(self._core.in_hand()) + self._core.direct.in_hand:
            raise EdgedError(
                ErrorCode.BUSY,
                f"{count} requests are in hand, and the model is needed until the last has ended: wait, "
                "or give cancel_all first",
            )
        if engine.state == "failed":
            raise EdgedError(
                ErrorCode.MODEL_UNAVAILABLE,
                f"no model is loaded: {engine.supervisor.reason or 'none can be'}",
            )
        freed = self._private_bytes()
        engine.unload()
        return {"freed_bytes": freed}

    def check_idle(self) -> None:
        """Refuse a command that does not go with a change of model.

        Raises:
            EdgedError: `busy`.
        """
        if self._change is not None:
            raise EdgedError(
                ErrorCode.BUSY, "another model is being loaded; try again when it is", retry_after_s=5.0
            )

    async def _use(self, name: str | None) -> dict[str, Any]:
        engine = self._core.engine
        plan = await asyncio.to_thread(self._planner.check, name, freed_bytes=self._private_bytes())
        if (
            engine.is_ready
            and engine.plan is not None
            and (engine.plan.file, engine.plan.key)
            == (
                plan.file,
                plan.key,
            )
        ):
            with self._planner.trying(name):
                engine.plan = replace(engine.plan, chosen_by=plan.chosen_by)
            return _in_use(engine.plan, engine.context)
        with engine.held():
            await self._drained()
            try:
                await engine.try_plan(self._planner.trying(name))
            except EdgedError as error:
                raise EdgedError(
                    error.code,
                    f"{error.message}; so it was not taken, and the model before it is loaded again",
                ) from None
        assert engine.plan is not None
        return _in_use(engine.plan, engine.context)

    async def _drained(self) -> None:
        """Wait until nothing runs any more, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._core.settings.stop_seconds):
                await self._core.dispatcher.drained()
                await self._core.direct.wait()

    def _changed(self, change: asyncio.Task[dict[str, Any]]) -> None:
        self._change = None
        if change.cancelled():
            return
        if (error := change.exception()) is not None:
            _log.warning("another model was not taken", reason=str(error))
        else:
            _log.info("model in use", **change.result())

    def _private_bytes(self) -> int:
        """Return the memory that the engine's end would free for certain."""
        pid = self._core.engine.supervisor.pid
        if pid is None:
            return 0
        try:
            memory = psutil.Process(pid).memory_info()
        except psutil.Error:
            return 0
        return int(memory.rss - memory.shared)


def _entry(name: str, path: Path, *, is_loaded: bool, is_chosen: bool) -> dict[str, Any]:
    try:
        size = path.stat().st_size
    except OSError:  # it has just been removed
        size = None
    return {
        "name": name,
        "file": path.name,
        "bytes": size,
        "installed": True,
        "loaded": is_loaded,
        "chosen": is_chosen,
    }


def _absent(name: str, file: str, size: int) -> dict[str, Any]:
    return {
        "name": name,
        "file": file,
        "bytes": size,
        "installed": False,
        "loaded": False,
        "chosen": False,
    }


def _in_use(plan: EnginePlan, context: int) -> dict[str, Any]:
    return {
        "name": plan.name,
        "file": Path(plan.file).name,
        "context": context,
        "chosen_by": plan.chosen_by,
    }
