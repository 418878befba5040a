"""What many tests share: models (a real one, fetched once; a tiny random one, made once) and brokers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from edged.models.catalogue import DEFAULT_MODEL, find
from edged.models.fetch import fetch
from tests.brokers import MakeMosquitto, Mosquitto

# How fast a machine is says nothing of what is tested.
settings.register_profile("edged", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edged")

ROOT = Path(__file__).resolve().parent.parent
TINY_MODEL_TOOL = ROOT / "tools" / "make_tiny_model.py"
EMBEDDING_MODEL_TOOL = ROOT / "tools" / "make_tiny_embedding_model.py"


@pytest.fixture(scope="session")
def models_cache() -> Path:
    """Return the directory that keeps models between runs: $EDGED_TEST_MODELS, else .cache/models."""
    return Path(os.environ.get("EDGED_TEST_MODELS") or ROOT / ".cache" / "models")


@pytest.fixture(scope="session")
def smollm2(models_cache: Path) -> Path:
    """The default model of the catalogue."""
    return fetch(find(DEFAULT_MODEL), models_cache).path


MakeTinyModel = Callable[[str], Path]


@pytest.fixture(scope="session")
def make_tiny_model(models_cache: Path) -> MakeTinyModel:
    """Return a function that makes a random model of an architecture: two layers, 512 tokens, ChatML."""
    made_by = hashlib.sha256(TINY_MODEL_TOOL.read_bytes()).hexdigest()[:12]

    def make(architecture: str) -> Path:
        path = models_cache / f"tiny-{architecture}-{made_by}.gguf"
        if not path.exists():
            models_cache.mkdir(parents=True, exist_ok=True)
            options = ("--out", path, "--architecture", architecture)
            subprocess.run([sys.executable, TINY_MODEL_TOOL, *options], check=True)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_model(make_tiny_model: MakeTinyModel) -> Path:
    """A random llama of two layers and 512 tokens with a ChatML template."""
    return make_tiny_model("llama")


MakeEmbeddingModel = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def make_embedding_model(models_cache: Path) -> MakeEmbeddingModel:
    """Return a function that makes a tiny random model for embeddings, by kind (bert, llama) and pooling."""
    made_by = hashlib.sha256(EMBEDDING_MODEL_TOOL.read_bytes()).hexdigest()[:12]

    def make(kind: str, pooling: str) -> Path:
        path = models_cache / f"tiny-{kind}-{pooling}-{made_by}.gguf"
        if not path.exists():
            models_cache.mkdir(parents=True, exist_ok=True)
            options = ("--out", path, "--kind", kind, "--pooling", pooling)
            subprocess.run([sys.executable, EMBEDDING_MODEL_TOOL, *options], check=True)
        return path

    return make


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A running broker that all tests share, open to anybody: use topics of your own, leave it running."""
    shared = Mosquitto(tmp_path_factory.mktemp("broker"))
    shared.start()
    yield shared
    shared.stop()


@pytest.fixture
def make_mosquitto(tmp_path: Path) -> Iterator[MakeMosquitto]:
    """Make running brokers of the test's own; those that still run at its end are stopped."""
    made: list[Mosquitto] = []

    def make(
        *,
        config: str = "allow_anonymous true",
        persistent: bool = False,
        port: int | None = None,
        host: str = "127.0.0.1",
    ) -> Mosquitto:
        directory = tmp_path / f"mosquitto-{len(made)}"
        mosquitto = Mosquitto(directory, config=config, persistent=persistent, port=port, host=host)
        made.append(mosquitto)
        mosquitto.start()
        return mosquitto

    yield make
    for mosquitto in made:
        mosquitto.stop()


@pytest.fixture
def mosquitto(make_mosquitto: MakeMosquitto) -> Mosquitto:
    """A running broker of the test's own, open to anybody."""
    return make_mosquitto()
