"""`minigpt train --init-from`, and other commands on a model that another program made."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.interop.hf_import import read_hf
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.training.setup import TrainRequest
from tests.helpers.callers import Minigpt, Misused, Refused
from tests.helpers.exports import CONFIGS, random_checkpoint, tokenizer_of

FAST = ("--max-iters", 4, "--batch-size", 2, "--device", "cpu", "--set", "train.eval_interval=2",
        "--set", "train.sample_tokens=4", "--precision", "fp32")  # fmt: skip


@pytest.fixture
def more(home: Path, story: str) -> Path:
    """Another text, of the same characters."""
    path = home / "more.txt"
    path.write_text(story[: len(story) // 2] * 2, encoding="utf-8")
    return path


@pytest.fixture
def folder(home: Path) -> Path:
    """A model that `transformers` made, with a tokenizer of its own."""
    pytest.importorskip("transformers")
    from tests.helpers.transformers_models import saved

    (home / "llama").mkdir()
    saved("llama", home / "llama")
    return home / "llama"


def test_a_run_goes_on_with_another_text(minigpt: Minigpt, more: Path) -> None:
    result = minigpt("train", "--init-from", "runs/tiny", "--data", more, *FAST)
    assert result.exit_code == 0, result.output
    before, after = (
        load_checkpoint(Path(f"runs/{name}/checkpoint.safetensors")) for name in ("tiny", "more")
    )
    assert after.tokenizer.to_json() == before.tokenizer.to_json()
    assert after.metadata.model == before.metadata.model
    optimizer = after.metadata.optimizer
    assert optimizer is not None
    assert (optimizer.name, optimizer.learning_rate) == ("adamw", 1e-4)
    for command in (("eval", "runs/more"), ("inspect", "gradients", "-c", "runs/more")):
        assert minigpt(*command).exit_code == 0


@pytest.mark.parametrize("block_size", [None, 16])
def test_training_begins_with_the_weights_of_the_model(
    home: Path, more: Path, block_size: int | None
) -> None:
    for name in ("modern-gqa-tied", "classic"):
        initial = random_checkpoint(
            CONFIGS[name].model_copy(update={"block_size": 32}),
            tokenizer_of("char", (home / "story.txt").read_text(encoding="utf-8")),
        )
        changes = {} if block_size is None else {"model.block_size": block_size}
        overrides = {"data.corpus": str(more), "train.device": "cpu", **changes}
        workspace = Workspace(home / "data")
        request = TrainRequest("finetune", overrides, None, workspace, initial=initial)
        model = request.learner().model
        ids = torch.tensor([[1, 2, 3, 4]])
        with torch.inference_mode(), model.evaluating(torch.float32):
            assert model(ids).equal(initial.model(ids))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *product(("modern", "classic"), ("char", "word", "byte", "bpe")),
        *((name, "byte") for name in CONFIGS if name not in ("modern", "classic")),
    ],
)
@torch.inference_mode()
def test_training_on_from_an_export_begins_with_the_same_logits(
    home: Path, name: str, kind: str
) -> None:
    from minigpt_cli.interop.hf_export import export_hf

    tokenizer = tokenizer_of(kind, (home / "story.txt").read_text(encoding="utf-8"))
    before = random_checkpoint(CONFIGS[name].model_copy(update={"block_size": 32}), tokenizer)
    export_hf(before, home / "out")
    overrides = {"data.corpus": "story.txt", "train.device": "cpu", "train.threads": 1}
    for preset in ("finetune", "lora"):
        request = TrainRequest(
            preset, overrides, None, Workspace(home / "data"), initial=read_hf(home / "out")
        )
        with torch.inference_mode(False):
            learner = request.learner()
        assert learner.dataset.tokenizer.to_json() == tokenizer.to_json()
        ids = torch.tensor([tokenizer.encode("The old heron counts")])
        with learner.model.evaluating(torch.float32):
            assert learner.model(ids).equal(before.model(ids))


def test_a_folder_of_transformers_is_finetuned_with_its_own_tokenizer(
    minigpt: Minigpt, folder: Path, more: Path
) -> None:
    options = ("--set", "model.block_size=32")
    result = minigpt("train", "--init-from", folder, "--data", more, *FAST, *options)
    assert result.exit_code == 0, result.output
    tuned = load_checkpoint(Path("runs/more/checkpoint.safetensors"))
    assert tuned.tokenizer.to_json() == read_hf(folder).tokenizer.to_json()
    for command in (("eval", "runs/more"), ("generate", "-c", "runs/more", "-n", 5),
                    ("train", "--resume", "runs/more", "--max-iters", 6)):  # fmt: skip
        result = minigpt(*command)
        assert result.exit_code == 0, result.output


def test_its_prepared_text_is_not_mistaken_for_one_of_another_tokenizer(
    minigpt: Minigpt, folder: Path, more: Path
) -> None:
    options = ("--data", more, *FAST, "--set", "model.block_size=32")
    assert minigpt("train", "--init-from", folder, *options).exit_code == 0
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"][-1]["content"] = "<other>"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert minigpt("train", "--init-from", folder, *options).exit_code == 0
    prepared = [path for path in Path("data/more").iterdir() if path.is_dir()]
    assert len(prepared) == 2
    assert minigpt("eval", "runs/more", "runs/more-2").exit_code == 0


def test_a_lost_prepared_text_is_prepared_again_for_a_checkpoint(
    minigpt: Minigpt, folder: Path, more: Path, refused: Refused
) -> None:
    import shutil

    options = ("--data", more, *FAST, "--set", "model.block_size=32")
    assert minigpt("train", "--init-from", folder, *options).exit_code == 0
    shutil.rmtree("data")
    message = refused("train", "--resume", "runs/more", "--max-iters", 8)
    assert "its tokenizer came with the model" in message
    assert minigpt("eval", "runs/more").exit_code == 0
    assert minigpt("train", "--resume", "runs/more", "--max-iters", 8).exit_code == 0


def test_commands_read_a_folder_of_transformers_as_it_is(
    minigpt: Minigpt, folder: Path, more: Path, refused: Refused
) -> None:
    for command in (
        ("generate", "-c", folder, "-p", "The", "-n", 8),
        ("eval", folder, "--data", more),
        ("inspect", "next", "The", "-c", folder),
        ("inspect", "shapes", "The", "-c", folder),
        ("inspect", "attention", "The old", "-c", folder),
        ("inspect", folder),
        ("export", folder, "again", "--to", "hf"),
    ):
        result = minigpt(*command)
        assert result.exit_code == 0, result.output
    assert "pass a text with --data" in refused("eval", folder)


def test_characters_that_the_vocabulary_lacks_are_all_named(refused: Refused, home: Path) -> None:
    (home / "odd.txt").write_text("Ω and ∑ are 7 letters.\n" * 20, encoding="utf-8")
    message = refused("train", "--init-from", "runs/tiny", "--data", "odd.txt")
    assert message == (
        "odd: the model's vocabulary lacks '7' (U+0037), 'Ω' (U+03A9), '∑' (U+2211); remove these "
        "characters from the text, or train a new model on both texts: minigpt train --data OLD "
        "--data odd.txt --tokenizer bpe, which knows every character, as byte does"
    )


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "ckpt.pth"])
def test_a_pickle_is_refused_with_how_to_convert_it(refused: Refused, name: str) -> None:
    Path(name).write_bytes(b"PK\x03\x04 and so on")
    for command in (("train", "--data", "story.txt", "--init-from"), ("generate", "-c")):
        message = refused(*command, name)
        assert message.startswith(f"{name}: a pickle, which can run any program when opened")
        assert "save_pretrained" in message


def test_adapters_alone_are_refused_with_how_to_merge_them(refused: Refused) -> None:
    Path("adapters").mkdir()
    Path("adapters/adapter_config.json").write_text("{}")
    message = refused("generate", "-c", "adapters")
    assert message.startswith("adapters: adapters without their model; merge them")


@pytest.mark.parametrize(
    "setting", ["model.n_layer=3", "data.tokenizer=bpe", "data.vocab_size=300"]
)
def test_what_comes_with_the_model_cannot_be_set(refused: Refused, setting: str) -> None:
    message = refused("train", "--init-from", "runs/tiny", "--data", "story.txt", "--set", setting)
    assert message.startswith(f"{setting.partition('=')[0]}: comes with the model")


def test_learned_positions_cannot_become_more(refused: Refused, home: Path, story: str) -> None:
    from minigpt_cli.interop.hf_export import export_hf

    export_hf(random_checkpoint(CONFIGS["classic"], tokenizer_of("char", story)), home / "classic")
    message = refused("train", "--init-from", "classic", "--data", "story.txt",
                      "--set", "model.block_size=512")  # fmt: skip
    assert message == (
        "model.block_size = 512: the model learned 256 positions; use at most as many"
    )


def test_a_pretrained_tokenizer_is_not_made_from_a_text(refused: Refused, misused: Misused) -> None:
    message = refused("train", "--data", "story.txt", "--tokenizer", "pretrained")
    assert "comes with a model; train with --init-from" in message
    assert "--init-from" in misused("train", "--resume", "--init-from", "runs/tiny")


def test_the_preset_for_it_is_gentle() -> None:
    config = load_run_config("finetune")
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adamw", 1e-4)
    assert config.optimizer.warmup_iters > 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_weights_stay_and_others_learn(minigpt: Minigpt, more: Path, optimizer: str) -> None:
    patterns = ("--freeze", "blocks.0.*", "--freeze", "*embedding*")
    options = ("--data", more, *FAST, *patterns, "--set", f"optimizer.name={optimizer}")
    assert minigpt("train", "--init-from", "runs/tiny", *options).exit_code == 0
    result = minigpt("train", "--resume", "runs/more", "--max-iters", 6)
    assert result.exit_code == 0, result.output
    before, after = (
        load_checkpoint(Path(f"runs/{name}/checkpoint.safetensors")).model.state_dict()
        for name in ("tiny", "more")
    )
    for name, weight in after.items():
        frozen = name.startswith(("blocks.0.", "token_embedding"))
        assert weight.equal(before[name]) == frozen, name


def test_a_pattern_that_freezes_nothing_or_everything_is_refused(refused: Refused) -> None:
    train = ("train", "--data", "story.txt", "--preset", "tiny", "--freeze")
    assert "matches no weight; they have names like token_embedding" in refused(*train, "layer1*")
    assert "leaves no weight to train" in refused(*train, "*")


def test_preset_auto_and_a_runs_own_configuration_need_another_spelling(
    minigpt: Minigpt, folder: Path, more: Path, refused: Refused
) -> None:
    message = refused("train", "--preset", "auto", "--init-from", "runs/tiny", "--data", more)
    assert "to begin from a model, use preset finetune" in message
    options = ("--data", more, *FAST, "--set", "model.block_size=32")
    assert minigpt("train", "--init-from", folder, *options).exit_code == 0
    assert "name that model with --init-from" in refused(
        "train", "--preset", "runs/more/config.toml", "--max-iters", 5
    )


def test_a_validation_text_that_only_the_run_names_is_not_read(
    minigpt: Minigpt, refused: Refused, home: Path, more: Path
) -> None:
    import shutil

    (home.parent / "outside.txt").write_text(more.read_text(encoding="utf-8"), encoding="utf-8")
    options = ("--data", "story.txt", "--val-data", home.parent / "outside.txt", "--out", "r")
    tiny = ("--preset", "tiny", "--device", "cpu", "--max-iters", 3)
    assert minigpt("train", *tiny, *options).exit_code == 0
    shutil.rmtree("data")
    message = refused("train", "--resume", "r", "--data", "story.txt", "--max-iters", 5)
    assert "outside.txt: the model asks for this file" in message
    assert "or name it (set with --val-data FILE)" in message


def test_a_run_from_another_model_goes_on_with_its_text_under_another_name(
    minigpt: Minigpt, more: Path
) -> None:
    assert minigpt("train", "--init-from", "runs/tiny", "--data", more, *FAST).exit_code == 0
    renamed = more.rename(more.with_name("renamed.txt"))
    result = minigpt("train", "--resume", "runs/more", "--data", renamed, "--max-iters", 6)
    assert result.exit_code == 0, result.output


def test_a_folder_of_transformers_under_runs_is_found_by_its_bare_name(
    minigpt: Minigpt, folder: Path
) -> None:
    folder.rename("runs/hf")
    result = minigpt("generate", "-c", "hf", "-p", "The", "-n", 3)
    assert result.exit_code == 0, result.output
    assert "train --init-from hf" in minigpt("train", "hf").output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "gpt2",
            "--init-from gpt2: no such run, file or folder; nothing is downloaded: name a run",
        ),
        ("resume", "to continue a run: minigpt train --resume"),
        ("scratch", "leave it out"),
        ("runs/tinny", "did you mean runs/tiny?; nothing is downloaded"),
    ],
)
def test_a_name_that_is_no_model_here_is_never_downloaded(
    refused: Refused, name: str, said: str
) -> None:
    assert said in refused("train", "--preset", "tiny", "--init-from", name)
