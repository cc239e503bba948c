"""What is said of a checkpoint, computed another way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.generation.decoder import Decoder
from minigpt_cli.inspection.files import inspect_file
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import load_checkpoint, read_tensors, write_tensors

SIZES: dict[str, Any] = {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 24}


def test_numbers_agree_with_the_loaded_model_and_the_disk(trained_home: Path) -> None:
    path = trained_home / "runs" / "tiny" / "checkpoint.safetensors"
    found = inspect_file(path)
    model = load_checkpoint(path).model
    assert found.path == path
    assert found.file_bytes == path.stat().st_size
    assert found.parameters == sum(p.numel() for p in model.parameters())
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert {tensor.name: tensor.shape for tensor in found.tensors} == shapes
    assert found.checkpoint == load_checkpoint(path).metadata


def test_components_hold_every_tensor_once(trained_home: Path) -> None:
    found = inspect_file(trained_home / "runs" / "tiny" / "checkpoint.safetensors")
    assert found.components is not None
    tensors = [tensor.name for component in found.components for tensor in component.tensors]
    assert sorted(tensors) == sorted(tensor.name for tensor in found.tensors)
    model = load_checkpoint(found.path).model
    by_hand = {
        "token embedding": sum(p.numel() for p in model.token_embedding.parameters()),
        "attention": sum(
            p.numel() for n, p in model.blocks.named_parameters() if ".attention." in n
        ),
        "feed-forward": sum(
            p.numel() for n, p in model.blocks.named_parameters() if ".gate_up." in n or "down" in n
        ),
        "norms": sum(
            p.numel() for n, p in model.blocks.named_parameters() if ".norm1." in n or "norm2" in n
        ),
        "last norm": sum(p.numel() for p in model.norm.parameters()),
        "head": sum(p.numel() for p in model.head.parameters()),
    }
    assert {c.name: c.parameters for c in found.components} == by_hand


@pytest.mark.parametrize(
    "config",
    [
        ClassicConfig(**SIZES),
        ClassicConfig(**SIZES, tie_embeddings=True),
        ModernConfig(**SIZES),
        ModernConfig(**SIZES, n_kv_head=2, n_hidden=48),
    ],
)
def test_flops_per_token_are_those_that_pytorch_counts(config: ModelConfig) -> None:
    model = GPT(config, 50).initialize().eval()
    window = torch.randint(50, (1, config.block_size))
    cache, decoder = model.new_cache(1), Decoder(model)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        model(window[:, :-1], cache=cache)
        with FlopCounterMode(display=False) as counter:
            decoder.read(window[:, -1], cache)  # the token at the end of a full window
    assert forward_flops_per_token(config, 50) == counter.get_total_flops()


def test_another_programs_file_has_tensors_and_no_checkpoint_metadata(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(2).half()}, path, {"made": "elsewhere"})
    found = inspect_file(path)
    assert (found.checkpoint, found.components, found.flops_per_token) == (None, None, None)
    assert {t.name: (t.shape, t.dtype) for t in found.tensors} == {
        "a": ((3, 4), "F32"),
        "b": ((2,), "F16"),
    }
    assert (found.parameters, found.metadata) == (14, {"made": "elsewhere"})


def test_tensors_without_a_known_place_are_other(trained_home: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(trained_home / "runs" / "tiny" / "checkpoint.safetensors")
    more = {name: torch.zeros(2) for name in ("extra", "blocks", "blocks.0.gate.weight")}
    write_tensors(tmp_path / "c", {**tensors, **more}, metadata)
    found = inspect_file(tmp_path / "c")
    assert found.components is not None
    assert {t.name for t in found.components[-1].tensors} == {*more}
    assert found.components[-1].name == "other"
