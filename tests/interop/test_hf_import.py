"""A folder of `transformers` opens here with the same logits, tokens and texts."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file

from minigpt_cli.errors import ConfigError, InteropError
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import generate
from minigpt_cli.interop.hf_export import export_hf
from minigpt_cli.interop.hf_import import read_hf
from minigpt_cli.tokenizer.factory import tokenizer_from_json
from tests.helpers.exports import (
    CONFIGS,
    HOSTILE,
    greedy,
    random_checkpoint,
    texts,
    tokenizer_of,
)
from tests.helpers.transformers_models import MODELS, PATTERNS, save_tokenizer, saved

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # other programs' own


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_a_model_of_transformers_has_the_same_logits_and_writes_the_same_text(
    name: str, tmp_path: Path
) -> None:
    theirs, tokenizer = saved(name, tmp_path)
    ours = read_hf(tmp_path)

    ids = tokenizer("The old heron counts", return_tensors="pt").input_ids
    known = ours.tokenizer.vocab_size
    difference = (theirs(ids).logits[..., :known] - ours.model(ids)).abs().max()
    assert difference < 1e-5
    new = theirs.generate(ids, max_new_tokens=100, do_sample=False, eos_token_id=None,
                          suppress_tokens=[*range(known, known + 7)])  # fmt: skip
    assert greedy(ours, ids[0].tolist(), 100) == new[0, ids.size(1) :].tolist()


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
@torch.inference_mode()
def test_shards_in_bf16_are_read(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs: Any
    _, tokenizer = saved(name, tmp_path, dtype=torch.bfloat16, max_shard_size="20kB")
    assert len([*tmp_path.glob("model-*.safetensors")]) > 1
    # Its rotary frequencies were rounded too.
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = tokenizer("The old heron counts", return_tensors="pt").input_ids
    ours = read_hf(tmp_path)
    difference = theirs(ids).logits[..., : ours.tokenizer.vocab_size] - ours.model(ids)
    assert difference.abs().max() < 1e-5


@torch.inference_mode()
def test_gpt2s_first_files_are_read(tmp_path: Path) -> None:
    """They have no prefix, and the causal mask among the weights."""
    theirs, tokenizer = saved("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 8, 8), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(old, tmp_path / "model.safetensors")
    ids = tokenizer("The old heron counts", return_tensors="pt").input_ids
    ours = read_hf(tmp_path)
    difference = theirs(ids).logits[..., : ours.tokenizer.vocab_size] - ours.model(ids)
    assert difference.abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["char", "word", "word-1", "byte", "bpe", "bpe-1"])
def test_an_export_comes_back_with_every_weight_and_its_tokenizer(
    kind: str, tmp_path: Path
) -> None:
    before = random_checkpoint(CONFIGS["modern"], tokenizer_of(kind))
    export_hf(before, tmp_path / "out")
    after = read_hf(tmp_path / "out")
    assert after.tokenizer.to_json() == before.tokenizer.to_json()
    assert after.model.config.model_dump(exclude={"n_hidden", "n_kv_head", "head_size"}) == (
        before.model.config.model_dump(exclude={"n_hidden", "n_kv_head", "head_size"})
    )
    weights = before.model.state_dict()
    assert all(weights[name].equal(w) for name, w in after.model.state_dict().items())


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_an_export_comes_back_with_the_same_logits(name: str, tmp_path: Path) -> None:
    before = random_checkpoint(CONFIGS[name], tokenizer_of("byte"))
    export_hf(before, tmp_path / "out")
    after = read_hf(tmp_path / "out")
    ids = torch.tensor([[1, 2, 3, 4]])
    assert after.model(ids).equal(before.model(ids))


@pytest.mark.parametrize("name", ["modern-gqa-tied", "classic"])
def test_an_export_in_bf16_comes_back_with_the_rounded_weights(name: str, tmp_path: Path) -> None:
    before = random_checkpoint(CONFIGS[name], tokenizer_of("byte"))
    export_hf(before, tmp_path / "out", "bf16")
    after = read_hf(tmp_path / "out").model.state_dict()
    for weight_name, weight in before.model.state_dict().items():
        assert after[weight_name].dtype == torch.float32
        assert after[weight_name].equal(weight.bfloat16().float())


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "llama", "gpt2"])
@torch.inference_mode()
def test_what_was_opened_can_be_exported_again(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    saved(name, tmp_path)
    ours = read_hf(tmp_path)
    export_hf(ours, tmp_path / "again")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "again")
    ids = tokenizer("The old heron", return_tensors="pt").input_ids
    assert ids[0].tolist() == ours.tokenizer.encode("The old heron")
    assert (again(ids).logits - ours.model(ids)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt2"])
def test_a_page_refuses_what_its_engine_does_not_have(name: str, tmp_path: Path) -> None:
    from minigpt_cli.pages.playground import playground_page

    saved(name, tmp_path)
    with pytest.raises(ConfigError, match=r"a page cannot run .*; export to hf instead"):
        playground_page(read_hf(tmp_path))


@cache
def both(pattern: str) -> tuple[Any, Any]:
    from tempfile import TemporaryDirectory

    from minigpt_cli.interop.hf_tokenizer import from_hf

    with TemporaryDirectory() as folder:
        theirs = save_tokenizer(Path(folder), pattern)
        text = Path(folder, "tokenizer.json").read_text(encoding="utf-8")
        return from_hf(text, 0, [0]), theirs


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=500)
@given(text=texts)
def test_a_pretrained_tokenizer_cuts_and_joins_any_text_alike(pattern: str, text: str) -> None:
    ours, theirs = both(pattern)
    ids = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)
    assert ours.text_lengths(text).sum() == len(text.encode())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_long_text_is_cut_as_a_whole(pattern: str) -> None:
    ours, theirs = both(pattern)
    text = (HOSTILE + " The old heron counts paper boats. ") * 200
    whole = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ours.encode(text) == whole
    pieces = [text[i : i + 997] for i in range(0, len(text), 997)]
    assert [id_ for ids in ours.encode_chunks(pieces) for id_ in ids.tolist()] == whole


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pretrained_tokenizer_survives_a_checkpoint(pattern: str) -> None:
    ours, _ = both(pattern)
    again = tokenizer_from_json(ours.to_json())
    assert again.to_json() == ours.to_json()
    assert (again.end_ids, again.start_ids) == (frozenset({0}), [0])
    assert again.encode(HOSTILE) == ours.encode(HOSTILE)


def test_a_text_ends_at_the_models_end_token(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    ours = read_hf(tmp_path)
    with torch.no_grad():
        ours.model.head.weight.zero_()
    text = "".join(generate(ours, "The", 50, Sampling(temperature=0.0)))  # the first: the end
    assert text == ""


def change(**changes: Any) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return changed


def weights(**changes: torch.Tensor | None) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        for name, tensor in changes.items():
            tensors.pop(name, None)
            if tensor is not None:
                tensors[name] = tensor
        save_file(tensors, folder / "model.safetensors")

    return changed


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index(**weight_map: str) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        file = folder / "model.safetensors.index.json"
        file.write_text(json.dumps({"weight_map": weight_map}))

    return changed


def sentencepiece(folder: Path) -> None:
    import tokenizers as library
    from tokenizers import decoders, models, pre_tokenizers

    inner = library.Tokenizer(models.BPE({"▁": 0, "a": 1}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(model_type="mamba"), r"model_type 'mamba' is unknown; known are gpt2, llama, qwen"),
        (change(auto_map={"AutoModel": "x.py"}), r"asks for remote code \(auto_map\)"),
        (change(quantization_config={"bits": 4}), r"weights are quantized"),
        (change(rope_scaling={"rope_type": "yarn"}), r"scaled as 'yarn' are not supported"),
        (change(hidden_act="gelu"), r"hidden_act = 'gelu' is not supported, only 'silu'"),
        (change(attention_bias=True), r"attention_bias = True is not supported"),
        (change(use_sliding_window=True, sliding_window=16), r"sliding window smaller than"),
        (change(num_hidden_layers=10**6), r"claims 1000000 layers"),
        (change(vocab_size=10**9), r"claims 2 layers and 1000000000 tokens"),
        (change(hidden_size=2**30), r"of width 1073741824"),
        (change(hidden_size="wide"), r"config.json: .*n_embd"),
        (change(intermediate_size=64), r"is \[32, 48\] but config.json says \[32, 64\]"),
        (weights(**{"model.norm.weight": None}), r"the tensor model.norm.weight is missing"),
        (weights(extra=torch.ones(1)), r"the tensor extra is unexpected"),
        (weights(**{"model.norm.weight": torch.ones(32).int()}), r"is I32, not a float"),
        (weights(**{"model.norm.weight": torch.full((32,), torch.nan)}), r"contains NaN"),
        (pickled, r"pytorch_model.bin: a pickle.*save_pretrained"),
        (index(x="../../etc/model.safetensors"), r"does not name files of this folder"),
        (index(x="model.bin"), r"does not name files of this folder"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer.json: no such file; "),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"not a tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text("[1"), r"config.json: not valid JSON"),
        (sentencepiece, r"not a byte-level BPE"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_named_in_one_line(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    from minigpt_cli.errors import MinigptError

    saved("qwen3", tmp_path)
    spoil(tmp_path)
    with pytest.raises(MinigptError, match=message) as caught:
        read_hf(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_larger_than_the_weights_is_refused(tmp_path: Path) -> None:
    before = random_checkpoint(CONFIGS["modern"], tokenizer_of("char", "abc\n"))
    export_hf(before, tmp_path / "out")
    export_hf(random_checkpoint(CONFIGS["modern"], tokenizer_of("char")), tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").replace(tmp_path / "out" / "tokenizer.json")
    with pytest.raises(InteropError, match=r"the tokenizer has \d+ tokens but the weights only 4"):
        read_hf(tmp_path / "out")
