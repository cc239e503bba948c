"""`minigpt train`: what it leaves in the run's folder, what it says, and how it goes on."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.presets import preset_names
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.training.setup import RESUMABLE_SETTINGS
from tests.helpers.callers import Minigpt, Refused

TINY = ("train", "--preset", "tiny", "--data", "story.txt", "--device", "cpu", "--precision",
        "fp32", "--set", "train.sample_tokens=0")  # fmt: skip
SHORT = (*TINY, "--max-iters", 4, "--set", "train.eval_interval=2")
RUN = Path("runs/tiny")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoint.safetensors").model.state_dict()


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_run_folder_holds_what_is_promised(home: Path) -> None:
    names = {"checkpoint.safetensors", "state.safetensors", "config.toml", "metrics.jsonl"}
    assert {path.name for path in RUN.iterdir()} == names | {"run.lock"}
    config = load_run_config(str(RUN / "config.toml"))
    assert config.data.corpus == ("story.txt",)
    assert (config.train.max_iters, config.train.precision, config.train.device) == (
        20,
        "fp32",
        "cpu",
    )


def test_options_and_settings_reach_the_configuration(minigpt: Minigpt) -> None:
    options = ["--batch-size", 3, "--learning-rate", 0.005, "--seed", 9, "--set", "model.n_embd=16"]
    assert minigpt(*SHORT, *options, "--out", "out").exit_code == 0
    config = load_run_config("out/config.toml")
    assert (config.train.batch_size, config.optimizer.learning_rate) == (3, 0.005)
    assert (config.train.seed, config.train.max_iters, config.model.n_embd) == (9, 4, 16)
    assert load_checkpoint(Path("out/checkpoint.safetensors")).metadata.model == config.model


def test_recorded_configuration_makes_the_same_run_again(minigpt: Minigpt) -> None:
    result = minigpt("train", "--preset", RUN / "config.toml", "--out", "again")
    assert result.exit_code == 0, result.output
    assert Path("again/config.toml").read_bytes() == (RUN / "config.toml").read_bytes()
    before, after = weights(RUN), weights(Path("again"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_screen_agrees_with_the_metrics(minigpt: Minigpt) -> None:
    result = minigpt(*SHORT, "--out", "out")
    rows = re.findall(
        r"^ +(\d+) +([\d.]+) +([\d.]+) ([* ]) +([\d.]+) ", result.stderr, re.MULTILINE
    )
    found = [row for row in metrics(Path("out")) if row["type"] == "evaluation"]
    assert [row[0] for row in rows] == ["2", "4"]
    for shown, row in zip(rows, found, strict=True):
        assert shown == (
            str(row["step"]),
            f"{row['train_loss']:.4f}",
            f"{row['val_loss']:.4f}",
            "*" if row["is_best"] else " ",
            f"{row['bits_per_byte']:.3f}",
        )
    best = min(found, key=lambda row: row["val_loss"])
    assert (
        f"best validation loss  {best['val_loss']:.4f} at step {best['step']} of 4" in result.stdout
    )
    assert "out/checkpoint.safetensors" in result.stdout
    assert "out/metrics.jsonl" in result.stdout
    assert "\x1b" not in result.output


def test_head_line_counts_are_right(minigpt: Minigpt, story: str) -> None:
    result = minigpt(*SHORT, "--out", "out")
    model = load_checkpoint(Path("out/checkpoint.safetensors")).model
    train = int(0.9 * len(story))
    assert (
        f"Model:  modern, {sum(p.numel() for p in model.parameters()):,} parameters"
        in result.stderr
    )
    assert f"{train:,} tokens for training, {len(story) - train:,} for validation" in result.stderr
    assert f"4 steps of 256 tokens ({4 * 256 / train:.3g} epochs)" in result.stderr


def test_model_writes_at_each_evaluation(minigpt: Minigpt) -> None:
    result = minigpt(*SHORT, "--set", "train.sample_tokens=50", "--out", "out")
    between = re.search(r"^ +2 .*?\n((?: {8}.*\n)+?) +4 ", result.stderr, re.MULTILINE)
    assert between is not None
    assert between[1].strip()


def test_next_commands_work_as_they_are_printed(minigpt: Minigpt) -> None:
    result = minigpt(*SHORT, "--out", "a folder")
    commands = re.findall(r"^  (minigpt .*)$", result.stderr, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["generate", "eval", "inspect"]
    for command in commands:
        assert minigpt(*shlex.split(command)[1:]).exit_code == 0, command


def test_files_of_a_folder_are_said_before_the_first_step(minigpt: Minigpt, home: Path) -> None:
    (home / "notes" / ".trash").mkdir(parents=True)
    (home / "notes" / "a.md").write_text("The boats went by, and so did we.\n" * 40)
    (home / "notes" / "b.md").write_text("The last of it.\n" * 2)
    (home / "notes" / "scan.pdf").touch()
    result = minigpt("train", "--preset", "tiny", "--data", "notes", "--max-iters", 1)
    head = result.stderr.partition("Run: ")[0]
    assert "Read 2 files (1.4 kB); left out 2: 1 trash folder, 1 .pdf\n" in head
    assert "For validation, the last 10% of the text: the end of a.md, b.md\n" in head


def test_existing_run_is_never_overwritten(minigpt: Minigpt, refused: Refused) -> None:
    before = {path: path.read_bytes() for path in RUN.iterdir()}
    assert "runs/story/" in minigpt(*SHORT).stdout
    assert "runs/story-2/" in minigpt(*SHORT).stdout
    message = refused(*SHORT, "--out", RUN)
    assert message.startswith(f"{RUN}: already exists and is not overwritten")
    assert f"minigpt train --resume {RUN}" in message
    assert {path: path.read_bytes() for path in RUN.iterdir()} == before


def test_resumed_run_goes_on_to_its_new_end(minigpt: Minigpt) -> None:
    result = minigpt("train", "--resume", RUN, "--max-iters", 24, "--set", "train.eval_interval=4")
    assert result.exit_code == 0, result.output
    assert "Resuming runs/tiny at step 20\n" in result.stderr
    assert [row["step"] for row in metrics(RUN) if row["type"] == "step"] == list(range(1, 25))
    assert load_run_config(str(RUN / "config.toml")).train.max_iters == 24


@pytest.mark.parametrize("named", [(), (RUN,), ("--out", RUN)])
def test_run_to_resume_is_the_newest_or_the_named_one(
    minigpt: Minigpt, named: tuple[object, ...]
) -> None:
    result = minigpt("train", "--resume", *named, "--max-iters", 22)
    assert "Resuming runs/tiny at step 20\n" in result.stderr


def test_finished_run_says_how_to_train_on(refused: Refused) -> None:
    message = refused("train", "--resume", RUN)
    assert message == (
        "runs/tiny: already finished, at step 20; to train longer, raise train.max_iters "
        "(set with --max-iters)"
    )


def test_resumed_run_keeps_its_settings(refused: Refused) -> None:
    before = {path: path.read_bytes() for path in RUN.iterdir()}
    message = refused("train", "--resume", RUN, "--learning-rate", 0.5, "--batch-size", 99)
    assert "optimizer.learning_rate was 0.02, now 0.5" in message
    assert "train.batch_size was 8, now 99" in message
    assert f"or go on in a new run (--init-from {RUN})" in message
    assert {path: path.read_bytes() for path in RUN.iterdir()} == before


def test_another_text_is_refused_when_resuming(refused: Refused, home: Path) -> None:
    with (home / "story.txt").open("a") as file:
        file.write("And so on.\n")
    before = sorted(Path("data").rglob("*"))
    message = refused("train", "--resume", RUN, "--data", "story.txt")
    assert "story: the text has changed since" in message
    assert sorted(Path("data").rglob("*")) == before
    shutil.rmtree("data")
    message = refused("train", "--resume", RUN)
    assert message.startswith("story: the text has changed since the model was trained on it; and")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("state.safetensors", "runs/tiny: nothing to resume, there is no state.safetensors"),
        ("config.toml", "runs/tiny/config.toml: no such file"),
    ],
)
def test_folder_without_a_run_cannot_be_resumed(
    refused: Refused, missing: str, message: str
) -> None:
    (RUN / missing).unlink()
    assert refused("train", "--resume", RUN).startswith(message)


def test_no_run_to_resume_says_how_to_begin_one(refused: Refused) -> None:
    shutil.rmtree(RUN)
    assert "minigpt train --preset small" in refused("train", "--resume")


def test_run_named_without_resume_is_a_usage_error(minigpt: Minigpt) -> None:
    result = minigpt("train", "runs/tiny")
    assert result.exit_code == 2
    assert "--resume" in result.stderr


def test_dry_run_tells_the_cost_and_keeps_no_run(minigpt: Minigpt, story: str) -> None:
    before = sorted(path for path in Path("runs").rglob("*"))
    found = json.loads(minigpt(*SHORT, "--dry-run", "--json").stdout)
    assert sorted(path for path in Path("runs").rglob("*")) == before
    model = load_checkpoint(RUN / "checkpoint.safetensors").model
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["training_tokens"] == int(0.9 * len(story))
    assert found["tokens_per_step"] == 8 * 32
    assert found["epochs"] == pytest.approx(4 * 8 * 32 / int(0.9 * len(story)))
    on_disk = sum((RUN / f"{name}.safetensors").stat().st_size for name in ("checkpoint", "state"))
    assert found["run_folder_bytes"] == pytest.approx(on_disk, rel=0.1)
    assert found["free_disk_bytes"] > 0
    assert found["total_seconds"] == pytest.approx(
        4 * found["seconds_per_step"] + 2 * found["evaluation_seconds"]
    )


def test_dry_run_table_says_that_nothing_was_kept(minigpt: Minigpt) -> None:
    result = minigpt(*SHORT, "--dry-run")
    assert re.search(r"^tokens per step +256 *$", result.stdout, re.MULTILINE)
    assert re.search(r"^steps +4 *$", result.stdout, re.MULTILINE)
    assert "Nothing was saved" in result.stderr


def test_presets_are_listed_with_their_sizes(minigpt: Minigpt) -> None:
    text = minigpt("train", "--list-presets").stdout
    for name in preset_names():
        config = load_run_config(name)
        model = config.model
        size = f"{model.n_layer}/{model.n_head}/{model.n_embd}"
        numbers = rf"{model.block_size:,} +{config.train.max_iters:,}"
        row = rf"^ {name} +[A-Zn].* {model.family} +{size} +{numbers}"
        assert re.search(row, text, re.MULTILINE), name
    found = json.loads(minigpt("train", "--list-presets", "--json").stdout)
    assert found == {n: load_run_config(n).model_dump(mode="json") for n in preset_names()}


def test_json_is_all_that_stdout_holds(minigpt: Minigpt) -> None:
    found = json.loads(minigpt(*SHORT, "--json").stdout)
    assert found["run"] == "runs/story"
    assert (found["step"], found["finished"]) == (4, True)
    evaluations = [row for row in metrics(Path(found["run"])) if row["type"] == "evaluation"]
    assert found["best_val_loss"] == min(row["val_loss"] for row in evaluations)


def test_several_texts_are_read_in_order(minigpt: Minigpt, home: Path, story: str) -> None:
    (home / "more.txt").write_text("Zebras come last.\n" * 9, encoding="utf-8")
    assert minigpt(*SHORT, "--data", "more.txt", "--out", "out").exit_code == 0
    facts = load_checkpoint(Path("out/checkpoint.safetensors")).metadata
    assert facts.corpus == "story+more"
    assert facts.vocab_size == len(set(story + "Zebras come last.\n"))


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_chinese_text_trains_and_writes(minigpt: Minigpt, home: Path, kind: str) -> None:
    lines = [f"第{n}天，小船{verb}过{place}。\n" for n in "一二三四五六七" for verb in "划漂游"
             for place in ("老石桥", "芦苇荡", "灯火旁")]  # fmt: skip
    (home / "船.txt").write_text("".join(lines), encoding="utf-8")
    settings = ["--set", f"data.tokenizer={kind}", "--set", "model.block_size=8"]
    run = ["--preset", "tiny", "--data", "船.txt", "--max-iters", 3, "--out", "out"]
    assert minigpt("train", *run, *settings, "--device", "cpu").exit_code == 0
    result = minigpt("generate", "-c", "out", "--prompt", "小船", "-n", 20)
    assert result.exit_code == 0
    assert result.stdout.startswith("小船")


def test_diverging_run_stops_with_the_step_the_rate_and_advice(
    minigpt: Minigpt, home: Path
) -> None:
    options = ["--set", "optimizer.name=adamw", "--learning-rate", 1e6, "--out", "out"]
    result = minigpt(*SHORT, "--max-iters", 50, *options)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert re.match(
        r"error: the ((validation )?loss|gradient norm|norm of the weights) is (nan|inf) at "
        r"step \d+ \(learning rate \d.* after [123] rewind",
        last,
    )
    assert "smaller optimizer.learning_rate" in last
    assert "(set with --learning-rate or --set optimizer.grad_clip=1.0)" in last
    assert result.stdout == ""


def test_configuration_is_valid_toml_with_the_five_tables(home: Path) -> None:
    tables = tomli.loads((RUN / "config.toml").read_text(encoding="utf-8"))
    assert [*tables] == ["model", "data", "optimizer", "train", "distributed"]


def test_edited_config_of_a_run_is_refused_with_the_difference(
    refused: Refused, home: Path
) -> None:
    config = RUN / "config.toml"
    config.write_text(config.read_text().replace('name = "muon"', 'name = "adamw"'))
    assert "optimizer.name was muon, now adamw" in refused("train", "--resume", RUN)


def test_overfitting_is_named_at_the_end(minigpt: Minigpt, home: Path, story: str) -> None:
    # What is kept for validation is the story backwards: nothing to learn for.
    Path("twisted.txt").write_text(story + story[::-1][: len(story) // 4], encoding="utf-8")
    settings = ["data.val_fraction=0.2", "train.eval_interval=20", "train.precision=fp32"]
    options = [word for setting in settings for word in ("--set", setting)]
    run = ["--data", "twisted.txt", "--out", "out", "--device", "cpu", "--max-iters", 60]
    told = minigpt("train", "--preset", "tiny", *run, *options).stdout
    (facts,) = json.loads(minigpt("inspect", "out", "--json").stdout)["runs"]
    assert facts["overfitting"] is not None
    assert f"overfitting since step {facts['overfitting']['since']}:" in " ".join(told.split())


def test_run_remembers_its_threads(minigpt: Minigpt, home: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert minigpt(*SHORT, "--set", "train.threads=2", "--out", "out").exit_code == 0
        torch.set_num_threads(1)  # as on another machine
        assert minigpt("train", "--resume", "out", "--max-iters", 5).exit_code == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    config = tomli.loads(Path("out/config.toml").read_text(encoding="utf-8"))
    assert config["train"]["threads"] == 2


def test_documentation_lists_what_a_resumed_run_may_change() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = page.partition("**What a resumed run may change.**")[2].partition("Anything else")[0]
    assert set(re.findall(r"`([a-z]+[.][a-z_]+)`", listed)) == RESUMABLE_SETTINGS
