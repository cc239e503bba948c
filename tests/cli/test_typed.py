"""Words typed without an option: what is plain is done, the rest gets the right command."""

import json
from pathlib import Path

import pytest

from minigpt_cli.config.loading import parse_override, setting_names
from minigpt_cli.errors import did_you_mean
from tests.helpers.callers import Minigpt, Misused, Refused

SHORT = ("--max-iters", 1, "--device", "cpu", "--out", "run", "--json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tiny", "story.txt"), "--preset tiny --data story.txt"),
        (("story.txt", "--preset", "tiny"), "--data story.txt"),
        (("tiny", "--data", "story.txt"), "--preset tiny"),
        (("tiny", "story.txt", "diary"), "--preset tiny --data story.txt --data diary"),
        (("own.toml", "story.txt"), "--preset own.toml --data story.txt"),
    ],
)
def test_train_takes_presets_and_texts_as_words(
    minigpt: Minigpt, home: Path, words: tuple[str, ...], said: str
) -> None:
    (home / "diary").mkdir()
    (home / "diary" / "jan.txt").write_text("The old heron counts.\n" * 50, encoding="utf-8")
    (home / "own.toml").write_text("[model]\nn_layer = 1\nn_embd = 16\nn_head = 1\n")
    result = minigpt("train", *words, *SHORT)
    assert result.exit_code == 0, result.stderr
    assert f"Taken as: {said}\n" in result.stderr
    assert (home / "run" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tiny", "small"), "small: the preset is tiny already"),
        (("runs/tiny",), "to continue it: minigpt train --resume runs/tiny"),
        (("storry.txt",), "did you mean story.txt?"),
        (("Story",), "did you mean story.txt?"),
        (("smal",), "did you mean small?"),
        (("none.txt",), "none.txt: no such file or folder in"),
        (("nothing",), "unknown preset nothing; available: "),
        (("mini",), "mini is a preset and a file here"),
    ],
)
def test_train_answers_words_that_mean_nothing_or_too_much(
    misused: Misused, home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str], message: str
) -> None:
    (home / "mini").mkdir()
    names = ["mini", "small", "tiny"]
    monkeypatch.setattr("minigpt_cli.cli.typed.preset_names", lambda: names)
    assert message in misused("train", *words)
    assert not list(home.glob("runs/*-2"))


@pytest.mark.parametrize("name", ["x.yaml", "x.json", "configs/x.yml"])
def test_a_preset_in_another_format_is_told_which_one_is_read(refused: Refused, name: str) -> None:
    assert "presets are TOML files" in refused("train", "--preset", name)


def test_generate_takes_the_prompt_as_a_word(minigpt: Minigpt) -> None:
    options = ("-n", 8, "-t", 0)
    expected = minigpt("generate", *options, "-p", "The old").stdout
    alone = minigpt("generate", *options, "The old")
    assert (alone.exit_code, alone.stdout) == (0, expected)
    several = minigpt("generate", *options, "The", "old")
    assert (several.stdout, several.stderr.count('--prompt "The old"')) == (expected, 1)
    chosen = minigpt("generate", *options, "tiny", "The old")
    assert (chosen.stdout, "--checkpoint tiny" in chosen.stderr) == (expected, True)


def test_generate_says_what_to_type_for_a_file_or_two_prompts(misused: Misused) -> None:
    assert "--prompt-file story.txt" in misused("generate", "story.txt")
    assert "the prompt is given twice" in misused("generate", "The", "--prompt", "old")
    assert "cannot be combined" in misused("generate", "The", "--prompt-file", "story.txt")


def test_eval_takes_texts_and_models_in_any_order(minigpt: Minigpt) -> None:
    expected = minigpt("eval", "--data", "story.txt", "--json").stdout
    for words in (("story.txt",), ("runs/tiny", "story.txt"), ("story.txt", "tiny")):
        result = minigpt("eval", *words, "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, json.loads(expected))
        assert "Taken as: --data story.txt\n" in result.stderr


def test_a_misspelled_view_is_sent_to_the_help_that_lists_them(misused: Misused) -> None:
    said = misused("inspect", "memorised")
    assert "Try 'minigpt inspect -h' for help" in said
    assert "overview" not in said


def test_inspect_answers_a_text_and_a_misspelled_view(misused: Misused, refused: Refused) -> None:
    assert "use minigpt inspect surprisal story.txt" in refused("inspect", "story.txt")
    assert "did you mean minigpt inspect attention?" in misused("inspect", "atention", "The old")
    assert "no such file, run or view" in misused("inspect", "The old heron")
    assert "did you mean story.txt?" in refused("inspect", "storry.txt")


@pytest.mark.parametrize(
    "command",
    [("generate", "-n", 2, "-c", "tiny"), ("eval", "tiny"), ("inspect", "tiny"),
     ("inspect", "report", "tiny"), ("inspect", "batch", 1, "tiny"),
     ("inspect", "next", "The", "-c", "tiny")],
)  # fmt: skip
def test_a_run_is_found_by_its_bare_name(minigpt: Minigpt, command: tuple[object, ...]) -> None:
    assert minigpt(*command).exit_code == 0


@pytest.mark.parametrize("command", [("eval",), ("generate", "-c"), ("inspect", "report")])
@pytest.mark.parametrize("name", ["runs/tinny", "tinny", "run/tiny"])
def test_a_misspelled_run_is_answered_with_the_one_that_exists(
    refused: Refused, command: tuple[str, ...], name: str
) -> None:
    assert "did you mean runs/tiny?" in refused(*command, name)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("jann.txt", "jan.txt"), ("jan", "jan.txt"), ("JAN.TXT", "jan.txt"),
     ("dairy/feb.txt", "diary/feb.txt"), ("diary/fbe.txt", "diary/feb.txt"),
     ("smal", "runs/small")],
)  # fmt: skip
def test_did_you_mean_offers_what_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("jan.txt", "diary/feb.txt", "runs/small/metrics.jsonl"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert did_you_mean(wrong) == f"; did you mean {near}?"


@pytest.mark.parametrize("path", ["quite different", "\0", "x" * 5000, "/", "", "a/b/c/d"])
def test_did_you_mean_is_silent_where_nothing_is_near(tmp_path: Path, path: str) -> None:
    assert did_you_mean(path if path == "/" else f"{tmp_path}/{path}") == ""


# --- Settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("n_layer=3", ("model.n_layer", 3)),
        ("max_iters=1e3", ("train.max_iters", 1000)),
        ("train.max_iters=1e3", ("train.max_iters", 1000)),
        ("train.eval_interval = 2E2", ("train.eval_interval", 200)),
        ("model.n_kv_head=1e0", ("model.n_kv_head", 1)),
        ("learning_rate=1e0", ("optimizer.learning_rate", 1.0)),
        ("train.max_iters=3.0", ("train.max_iters", 3.0)),
        ("train.max_iters=1.5e0", ("train.max_iters", 1.5)),
        ("bias=False", ("model.bias", False)),
    ],
)
def test_settings_are_read_as_people_write_them(text: str, setting: tuple[str, object]) -> None:
    name, value = parse_override(text)
    assert (name, value, type(value)) == (*setting, type(setting[1]))


def test_every_key_is_in_one_section_so_that_it_can_be_left_out() -> None:
    keys = [name.partition(".")[2] for name in setting_names()]
    assert len(keys) == len(set(keys))


def test_a_setting_without_its_section_is_said_in_full(minigpt: Minigpt) -> None:
    result = minigpt("train", "tiny", "story.txt", "--set", "n_layer=1", *SHORT)
    assert "--set n_layer=1: taken as model.n_layer\n" in result.stderr
    assert result.exit_code == 0


@pytest.mark.parametrize(("number", "rc"), [("2e0", 0), ("1_0", 0), ("1.5", 2), ("ten", 2)])
def test_numbers_of_options_may_be_written_with_an_exponent(
    minigpt: Minigpt, number: str, rc: int
) -> None:
    given = ("train", "tiny", "story.txt", "--max-iters", number, "--dry-run", "--device", "cpu")
    assert minigpt(*given).exit_code == rc


def test_prompt_longer_than_a_file_name(minigpt: Minigpt) -> None:
    done = minigpt("generate", "The old " * 1000, "-n", 3)
    assert done.exit_code == 0
