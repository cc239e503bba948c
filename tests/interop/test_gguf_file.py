"""An exported GGUF file is what the format's own library reads; llama.cpp is not needed here."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minigpt_cli.config.schema import ClassicConfig
from minigpt_cli.errors import InteropError
from minigpt_cli.interop.gguf_export import export_gguf
from minigpt_cli.interop.hf_export import hf_tensors
from minigpt_cli.interop.hf_tokenizer import from_hf
from tests.helpers.exports import CONFIGS, random_checkpoint, tokenizer_of
from tests.helpers.transformers_models import save_tokenizer

gguf: Any = pytest.importorskip("gguf", reason="needs gguf: pip install 'minigpt-cli[interop]'")
NORMAL, UNUSED = 1, 5  # types of tokens


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings and the tensors, in fp32."""
    reader = gguf.GGUFReader(path)
    settings = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return settings, tensors


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_is_where_the_formats_own_names_place_it(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS[name], tokenizer_of("byte"))
    config = checkpoint.model.config
    export_gguf(checkpoint, tmp_path / "model.gguf")
    settings, found = read(tmp_path / "model.gguf")
    architecture = settings["general.architecture"]
    assert architecture == ("gpt2" if isinstance(config, ClassicConfig) else "qwen3")
    kind = gguf.MODEL_ARCH[architecture.upper()]
    names = gguf.get_tensor_name_map(kind, config.n_layer)
    relu = isinstance(config, ClassicConfig) and config.activation == "relu"
    for theirs, tensor in hf_tensors(checkpoint, torch.float32).items():
        place = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        values = tensor.numpy()
        if "c_" in theirs and theirs.endswith("weight"):  # GPT-2 has them as (in, out)
            values = values.T
        ours = found.pop(place)
        if relu and "ffn_up" in place:
            ours = ours / 1024  # GELU(1024 x) / 1024 stands for ReLU(x)
        elif relu and place.endswith("ffn_down.weight"):
            ours = ours * 1024
        assert np.array_equal(ours, values), theirs
    assert not found


def test_sizes_are_under_the_keys_that_llama_cpp_reads(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern-gqa-tied"], tokenizer_of("byte"))
    export_gguf(checkpoint, tmp_path / "model.gguf")
    settings, _ = read(tmp_path / "model.gguf")
    wanted = {
        "context_length": 256, "embedding_length": 32, "block_count": 2,
        "feed_forward_length": 50, "attention.head_count": 4, "attention.head_count_kv": 2,
        "attention.key_length": 8, "attention.value_length": 8, "rope.dimension_count": 8,
        "rope.freq_base": 5e4,
    }  # fmt: skip
    assert {key: settings[f"qwen3.{key}"] for key in wanted} == wanted
    assert settings["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_tokens_are_the_bytes_of_ours_and_the_end_is_in_no_text(kind: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of(kind))
    export_gguf(checkpoint, tmp_path / "model.gguf")
    settings, tensors = read(tmp_path / "model.gguf")
    # The format writes each byte as GPT-2 did: printable ones as themselves, others from U+0100.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(byte): byte for byte in shown}
    hidden = [byte for byte in range(256) if byte not in shown]
    byte_of |= {chr(256 + i): byte for i, byte in enumerate(hidden)}
    tokens, end = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.eos_token_id"]
    ours = checkpoint.tokenizer.token_bytes
    found = [bytes(byte_of[char] for char in token) for token in tokens[: len(ours)]]
    assert found == ours
    types = [NORMAL] * len(ours) + [UNUSED] * (len(tokens) - len(ours))
    assert settings["tokenizer.ggml.token_type"] == types
    assert len(tensors["token_embd.weight"]) == len(tokens)
    if kind == "char":
        assert end == len(ours) == len(tokens) - 1
        assert settings["tokenizer.ggml.suppress_tokens"] == [end]
    else:
        assert ours[end] == b"\xff"  # in no UTF-8
    assert settings["tokenizer.ggml.add_bos_token"] is False
    assert [settings["tokenizer.ggml.bos_token_id"]] == checkpoint.tokenizer.start_ids


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_a_file_has_merges_even_if_its_text_is_ascii(kind: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of(kind, "the ferry"))
    export_gguf(checkpoint, tmp_path / "model.gguf")
    settings, _ = read(tmp_path / "model.gguf")
    assert settings["tokenizer.ggml.merges"]  # llama.cpp opens no file without


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 0.01), ("fp16", 0.001), ("q8_0", 0.02)])
def test_rounded_weights_are_close(dtype: Any, most: float, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern-gqa-tied"], tokenizer_of("byte"))
    export_gguf(checkpoint, tmp_path / "exact.gguf")
    export_gguf(checkpoint, tmp_path / "rounded.gguf", dtype)
    _, exact = read(tmp_path / "exact.gguf")
    _, rounded = read(tmp_path / "rounded.gguf")
    assert exact.keys() == rounded.keys()
    for name, values in exact.items():
        difference = np.abs(rounded[name] - values).max() / np.abs(values).max()
        assert difference == 0 if values.ndim == 1 else 0 < difference < most


def test_a_word_vocabulary_is_refused_with_what_would_do(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("word"))
    with pytest.raises(InteropError, match=r"cannot hold a word tokenizer.*Hugging Face"):
        export_gguf(checkpoint, tmp_path / "model.gguf")
    assert not [*tmp_path.iterdir()]


def test_a_tokenizer_from_elsewhere_is_left_to_llama_cpps_converter(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, "gpt2")
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    checkpoint = random_checkpoint(CONFIGS["modern"], from_hf(text, 0, [0]))
    with pytest.raises(InteropError, match=r"convert_hf_to_gguf.py"):
        export_gguf(checkpoint, tmp_path / "model.gguf")
    assert tokenizer


def test_an_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("byte"))
    out = tmp_path / "model.gguf"
    out.write_text("mine")
    with pytest.raises(InteropError, match=r"already exists; replace it with --force"):
        export_gguf(checkpoint, out)
    assert out.read_text() == "mine"
    export_gguf(checkpoint, out, force=True)
    assert out.read_bytes()[:4] == b"GGUF"
    (tmp_path / "folder").mkdir()
    with pytest.raises(InteropError, match=r"a folder; GGUF is one file"):
        export_gguf(checkpoint, tmp_path / "folder", force=True)


def test_a_missing_library_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("byte"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InteropError, match=r"pip install 'minigpt-cli\[interop\]'"):
        export_gguf(checkpoint, tmp_path / "model.gguf")
