"""What `peft` makes of exported adapters is what minigpt makes of the run that trained them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt_cli.config.schema import LoraConfig
from minigpt_cli.errors import InteropError
from minigpt_cli.interop.hf_export import export_hf
from minigpt_cli.interop.peft_export import FILES, export_peft
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.training.lora import (
    adapted_layers,
    adapter_tensors,
    add_adapters,
    draw_adapters,
    merge,
)
from tests.helpers.exports import CONFIGS, HOSTILE, random_checkpoint, tokenizer_of

pytest.importorskip("peft", reason="needs peft: pip install -e '.[test]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # other programs' own
ALL = LoraConfig().targets


def adapted(name: str, config: LoraConfig) -> tuple[Checkpoint, Checkpoint]:
    """A random model, and the same with random adapters."""
    base = random_checkpoint(CONFIGS[name], tokenizer_of("byte"))
    after = random_checkpoint(CONFIGS[name], tokenizer_of("byte"))
    add_adapters(after.model, config)
    draw_adapters(after.model)
    with torch.no_grad():
        for layer in adapted_layers(after.model).values():
            layer.lora_b.normal_(std=0.05)
    adapters = adapter_tensors(after.model)
    merge(after.model)
    metadata = replace(after.metadata, lora=config)
    return base, replace(after, metadata=metadata, adapters=adapters)


def opened(base: Path, adapters: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    return PeftModel.from_pretrained(model, adapters, local_files_only=True).eval()


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        *((name, ALL) for name in CONFIGS),
        *((name, ("q", "v")) for name in ("modern-gqa-tied", "classic")),
        ("classic", ("k", "down")),
        ("modern", ("up", "proj")),
    ],
)
@torch.inference_mode()
def test_peft_computes_the_same_logits_and_merges_to_the_same_weights(
    name: str, targets: Any, tmp_path: Path
) -> None:
    base, after = adapted(name, LoraConfig(rank=3, alpha=7.0, targets=targets))
    export_hf(base, tmp_path / "base")
    export_hf(after, tmp_path / "merged")
    export_peft(after, tmp_path / "adapters")

    model = opened(tmp_path / "base", tmp_path / "adapters")
    ids = torch.tensor([base.tokenizer.encode(HOSTILE)[:200]])
    ours = after.model(ids)
    assert (ours - base.model(ids)).abs().max() > 0.1
    # Here the update is added to the weights in fp32, and there to the outputs.
    assert (model(ids).logits - ours).abs().max() < 1e-5 * max(1.0, ours.abs().max())
    alone = model.merge_and_unload()
    assert (alone(ids).logits - ours).abs().max() < 1e-5
    by_peft = alone.state_dict()
    from transformers import AutoModelForCausalLM

    whole: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    exported = whole.state_dict()
    assert by_peft.keys() == exported.keys()
    for weight_name, weight in by_peft.items():
        assert (weight - exported[weight_name]).abs().max() < 1e-6, weight_name


@torch.inference_mode()
def test_layers_without_an_adapter_get_none_there(tmp_path: Path) -> None:
    base, after = adapted("modern", LoraConfig(rank=2))
    second = {n: tensor for n, tensor in after.adapters.items() if n.startswith("blocks.1.")}
    kept = {name: tensor for name, tensor in second.items() if "down" not in name}
    add_adapters(base.model, LoraConfig(rank=2), {n.rpartition(".")[0] for n in kept})
    base.model.load_state_dict(kept, strict=False)
    merge(base.model)
    after = replace(after, model=base.model, adapters=kept)
    base = random_checkpoint(CONFIGS["modern"], tokenizer_of("byte"))
    export_hf(base, tmp_path / "base")
    export_peft(after, tmp_path / "adapters")
    config = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert "model.layers.1.self_attn.q_proj" in config["target_modules"]
    model = opened(tmp_path / "base", tmp_path / "adapters")
    names = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(names) == 2 * 6  # two a matrix
    assert all(".layers.1." in name for name in names)
    ids = torch.tensor([[1, 2, 3, 4]])
    assert (model(ids).logits - after.model(ids)).abs().max() < 1e-5


def test_force_replaces_an_earlier_export_of_the_same_kind_only(tmp_path: Path) -> None:
    base, after = adapted("modern", LoraConfig(rank=2))
    export_peft(after, tmp_path / "out")
    export_peft(after, tmp_path / "out", force=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    export_hf(base, tmp_path / "model")
    with pytest.raises(InteropError, match="--force would delete"):
        export_peft(after, tmp_path / "model", force=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: {n: w[:1] for n, w in t.items()}, "does not fit the layer"),
        (lambda t: {n: w * torch.nan for n, w in t.items()}, "contains NaN or infinity"),
        (lambda t: {n.replace("blocks.1", "blocks.7"): w for n, w in t.items()}, "is not of an"),
        (lambda t: {n: w for n, w in t.items() if "lora_a" in n}, "does not fit the layer"),
    ],
)
def test_damaged_adapters_are_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    _, after = adapted("modern", LoraConfig(rank=2))
    with pytest.raises(InteropError, match=message):
        export_peft(replace(after, adapters=spoil(dict(after.adapters))), tmp_path / "out")
    assert not [*tmp_path.iterdir()]
