"""A checkpoint of a few hundred weights, and ways to forge others from it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from minigpt_cli.config.schema import ClassicConfig, DataConfig, ModelConfig, ModernConfig
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import checkpoint_file
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata
from minigpt_cli.tokenizer.factory import train_tokenizer

SIZES: dict[str, Any] = {"n_layer": 1, "n_head": 1, "n_embd": 4, "block_size": 4}
MODERN = ModernConfig(**SIZES, n_hidden=2)
CLASSIC = ClassicConfig(**SIZES, bias=False, tie_embeddings=True)


def tiny_checkpoint(
    path: Path, config: ModelConfig = MODERN, kind: Any = "char", text: str = "ab\n"
) -> bytes:
    """Saves a model with random weights and the tokenizer of a text; returns the file's bytes."""
    tokenizer = train_tokenizer(kind, [text])
    torch.manual_seed(0)
    model = GPT(config, tokenizer.vocab_size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    metadata = CheckpointMetadata(
        version="1.2.3-test",
        model=config,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.to_json(),
        data=DataConfig(corpus=("a.txt",), tokenizer=kind),
        corpus="a",
        fingerprint="0123456789abcdef",
        step=7,
        train_loss=1.5,
        val_loss=1.75,
        bits_per_byte=2.5,
    )
    checkpoint_file(path, model, metadata).write()
    return path.read_bytes()


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and the bytes of its tensors, unchecked."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def joined(header: dict[str, Any] | str, data: bytes) -> bytes:
    """A safetensors file made of a header, which may be invalid JSON, and tensors."""
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def digest(header: dict[str, Any], data: bytes) -> str:
    """The digest as the format defines it, computed from the file's bytes."""
    names = {
        "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
        "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    }  # fmt: skip
    metadata = {key: value for key, value in header["__metadata__"].items() if key != "digest"}
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, entry in sorted(header.items()):
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = f"torch.{names.get(entry['dtype'])}"
            found.update(json.dumps([name, dtype, entry["shape"]]).encode() + data[begin:end])
    return found.hexdigest()


def signed(header: dict[str, Any], data: bytes) -> bytes:
    """A file with a valid digest, whatever else is wrong with it."""
    metadata = {**header["__metadata__"], "digest": digest(header, data)}
    return joined({**header, "__metadata__": metadata}, data)


def forged(content: bytes, **changes: Any) -> bytes:
    """The same file with another description and a valid digest."""
    header, data = parts(content)
    described = {**json.loads(header["__metadata__"]["minigpt"]), **changes}
    header["__metadata__"]["minigpt"] = json.dumps(described)
    return signed(header, data)
