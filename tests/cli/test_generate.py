"""`minigpt generate`: stdout is the text, the whole text and nothing but the text."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import generate
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Misused, Program, Refused

RUN = ("--checkpoint", "runs/tiny")


def test_stdout_is_the_text_alone(minigpt: Minigpt) -> None:
    result = minigpt("generate", "--prompt", "The old", "-n", 30, "--precision", "fp32")
    loaded = load_checkpoint(Path("runs/tiny/checkpoint.safetensors"))
    text = "".join(generate(loaded, "The old", 30, Sampling()))
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


def test_long_prompt_is_printed_whole_and_its_end_is_read(minigpt: Minigpt, story: str) -> None:
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
    assert "use a byte or bpe tokenizer" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("--top-k", 0), ("--top-k", -1), ("--temperature", -0.5), ("--temperature", "nan"),
     ("--temperature", "inf"), ("--top-p", 0.0), ("--top-p", 1.5), ("--min-p", -1.0),
     ("--repetition-penalty", 0.0), ("--max-new-tokens", 0), ("--num-samples", 0), ("--stop", "")],
)  # fmt: skip
def test_impossible_option_is_named_before_anything_is_loaded(
    misused: Misused, option: str, value: object
) -> None:
    said = misused("generate", "-c", "none", option, value)
    assert option.strip("-").replace("-", "_") in said.replace("-", "_")


def test_device_that_is_not_there_is_refused(refused: Refused) -> None:
    assert "gpu" in refused("generate", *RUN, "--device", "gpu")


def test_top_is_answered_with_the_view_that_took_its_place(misused: Misused) -> None:
    assert "use: minigpt inspect next TEXT" in misused("generate", "--top", 5)


@pytest.mark.parametrize(
    "options",
    [("--prompt-file", "f", "-p", "x"), ("--prompt-file", "f", "-i"), ("-i", "--json"),
     ("-i", "--show-probabilities"), ("-i", "--num-samples", 2),
     ("--quantize", "int8", "--precision", "fp32")],
)  # fmt: skip
def test_options_that_contradict_each_other_are_usage_errors(
    misused: Misused, options: tuple[object, ...]
) -> None:
    assert "cannot be combined" in misused("generate", *RUN, *options)


def test_no_run_yet_says_how_to_make_one(refused: Refused, home: Path) -> None:
    (home / "runs").rename(home / "elsewhere")
    assert "minigpt train --preset small" in refused("generate")


def test_pipe_gets_the_text_as_it_is(program: Program, minigpt: Minigpt) -> None:
    piped = program("generate", *RUN, "-n", 40)
    assert piped.stdout == minigpt("generate", *RUN, "-n", 40).stdout
    assert (piped.returncode, piped.stderr) == (0, "")


# --- Where prompts come from ----------------------------------------------------------------


def test_a_dash_reads_the_prompt_from_stdin_as_it_is(minigpt: Minigpt) -> None:
    result = minigpt("generate", *RUN, "-n", 20, "--prompt", "-", stdin="The old\n")
    assert result.stdout == minigpt("generate", *RUN, "-n", 20, "--prompt", "The old\n").stdout


def test_stdin_that_is_not_utf8_is_refused(refused: Refused) -> None:
    message = refused("generate", *RUN, "--prompt", "-", stdin=b"The \xff old")
    assert message == "stdin: not UTF-8 at byte 4; save it as UTF-8"


def test_each_line_of_a_file_is_a_prompt(minigpt: Minigpt, home: Path) -> None:
    (home / "prompts.txt").write_bytes(b"The\r\nMy old\r\n\r\n")
    options = (*RUN, "-n", 12, "--num-samples", 2, "--precision", "fp32", "--json")
    lines = minigpt("generate", *options, "--prompt-file", "prompts.txt").stdout.splitlines()
    texts = [json.loads(line) for line in lines]
    assert [text["prompt"] for text in texts] == ["The", "The", "My old", "My old", "", ""]
    alone = json.loads(minigpt("generate", *options, "--prompt", "My old").stdout)
    assert texts[2:4] == alone


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "no prompts"), (b"\xff", "not UTF-8 at byte 0")],
)
def test_a_file_without_prompts_is_refused(
    refused: Refused, home: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (home / "prompts.txt").write_bytes(content)
    assert message in refused("generate", *RUN, "--prompt-file", "prompts.txt")


# --- Probabilities ---------------------------------------------------------------------------


def test_probabilities_of_generated_tokens(minigpt: Minigpt) -> None:
    options = (*RUN, "--prompt", "The old", "-n", 8, "-t", 0)
    shown = minigpt("generate", *options, "--show-probabilities", "--json").stdout
    (text,) = json.loads(shown)
    assert "".join(token["text"] for token in text["tokens"]) == text["text"]
    first = json.loads(minigpt("inspect", "next", "The old", "--top", 1, "--json").stdout)
    most_likely = first["choices"][1]["probabilities"][0]
    assert text["tokens"][0]["probability"] == pytest.approx(most_likely, abs=1e-3)
    plain = minigpt("generate", *options)
    assert minigpt("generate", *options, "--show-probabilities").stdout == plain.stdout


# --- Together -------------------------------------------------------------------------------


def test_interactive_continues_the_text_so_far(minigpt: Minigpt, home: Path) -> None:
    lines = "The old\n/temperature 0\n/max-new-tokens 5\n man\n/save text.txt\n"
    result = minigpt("generate", *RUN, "-i", "-n", 10, stdin=lines)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    text = (home / "text.txt").read_text(encoding="utf-8")
    assert text == first + second
    assert first.startswith("The old")
    assert len(first) == 17
    greedy = minigpt("generate", *RUN, "-t", 0, "-n", 5, "-p", f"{first} man").stdout
    assert f"{text}\n" == greedy
    assert f"text.txt: {len(text)} characters" in result.stderr


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_interactive_ends_when_asked_to(minigpt: Minigpt, word: str) -> None:
    result = minigpt("generate", "--interactive", "-n", 3, stdin=f"The\n{word}\n/nonsense\n")
    assert (result.exit_code, "nonsense" in result.stderr) == (0, False)
    assert "/quit" in result.stderr  # the help at the beginning


def test_interactive_counts_an_unknown_character_from_what_was_typed(minigpt: Minigpt) -> None:
    result = minigpt("generate", "--interactive", "-n", 30, stdin="The\nThé\n")
    assert "first at character 3 of the text" in result.stderr


def test_interactive_input_that_is_not_utf8_is_refused(minigpt: Minigpt) -> None:
    result = minigpt("generate", *RUN, "-i", stdin=b"a\xff\n")
    assert result.exit_code == 1
    assert "error: stdin: not UTF-8" in result.stderr


@pytest.mark.parametrize("piece", ["x", "\0", "\\\n"], ids=["letters", "zeros", "continued lines"])
def test_interactive_input_without_end_is_refused(minigpt: Minigpt, piece: str) -> None:
    result = minigpt("generate", *RUN, "-i", stdin=piece * (1 << 21))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: stdin: a turn of over 1,048,576")


def test_interactive_reset_forgets_the_text(minigpt: Minigpt) -> None:
    lines = "The old\n/reset\nMy\n"
    result = minigpt("generate", *RUN, "-i", "-t", 0, "-n", 6, stdin=lines)
    assert result.stdout.endswith(minigpt("generate", *RUN, "-t", 0, "-n", 6, "-p", "My").stdout)


@pytest.mark.parametrize(
    ("line", "message"),
    [("/fly", "/fly: unknown command"), ("/top-k many", "/top-k many: not a whole number"),
     ("/top-k nan", "/top-k nan: not a whole number"), ("/top-p x", "/top-p x: not a number"),
     ("/max-new-tokens 0", "must be 1 or more"), ("/temperature nan", "temperature must be"),
     ("/save \0", "cannot be written"),
     ("/top-k 0", "top_k must be >= 1"), ("/save", "no file name"),
     ("/save no/such/folder", "cannot be written"), ("The ☃", "U+2603")],
)  # fmt: skip
def test_interactive_errors_are_reported_and_the_session_continues(
    minigpt: Minigpt, line: str, message: str
) -> None:
    result = minigpt("generate", *RUN, "-i", "-n", 4, stdin=f"{line}\nMy\n")
    assert result.exit_code == 0
    assert sum(text.startswith("error: ") for text in result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert "My" in result.stdout


def test_int8_writes_text_and_says_nothing_else(minigpt: Minigpt) -> None:
    result = minigpt("generate", *RUN, "-n", 20, "-t", 0, "--quantize", "int8")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout) == 21


def test_ctrl_c_ends_with_what_is_there(home: Path) -> None:
    command = [sys.executable, "-m", "minigpt_cli", "generate", *RUN, "-n", "10000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writing:
        assert writing.stdout
        assert writing.stderr
        begun = writing.stdout.read(20)
        writing.send_signal(signal.SIGINT)
        rest, said = writing.stdout.read(), writing.stderr.read()
    assert writing.returncode == 130
    assert said == b""
    assert len(begun) == 20
    assert rest.endswith(b"\n")


def test_interactive_ctrl_c_stops_the_answer_and_not_the_program(home: Path) -> None:
    command = [sys.executable, "-m", "minigpt_cli", "generate", *RUN, "-i", "-n", "10000000"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as writing:
        assert writing.stdin
        assert writing.stdout
        writing.stdin.write(b"My\n")
        writing.stdin.flush()
        begun = writing.stdout.read(30)
        writing.send_signal(signal.SIGINT)
        writing.stdin.write(b"/save text.txt\n")
        writing.stdin.close()
        rest = writing.stdout.read()
    assert writing.returncode == 0
    assert (home / "text.txt").read_bytes() + b"\n" == begun + rest


def test_prompt_words_outside_the_vocabulary_are_counted(minigpt: Minigpt, home: Path) -> None:
    words = ["--data", "story.txt", "--tokenizer", "word", "--out", "words", "--device", "cpu"]
    assert minigpt("train", "--preset", "tiny", *words, "--max-iters", 2).exit_code == 0
    options = ["-n", 5, "--checkpoint", "words"]
    assert (
        "2 words that are not in the model's vocabulary"
        in minigpt("generate", "--prompt", "zz qq", *options).stderr
    )
    assert "vocabulary" not in minigpt("generate", "--prompt", "The", *options).stderr
