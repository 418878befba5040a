"""The tool that makes models for the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edged.models.gguf import read_gguf

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_tiny_model.py"


def make(path: Path, *options: str) -> Path:
    subprocess.run([sys.executable, TOOL, "--out", path, *options], check=True)
    return path


def test_the_same_options_give_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "same.gguf").read_bytes() == tiny_model.read_bytes()
    assert make(tmp_path / "other.gguf", "--seed", "2").read_bytes() != tiny_model.read_bytes()


def test_options_shape_the_model(tmp_path: Path) -> None:
    options = ("--layers", "3", "--width", "256", "--vocab-size", "1000", "--no-template")
    facts = read_gguf(make(tmp_path / "shaped.gguf", *options))
    assert (facts.n_layer, facts.n_embd, facts.n_vocab, facts.n_ctx_train) == (3, 256, 1000, 4096)
    assert facts.chat_template is None
