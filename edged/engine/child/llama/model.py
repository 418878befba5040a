"""The weights of a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from edged.engine.child.llama.library import LlamaError, lib, log
from edged.engine.child.llama.vocabulary import Vocabulary


class Model:
    """Weights of a GGUF file, mapped into memory.

    Args:
        path: the file.
        use_extra_bufts: repack weights for faster kernels, where the library has some.
        vocab_only: load the vocabulary without weights.
        on_progress: told the share (0 to 1) that is loaded.

    Raises:
        LlamaError: the file can't be loaded; with the library's reasons.
    """

    def __init__(
        self,
        path: Path,
        *,
        use_extra_bufts: bool = True,
        vocab_only: bool = False,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP
        params.use_extra_bufts = use_extra_bufts
        params.vocab_only = vocab_only

        def progress(share: float, _user_data: object) -> bool:
            if on_progress is not None:
                on_progress(share)
            return True

        callback = lib.llama_progress_callback(progress)
        params.progress_callback = callback
        log.errors = []
        self._handle = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._handle:
            raise LlamaError("; ".join(log.errors) or f"{path.name} could not be loaded")
        self.vocabulary = Vocabulary(lib.llama_model_get_vocab(self._handle))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            lib.llama_model_free(self._handle)
            self._handle = None

    @property
    def chat_template(self) -> str | None:
        """Return the template that the file carries, if any."""
        raw: bytes | None = lib.llama_model_chat_template(self._handle, None)
        return raw.decode(errors="replace") if raw else None

    @property
    def has_decoder(self) -> bool:
        """Say whether the model can generate at all."""
        return bool(lib.llama_model_has_decoder(self._handle)) and not lib.llama_model_has_encoder(
            self._handle
        )

    @property
    def handle(self) -> Any:
        """Return the native pointer, for `Context`."""
        return self._handle
