"""What `transformers` makes of an exported folder is what minigpt makes of the checkpoint."""

import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from minigpt_cli.config.schema import DataConfig, RunConfig
from minigpt_cli.errors import InteropError, TokenizerError
from minigpt_cli.interop.hf_export import FILES, export_hf
from minigpt_cli.interop.hf_tokenizer import to_hf
from minigpt_cli.tokenizer.base import SPLITTINGS
from minigpt_cli.tokenizer.word import cut
from tests.helpers.exports import (
    CONFIGS,
    HOSTILE,
    greedy,
    known,
    random_checkpoint,
    texts,
    tokenizer_of,
)

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # other programs' own
UNASSIGNED = ("Cn", "Co", "Cs")
VARIANTS = [name for name in CONFIGS if name not in ("modern", "classic")]
KINDS = ("char", "word", "byte", "bpe")


def opened(folder: Path) -> tuple[Any, Any]:
    """What a user of `transformers` gets from a folder; remote code is refused by default."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def written_by_transformers(model: Any, ids: list[int], count: int) -> list[int]:
    out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    new: list[int] = out[0, len(ids) :].tolist()
    return new


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *product(("modern", "classic"), KINDS),
        *((name, "byte") for name in CONFIGS if name not in ("modern", "classic")),
    ],
)
@torch.inference_mode()
def test_transformers_computes_the_same_logits_and_writes_the_same_text(
    name: str, kind: str, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(kind)
    checkpoint = random_checkpoint(CONFIGS[name], tokenizer)
    export_hf(checkpoint, tmp_path / "out")

    model, theirs = opened(tmp_path / "out")
    ids = theirs("The old heron", return_tensors="pt").input_ids
    assert ids.tolist() == [tokenizer.encode("The old heron")]
    text = torch.tensor([tokenizer.encode(HOSTILE)[:200]])
    difference = (model(text).logits - checkpoint.model(text)).abs().max()
    assert difference < 1e-5
    new = written_by_transformers(model, ids[0].tolist(), 200)
    assert new == greedy(checkpoint, ids[0].tolist(), 200)
    assert len(set(new)) > 2  # a text, and not one token again and again
    assert theirs.decode(new) == tokenizer.decode(new)


@pytest.mark.parametrize("kind", KINDS)
def test_a_modern_model_slides_past_its_window_as_ours_does(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    config = CONFIGS["modern"].model_copy(update={"block_size": 32})
    checkpoint = random_checkpoint(config, tokenizer)
    export_hf(checkpoint, tmp_path / "out")

    model, _ = opened(tmp_path / "out")
    ids = tokenizer.encode("The old heron")
    assert written_by_transformers(model, ids, 200) == greedy(checkpoint, ids, 200)


def test_without_a_prompt_generation_begins_where_ours_does(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("char")
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer)
    export_hf(checkpoint, tmp_path / "out")

    model, _ = opened(tmp_path / "out")
    out = model.generate(max_new_tokens=20, do_sample=False)[0].tolist()
    start = tokenizer.start_ids
    assert out == start + greedy(checkpoint, start, 20)


@pytest.mark.parametrize("name", ["modern-gqa-tied", "classic"])
@torch.inference_mode()
def test_bf16_weights_are_the_rounded_ones(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS[name], tokenizer_of("byte"))
    export_hf(checkpoint, tmp_path / "out", "bf16")

    model, _ = opened(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    for weight in checkpoint.model.parameters():
        weight.copy_(weight.bfloat16())
    ids = torch.tensor([[1, 2, 3]])
    difference = (model.float()(ids).logits - checkpoint.model(ids)).abs().max()
    assert difference < 1e-5


@cache
def both(kind: str) -> tuple[Any, Any]:
    """Our tokenizer and theirs, as `AutoTokenizer` opens it."""
    from tempfile import TemporaryDirectory

    tokenizer = tokenizer_of(kind)
    with TemporaryDirectory() as folder:
        out = Path(folder, "out")
        export_hf(random_checkpoint(CONFIGS["modern"], tokenizer), out)
        return tokenizer, opened(out)[1]


@pytest.mark.parametrize("kind", ["word", "word-1", "byte", "bpe", "bpe-1"])
@settings(max_examples=600)
@given(text=texts)
def test_any_text_is_cut_and_joined_alike(kind: str, text: str) -> None:
    ours, theirs = both(kind)
    ids = ours.encode(text)
    assert theirs(text).input_ids == ids
    assert theirs.decode(ids) == ours.decode(ids)


@settings(max_examples=1000)
@given(text=known)
def test_known_characters_are_cut_and_joined_alike(text: str) -> None:
    ours, theirs = both("char")
    assert theirs(text).input_ids == ours.encode(text)
    assert theirs.decode(ours.encode(text)) == text


@settings(max_examples=300)
@given(text=texts.filter(lambda text: not set(text) <= set(HOSTILE)))
def test_an_unknown_character_is_an_error_in_both(text: str) -> None:
    ours, theirs = both("char")
    with pytest.raises(TokenizerError):
        ours.encode(text)
    with pytest.raises(Exception, match="UNK"):
        theirs(text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=500)
@given(data=st.data())
def test_any_tokens_are_joined_alike(kind: str, data: st.DataObject) -> None:
    ours, theirs = both(kind)
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=40))
    assert theirs.decode(ids) == ours.decode(ids)
    assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_added_to_the_vocabulary(kind: str) -> None:
    ours, theirs = both(kind)
    assert len(theirs) == ours.vocab_size
    assert not theirs.all_special_tokens
    assert sorted(theirs("heron")) == ["attention_mask", "input_ids"]


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_every_character_is_a_word_space_or_mark_as_in_python(splitting: int) -> None:
    everything = [char for char in map(chr, range(0x110000)) if category(char) not in UNASSIGNED]
    everything += ["\u0378", "\ue000", "\U000e0fff", "\U0010ffff"]  # some that are not
    theirs = to_hf(tokenizer_of(f"word-{splitting}")).pre_tokenizer
    for char in ("a", " "):  # joins what is of its kind, and splits off the rest
        for start in range(0, len(everything), 50_000):
            text = char.join(["", *everything[start : start + 50_000], ""])
            pieces = [piece for piece, _ in theirs.pre_tokenize_str(text)]
            assert pieces == cut(text, splitting)


def test_the_card_says_how_the_model_was_made_and_no_path_of_this_machine(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("char"))
    metadata = replace(
        checkpoint.metadata, data=DataConfig(corpus=("/home/me/```private.txt",)),
        optimizer=RunConfig().optimizer, train=RunConfig().train,
    )  # fmt: skip
    export_hf(replace(checkpoint, metadata=metadata), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert '"```private.txt"' in card
    assert "/home/me" not in card
    assert card.endswith("````\n")  # the text's name does not end the block
    assert "minigpt train --preset run.toml" in card


def test_the_cards_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("char"))
    export_hf(checkpoint, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    exec(code.replace("path/of/this/folder", str(tmp_path / "out")))
    assert len(capsys.readouterr().out) > 50


def test_an_existing_folder_is_kept_without_force(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("char"))
    (tmp_path / "out").mkdir()
    with pytest.raises(InteropError, match=r"already exists; replace it with --force"):
        export_hf(checkpoint, tmp_path / "out")


def test_force_replaces_an_earlier_export_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("char"))
    export_hf(checkpoint, out)
    before = (out / "model.safetensors").read_bytes()
    export_hf(checkpoint, out, "bf16", force=True)
    assert (out / "model.safetensors").read_bytes() != before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InteropError, match=r"--force would delete 'notes.txt'"):
        export_hf(checkpoint, out, force=True)
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "notes.txt"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing is left beside it


def test_a_failing_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("char"))
    export_hf(checkpoint, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minigpt_cli.interop.hf_export.save_file", full)
    with pytest.raises(InteropError, match=r"cannot be written \(No space left on device\)"):
        export_hf(checkpoint, out, "bf16", force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    export_hf(random_checkpoint(CONFIGS["modern"], tokenizer_of("char")), tmp_path / "out")
    (tmp_path / "other").write_text("")
    mode = (tmp_path / "other").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "out").iterdir()} == {mode}


def test_configs_say_what_readers_would_otherwise_assume(tmp_path: Path) -> None:
    """Each of these was found missing by a reader; see the comments beside them."""
    export_hf(random_checkpoint(CONFIGS["modern-gqa-tied"], tokenizer_of("char")), tmp_path / "q")
    export_hf(random_checkpoint(CONFIGS["classic"], tokenizer_of("char")), tmp_path / "g")
    qwen, gpt = (json.loads((tmp_path / x / "config.json").read_text()) for x in "qg")
    assert qwen["rope_theta"] == qwen["rope_parameters"]["rope_theta"] == 5e4
    assert (qwen["head_dim"], qwen["sliding_window"], qwen["max_window_layers"]) == (8, 256, 0)
    assert (gpt["tie_word_embeddings"], gpt["n_ctx"], gpt["resid_pdrop"]) == (False, 256, 0.0)
    for config in (qwen, gpt):
        ends = [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")]
        assert ends == [None, None, None]
        assert config["dtype"] == config["torch_dtype"] == "float32"
    tokenizer = json.loads((tmp_path / "q" / "tokenizer_config.json").read_text())
    assert tokenizer == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
    }
    with safe_open(tmp_path / "q" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - it is no dict
