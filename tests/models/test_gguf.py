"""The reader of GGUF headers: right about good files, and clear, bounded and safe about all others."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.errors import EdgedError, ErrorCode
from edged.models.ggml import FILE_TYPES, TENSOR_TYPES
from edged.models.gguf import read_gguf

U32, U64, I32, STRING, ARRAY = 4, 10, 5, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def number(name: str, value: int) -> bytes:
    return key(name, U32, struct.pack("<I", value))


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + items


def tensor(
    name: str = "token_embd.weight", shape: tuple[int, ...] = (32, 8), kind: int = 0, offset: int = 0
) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


MODEL = (
    key("general.architecture", STRING, text("llama")),
    number("llama.block_count", 3),
    number("llama.embedding_length", 32),
    number("llama.context_length", 2048),
    number("llama.attention.head_count", 4),
)
WEIGHTS = (tensor(),)


def file_of(
    path: Path,
    keys: tuple[bytes, ...] = MODEL,
    tensors: tuple[bytes, ...] = WEIGHTS,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    data: int = 1024,
) -> Path:
    """Write a file with the given header, and `data` bytes after it."""
    counts = struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    header = magic + counts + b"".join(keys) + b"".join(tensors)
    file = path / "model.gguf"
    file.write_bytes(header + bytes(-len(header) % 32 + data))
    return file


def refusal(path: Path) -> str:
    with pytest.raises(EdgedError) as caught:
        read_gguf(path)
    assert caught.value.code == ErrorCode.MODEL_UNAVAILABLE
    return caught.value.message


def test_facts_of_the_real_model(smollm2: Path) -> None:
    facts = read_gguf(smollm2)
    assert facts.architecture == "llama"
    assert facts.quantisation == "Q4_1"
    assert facts.license == "apache-2.0"
    assert facts.n_params == 134_515_008
    assert facts.n_ctx_train == 8192
    assert (facts.n_layer, facts.n_embd, facts.n_ff, facts.n_vocab) == (30, 576, 1536, 49_152)
    assert (facts.n_head, facts.n_head_kv, facts.key_length, facts.value_length) == (9, (3,) * 30, 64, 64)
    assert facts.sliding_window is None
    assert facts.tokenizer == "gpt2"
    assert facts.chat_template is not None
    assert "<|im_start|>" in facts.chat_template
    assert facts.file_bytes == 98_362_432
    assert dict(facts.bytes_by_type) == {"Q4_1": 66_355_200, "Q8_0": 30_081_024, "F32": 140_544}
    assert next(iter(facts.bytes_by_type)) == "Q4_1"


def test_tensors_are_those_that_the_reference_reader_sees(tiny_model: Path) -> None:
    expected = [
        (t.name, t.tensor_type.name, tuple(int(n) for n in t.shape), int(t.n_bytes))
        for t in gguf.GGUFReader(tiny_model).tensors
    ]
    facts = read_gguf(tiny_model)
    assert [(t.name, t.type, t.shape, t.bytes) for t in facts.tensors] == expected
    assert facts.tensor_bytes == sum(size for *_, size in expected)


def test_tables_agree_with_the_reference() -> None:
    for kind, (values, size) in gguf.GGML_QUANT_SIZES.items():
        assert TENSOR_TYPES[kind.value] == (kind.name, values, size)
    for named in set(gguf.LlamaFileType) - {gguf.LlamaFileType.GUESSED}:
        assert FILE_TYPES[named.value] == named.name.removeprefix("MOSTLY_").removeprefix("ALL_")


def test_a_minimal_header_is_read_with_what_follows_from_it(tmp_path: Path) -> None:
    facts = read_gguf(file_of(tmp_path))
    assert facts.n_head_kv == (4, 4, 4)
    assert facts.key_length == 8
    assert facts.n_vocab == 8
    assert facts.name is None
    assert facts.chat_template is None


def test_version_2_is_read(tmp_path: Path) -> None:
    assert read_gguf(file_of(tmp_path, version=2)).n_layer == 3


def test_heads_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    heads = key("llama.attention.head_count_kv", ARRAY, array(I32, 3, struct.pack("<3i", 2, 0, 1)))
    assert read_gguf(file_of(tmp_path, (*MODEL, heads))).n_head_kv == (2, 0, 1)


def test_long_arrays_are_passed_over(tmp_path: Path) -> None:
    tokens = key("tokenizer.ggml.tokens", ARRAY, array(STRING, 5000, text("word") * 5000))
    scores = key("tokenizer.ggml.scores", ARRAY, array(6, 5000, bytes(20_000)))
    assert read_gguf(file_of(tmp_path, (tokens, scores, *MODEL))).n_layer == 3


@pytest.mark.parametrize(
    ("file_type", "kind", "expected"),
    [(2, 2, "Q4_0"), (15, 12, "Q4_K_M"), (15, 6, "Q5_0"), (None, 8, "Q8_0"), (999, 8, "Q8_0")],
)
def test_quantisation_is_named_as_the_tensors_bear_out(
    tmp_path: Path, file_type: int | None, kind: int, expected: str
) -> None:
    named = () if file_type is None else (number("general.file_type", file_type),)
    weights = (tensor(shape=(256, 2), kind=kind),)
    assert read_gguf(file_of(tmp_path, MODEL + named, weights)).quantisation == expected


def test_a_file_cut_short_is_told_with_both_sizes(smollm2: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with smollm2.open("rb") as source:
        cut.write_bytes(source.read(51_000_000))
    assert "the file has 51.0 MB of the 98.4 MB that its header promises; fetch it again" in refusal(cut)


def test_every_byte_of_the_tensors_must_be_there(tiny_model: Path, tmp_path: Path) -> None:
    whole = tiny_model.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:-32])
    assert "cut short" in refusal(path)
    path.write_bytes(whole)
    read_gguf(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "ZIP archive"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git-lfs pointer"),
        (struct.pack("<Q", 20) + b'{"__metadata__": {}}', "safetensors"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"tjgg\x03\x00\x00\x00", "the format before GGUF"),
        (bytes(100), "begins with zeros"),
        (b"GGU", "begins with b'GGU'"),
        (b"GGUF\x03", "cut short"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(16), "version 1"),
        (b"GGUF" + struct.pack("<I", 4) + bytes(16), "version 4"),
    ],
)
def test_what_is_no_gguf_file_is_told_by_what_it_is(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert word in refusal(path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "none.gguf")
    assert "is a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    path.chmod(0)
    assert "may not be read" in refusal(path)


HUGE = (1 << 64) - 1


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ((struct.pack("<Q", HUGE),), "text of"),
        ((key("k", STRING, struct.pack("<Q", HUGE)),), "text of"),
        ((key("k", STRING, struct.pack("<Q", 1 << 20)),), "cut short or damaged"),
        ((key("k", ARRAY, array(STRING, HUGE)),), "texts in arrays"),
        ((key("k", ARRAY, array(STRING, 1 << 20)),), "cut short or damaged"),
        ((key("k", ARRAY, array(STRING, 2, struct.pack("<QQ", 0, HUGE))),), "cut short or damaged"),
        ((key("k", ARRAY, array(U64, HUGE)),), "cut short or damaged"),
        ((key("k", ARRAY, array(U64, 1 << 10)),), "cut short or damaged"),
        ((key("k", ARRAY, array(ARRAY, 1, array(U32, 1, bytes(4)))),), "unknown type 9"),
        ((key("k", 13, bytes(4)),), "unknown type 13"),
        ((number("k", 1), number("k", 1)), "stands twice"),
        ((number("", 1),), "is empty"),
        ((number("general.alignment", 0),), "no power of two"),
        ((number("general.alignment", 48),), "no power of two"),
        ((key("general.alignment", STRING, text("32")),), "no power of two"),
        ((), "names no architecture"),
        (MODEL[:1], "llama.block_count"),
        ((MODEL[0], number("llama.block_count", 1 << 30), *MODEL[2:]), "llama.block_count"),
        ((*MODEL, key("llama.attention.key_length", I32, struct.pack("<i", -1))), "key_length"),
        ((*MODEL, key("llama.feed_forward_length", ARRAY, array(U32, 2, bytes(8)))), "2 values for 3"),
        ((*MODEL, number("split.count", 3)), "one of 3 parts"),
    ],
)
def test_hostile_metadata_is_refused(tmp_path: Path, keys: tuple[bytes, ...], word: str) -> None:
    assert word in refusal(file_of(tmp_path, keys))


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ((), "holds no tensors"),
        ((tensor("x" * 64),), "text of 64"),
        ((tensor(shape=()),), "0 dimensions"),
        ((tensor(shape=(1, 1, 1, 1, 1)),), "5 dimensions"),
        ((tensor(shape=(0, 8)),), "shape (0, 8)"),
        ((tensor(shape=(HUGE, HUGE)),), "shape"),
        ((tensor(shape=(1 << 32, 1 << 32)),), "shape"),
        ((tensor(shape=(33, 8), kind=2),), "shape (33, 8) in Q4_0"),
        ((tensor(kind=4),), "unknown type 4"),
        ((tensor(kind=99),), "unknown type 99"),
        ((tensor(offset=HUGE),), "expected at 0"),
        ((tensor(), tensor(offset=1024)), "stands twice"),
        ((tensor(), tensor("other", offset=1000)), "expected at 1024"),
        ((tensor(shape=(32, 1 << 40)),), "cut short"),
    ],
)
def test_hostile_tensors_are_refused(tmp_path: Path, tensors: tuple[bytes, ...], word: str) -> None:
    assert word in refusal(file_of(tmp_path, tensors=tensors))


@pytest.mark.parametrize("count", [1 << 17, HUGE])
def test_hostile_counts_are_refused(tmp_path: Path, count: int) -> None:
    assert f"{count} tensors" in refusal(file_of(tmp_path, n_tensors=count))
    assert f"{count} keys" in refusal(file_of(tmp_path, n_keys=count))


@settings(
    max_examples=400,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    flips=st.lists(st.tuples(st.integers(0, 13_000), st.integers(0, 255)), max_size=6),
    length=st.none() | st.integers(0, 13_000),
)
def test_no_damage_to_a_header_gets_through_as_anything_but_a_refusal(
    tiny_model: Path, tmp_path: Path, flips: list[tuple[int, int]], length: int | None
) -> None:
    data = bytearray(tiny_model.read_bytes())
    for place, value in flips:
        data[place] = value
    path = tmp_path / "model.gguf"
    path.write_bytes(data[:length])
    try:
        facts = read_gguf(path)
    except EdgedError as error:
        assert error.code == ErrorCode.MODEL_UNAVAILABLE
        return
    assert sum(t.bytes for t in facts.tensors) <= facts.file_bytes


@settings(
    max_examples=200,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=400))
def test_no_bytes_get_through_as_anything_but_a_refusal(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + rest)
    assert refusal(path)
