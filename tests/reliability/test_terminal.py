"""No content of a file controls the terminal, whichever command shows it."""

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.cli.console import printable
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import generate
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.tiny_checkpoint import forged, tiny_checkpoint

# A title, a cleared screen, the same with one byte, colors, bells and steps back.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b2J\x1b[31mred\b\b\x7f\x0e\x0b\x00[bold]"
NAME = HOSTILE.replace("\x00", "")  # no file's name has that one
TEXT = (HOSTILE + "ab ba\n") * 30

# What the program itself sends: colors, and a bar that is drawn again in its place.
OWN = re.compile(r"\x1b\[[0-9;]*m|\r|\x1b\[2K|\x1b\[1A|\x1b\[\?25[lh]")


def driven(text: str) -> list[str]:
    """Control sequences other than the program's own."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f]", OWN.sub("", text))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hostile files of every kind; not to change."""
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "checkpoint.safetensors"
    whole = tiny_checkpoint(file, text=TEXT)
    data = {"corpus": [HOSTILE], "tokenizer": "char"}
    facts = {"version": HOSTILE, "corpus": HOSTILE, "fingerprint": HOSTILE, "data": data}
    file.write_bytes(forged(whole, **facts))
    tensors = {f"{HOSTILE}{i}": torch.zeros(2) for i in range(2)}
    save_file(tensors, folder / "foreign", {HOSTILE: HOSTILE})
    (folder / f"{NAME}.txt").write_text(TEXT.replace("\x00", ""))  # which no text file has
    (folder / "state.safetensors").write_bytes(file.read_bytes())
    (folder / "config.toml").touch()
    return folder


@pytest.fixture
def shown(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> object:
    """Runs a command in a terminal; returns what the terminal receives and the exit code."""

    def run(*command: str, stdin: str = "") -> tuple[str, int]:
        monkeypatch.chdir(shared)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            code = app(list(command), standalone_mode=False)
        except SystemExit as exit:
            code = exit.code
        output = capsys.readouterr()
        return output.out + output.err, code or 0

    return run


CHECKPOINT = ["--checkpoint", "checkpoint.safetensors"]


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        (["inspect", "checkpoint.safetensors"], 0, r"\x1b]0;owned\x07"),
        (["inspect", "checkpoint.safetensors", "--tensors"], 0, r"\x1b]0;owned\x07"),
        (["inspect", "checkpoint.safetensors", "--json"], 0, r"\u001b]0;owned\u0007"),
        (["inspect", "foreign"], 0, r"\x1b]0;owned\x07"),
        (["inspect", "foreign", "--json"], 0, r"\u009b2J"),
        (["inspect", NAME], 1, r"\x1b]0;owned\x07"),
        (["eval", "checkpoint.safetensors"], 1, r"\x1b]0;owned\x07"),
        (["eval", "checkpoint.safetensors", "--data", f"{NAME}.txt"], 0, r"\x1b]0;owned\x07"),
        (["eval", "checkpoint.safetensors", "--data", f"{NAME}.txt", "--json"], 0, r"\u009b2J"),
        (["generate", *CHECKPOINT, "-p", HOSTILE, "-n", "200"], 0, r"\x1b]0;owned\x07"),
        (["generate", *CHECKPOINT, "-p", "天"], 1, "天"),
        (["generate", *CHECKPOINT, "--show-probabilities", "-n", "200"], 0, r"\x1b"),
        (["generate", *CHECKPOINT, "--num-samples", "2", "-n", "200"], 0, r"\x1b"),
        (["generate", *CHECKPOINT, "--json", "-n", "200"], 0, r"\u009b"),
        (["generate", *CHECKPOINT, "--json", "--show-probabilities", "-n", "99"], 0, r"\u009b"),
        (["inspect", "next", HOSTILE, *CHECKPOINT, "--top", "99"], 0, r"\x9b2J"),
        (["inspect", "next", HOSTILE, *CHECKPOINT, "--top", "99", "--json"], 0, r"\u009b"),
        (["generate", *CHECKPOINT, "--interactive", "-n", "200"], 0, r"\x1b"),
        (["tokenize", f"{NAME}.txt", "--data-dir", "d"], 0, r"\x1b]0;owned\x07"),
        (["tokenize", f"{NAME}.txt", "--data-dir", "d", "--json"], 0, r"\u009b2J"),
        (["tokenize", f"{NAME}.txt", "--data-dir", "d", "--text", NAME], 0, r"\x9b"),
        (["tokenize", f"{NAME}.txt", "--data-dir", "d", "--text", "\x1b\x9d"], 1, r"\x9d"),
        (["tokenize", f"{NAME}.txt", "--data-dir", "d", "--compare", "--text", "\x9d"], 0, r"\x9d"),
        (["train", "--preset", f"{NAME}.toml"], 1, r"\x1b]0;owned\x07"),
        (["train", "--set", f"train.device={HOSTILE}"], 1, r"\x1b]0;owned\x07"),
        (["train", "--resume", "."], 1, "not the state of a run"),
    ],
    ids=lambda value: " ".join(value)[:40].encode("ascii", "backslashreplace").decode()
    if isinstance(value, list)
    else "",
)  # fmt: skip
def test_nothing_drives_the_terminal(
    shown: object, command: list[str], code: int, expected: str
) -> None:
    assert callable(shown)
    text, exit_code = shown(*command, stdin="ab\n\nba\n")
    assert exit_code == code, text
    assert expected in text.replace("\n", "")
    assert not driven(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "x\x1b]0;owned\x07"],
        ["\x1b[2J"],
        ["inspect", "--\x9b2J"],
        ["generate", "-n", "\u202e1\n2"],
        ["inspect", "shapes", "\u2028"],
    ],
    ids=ascii,
)
def test_usage_errors_show_arguments_escaped(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code in (1, 2)
    assert not driven(result.output)
    assert not re.search("[\u2028-\u202e\u2066-\u2069]", result.output)


def test_training_shows_names_and_samples_escaped(shown: object, tmp_path: Path) -> None:
    assert callable(shown)
    sizes = {"model.n_layer": 1, "model.n_embd": 8, "model.n_head": 1, "model.block_size": 8,
             "train.max_iters": 2, "train.eval_interval": 1, "train.precision": "fp32"}  # fmt: skip
    text, code = shown(
        *("train", "--preset", "tiny", "--data", f"{NAME}.txt", "--data-dir", str(tmp_path)),
        *(word for key, value in sizes.items() for word in ("--set", f"{key}={value}")),
        *("--out", str(tmp_path / f"{NAME}run"), "--device", "cpu"),
    )
    assert code == 0
    assert text.count(r"\x1b") > 5
    assert not driven(text)

    Path(f"{NAME}.txt").unlink()
    resume = ("train", "--resume", str(tmp_path / f"{NAME}run"), "--data-dir", str(tmp_path))
    text, code = shown(*resume, "--max-iters", "3")
    assert code == 0, text
    assert "going on with the text as it was prepared" in " ".join(text.split())
    assert not driven(text)


def test_a_pipe_gets_the_text_as_it_is(shared: Path) -> None:
    path = shared / "checkpoint.safetensors"
    found = load_checkpoint(path)
    wanted = "".join(generate(found, HOSTILE, 200, Sampling()))
    command = ["generate", "--checkpoint", str(path), "-p", HOSTILE, "-n", "200"]
    result = CliRunner().invoke(app, [*command, "--precision", "fp32"], catch_exceptions=False)
    assert result.stdout_bytes.decode() == HOSTILE + wanted + "\n"
    assert "\x1b" in wanted


def test_printable_characters_are_printed() -> None:
    assert printable("a\r\x1b\x9b\udc80\té天") == r"a\r\x1b\x9b\udc80" + "\té天"
