"""Models for the tests: the real one, fetched once, and a tiny random one, made once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.models.catalogue import DEFAULT_MODEL, find
from edged.models.fetch import fetch

ROOT = Path(__file__).resolve().parent.parent
TINY_MODEL_TOOL = ROOT / "tools" / "make_tiny_model.py"


@pytest.fixture(scope="session")
def models_cache() -> Path:
    """Return the directory that keeps models between runs: $EDGED_TEST_MODELS, else .cache/models."""
    return Path(os.environ.get("EDGED_TEST_MODELS") or ROOT / ".cache" / "models")


@pytest.fixture(scope="session")
def smollm2(models_cache: Path) -> Path:
    """The default model of the catalogue."""
    return fetch(find(DEFAULT_MODEL), models_cache).path


@pytest.fixture(scope="session")
def tiny_model(models_cache: Path) -> Path:
    """A random llama of two layers and 512 tokens with a ChatML template."""
    made_by = hashlib.sha256(TINY_MODEL_TOOL.read_bytes()).hexdigest()[:12]
    path = models_cache / f"tiny-{made_by}.gguf"
    if not path.exists():
        models_cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, TINY_MODEL_TOOL, "--out", path], check=True)
    return path
