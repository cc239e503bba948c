"""`minigpt generate`: stdout is the text, the whole text and nothing but the text."""

import json
from pathlib import Path

import pytest
from callers import Minigpt, Program, Refused

from minigpt_cli.checkpoint import load_checkpoint
from minigpt_cli.generation import Sampling, generate

RUN = ("--checkpoint", "runs/tiny")


def test_stdout_is_the_text_alone(minigpt: Minigpt) -> None:
    result = minigpt("generate", "--prompt", "The old", "-n", 30)
    loaded = load_checkpoint(Path("runs/tiny/checkpoint.safetensors"))
    text = "".join(generate(loaded.model, loaded.tokenizer, "The old", 30, Sampling()))
    assert len(text) == 30
    assert result.stdout == f"The old{text}\n"
    assert result.stderr == "Using runs/tiny/checkpoint.safetensors\n"


def test_named_checkpoint_needs_no_note(minigpt: Minigpt) -> None:
    by_folder = minigpt("generate", *RUN, "-n", 5)
    by_file = minigpt("generate", "-c", "runs/tiny/checkpoint.safetensors", "-n", 5)
    assert by_folder.stderr == by_file.stderr == ""
    assert by_folder.stdout == by_file.stdout


def test_same_seed_writes_the_same_and_another_seed_another_text(minigpt: Minigpt) -> None:
    texts = [minigpt("generate", *RUN, "-n", 60, "--seed", seed).stdout for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_temperature_zero_and_a_single_candidate_are_greedy(minigpt: Minigpt) -> None:
    greedy = [("-t", 0, "--seed", 1), ("-t", 0, "--seed", 2), ("--top-k", 1), ("--top-p", 1e-9)]
    assert len({minigpt("generate", *RUN, "-n", 40, *options).stdout for options in greedy}) == 1


def test_samples_are_separated_and_differ(minigpt: Minigpt) -> None:
    result = minigpt("generate", *RUN, "-p", "My", "-n", 40, "--num-samples", 3)
    samples = result.stdout.removesuffix("\n").split("\n---\n")
    assert len({*samples}) == 3
    assert all(sample.startswith("My") and len(sample) == 42 for sample in samples)


def test_json_holds_prompt_and_text_apart(minigpt: Minigpt) -> None:
    found = json.loads(minigpt("generate", *RUN, "-p", "My", "-n", 9, "--json").stdout)
    assert [{"prompt", "text"}] == [{*sample} for sample in found]
    assert found[0]["prompt"] == "My"
    assert len(found[0]["text"]) == 9


def test_empty_prompt_starts_by_itself(minigpt: Minigpt) -> None:
    result = minigpt("generate", *RUN, "-n", 12)
    assert result.exit_code == 0
    assert len(result.stdout) == 13
    assert result.stdout == minigpt("generate", *RUN, "-n", 12, "--prompt", "").stdout


def test_long_prompt_is_written_whole_and_its_end_is_read(minigpt: Minigpt, story: str) -> None:
    prompt = story[:100]
    result = minigpt("generate", *RUN, "-t", 0, "-n", 20, "-p", prompt)
    assert result.stderr == "The prompt has 100 tokens; the model reads the last 32.\n"
    assert result.stdout.startswith(prompt)
    short = minigpt("generate", *RUN, "-t", 0, "-n", 20, "-p", prompt[-32:])
    assert result.stdout[100:] == short.stdout[32:]


def test_unknown_characters_are_named_with_their_place_and_a_way_out(refused: Refused) -> None:
    message = refused("generate", *RUN, "--prompt", "The ☃ and Ω")
    assert "'☃' (U+2603)" in message
    assert "'Ω' (U+03A9)" in message
    assert "character 5" in message
    assert "take a byte or bpe tokenizer" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("--top-k", 0), ("--top-k", -1), ("--temperature", -0.5), ("--temperature", "nan"),
     ("--temperature", "inf"), ("--top-p", 0.0), ("--top-p", 1.5), ("--device", "gpu")],
)  # fmt: skip
def test_impossible_option_is_named(refused: Refused, option: str, value: object) -> None:
    assert refused("generate", *RUN, option, value).startswith(f"{option} {value}: ")


def test_impossible_option_is_answered_before_anything_is_loaded(refused: Refused) -> None:
    assert refused("generate", "-c", "none", "--top-k", 0).startswith("--top-k 0: ")


def test_no_run_yet_says_how_to_make_one(refused: Refused, home: Path) -> None:
    (home / "runs").rename(home / "elsewhere")
    assert "minigpt train --preset small" in refused("generate")


def test_pipe_gets_the_text_as_it_is(program: Program, minigpt: Minigpt) -> None:
    piped = program("generate", *RUN, "-n", 40)
    assert piped.stdout == minigpt("generate", *RUN, "-n", 40).stdout
    assert (piped.returncode, piped.stderr) == (0, "")
