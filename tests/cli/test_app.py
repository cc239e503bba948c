"""The program as a whole: help, user errors, interruptions, and output streams."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt_cli.config.presets import preset_names
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Program, Refused
from tests.helpers.programs import on_a_terminal

COMMANDS = ["tokenize", "train", "generate", "eval", "inspect", "export"]
FILE = Path("runs/tiny/checkpoint.safetensors")
TINY = ("train", "--preset", "tiny", "--data", "story.txt", "--device", "cpu")
posix = pytest.mark.skipif(os.name != "posix", reason="needs signals, pipes and terminals")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example_and_imports_no_torch(program: Program, command: str) -> None:
    result = program(*command.split(), "--help", python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "minigpt_cli.cli.app" in imported
    assert not imported & {"torch", "numpy", "tokenizers", "safetensors"}
    assert command or "pydantic" not in imported  # for a command's options Typer needs it
    assert result.returncode == 0
    assert re.search(rf"(Examples:|Start with:)\s+minigpt {command or 'train'}", result.stdout)
    assert "\x1b" not in result.stdout


def test_help_lists_the_commands_in_their_panels(minigpt: Minigpt) -> None:
    text = minigpt("--help").stdout
    make, use = text.index("Make a model"), text.index("Use a model")
    assert all(make < text.index(f" {name} ") < use for name in ("tokenize", "train"))
    assert all(text.index(f" {name} ", use) > use for name in ("generate", "eval", "inspect"))


def test_no_arguments_show_the_help(minigpt: Minigpt) -> None:
    assert "Usage: minigpt" in minigpt().output


def test_version_is_that_of_the_project(program: Program) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    result = program("--version")
    assert result.stdout == f"minigpt {project['project']['version']}\n"


def test_both_names_are_the_same_program(program: Program) -> None:
    script = Path(sys.executable).with_name("minigpt")
    if not script.exists():
        pytest.skip("the package is not installed beside this interpreter")
    by_script = subprocess.run([script, "--help"], capture_output=True, encoding="utf-8")
    assert by_script.stdout == program("--help").stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("minigpt train --preset ", [*preset_names(), "auto"]),
        ("minigpt train --preset na", ["nanogpt"]),
        ("minigpt ge", ["generate"]),
        ("minigpt train --grad", []),
        ("minigpt train --learn", ["--learning-rate"]),
    ],
)
def test_shell_completion_offers(program: Program, typed: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    result = program(_MINIGPT_COMPLETE="complete_bash", **words)
    assert result.stdout.split() == offered


def test_unknown_command_and_option_are_usage_errors(minigpt: Minigpt) -> None:
    for arguments in (["trian"], ["train", "--presett", "tiny"], ["generate", "-n", "x"]):
        result = minigpt(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
    assert "train" in minigpt("trian").stderr


def damaged(change: Callable[[bytes], bytes]) -> None:
    FILE.write_bytes(change(FILE.read_bytes()))


USER_ERRORS: list[tuple[tuple[object, ...], str]] = [
    ((*TINY, "--preset", "smal"), "unknown preset smal; did you mean small?"),
    ((*TINY, "--preset", "none.toml"), "none.toml: no such file"),
    ((*TINY, "--preset", "runs/"), "runs: cannot be read"),
    ((*TINY, "--preset", "odd.toml"), "odd.toml: "),
    ((*TINY, "--preset", "broken.toml"), "broken.toml: not valid TOML: "),
    ((*TINY, "--set", "model.n_head=5"), "model.n_head = 5 does not divide model.n_embd = 32; try"),
    ((*TINY, "--set", "model.n_layers=5"), "unknown setting model.n_layers; did you mean n_layer?"),
    ((*TINY, "--max-iters", 0), "train.max_iters = 0: must be greater than 0"),
    ((*TINY, "--learning-rate", "nan"), "optimizer.learning_rate = "),
    ((*TINY, "--device", "gpu"), "unknown device gpu; use auto, cpu"),
    ((*TINY, "--data", "none.txt"), "none.txt: no such file or folder in "),
    ((*TINY[:3], "--data", "empty.txt"), "empty.txt: the text has 0 characters and needs"),
    ((*TINY[:3], "--data", "short.txt"), "the training text has 9 tokens and block_size = 32"),
    ((*TINY, "--set", "data.val_fraction=0.0001"), "story: the validation text has 1 tokens and"),
    ((*TINY[:3], "--data", "latin.txt"), "latin.txt: not utf-8: byte 3 (0xe9)"),
    ((*TINY[:3], "--data", "folder"), "folder: no text files (.txt, .md, "),
    ((*TINY, "--out", "story.txt/run"), "story.txt/run: cannot be created"),
    (("train", "--resume", "folder"), "folder: nothing to resume"),
    (("tokenize", "none.txt"), "none.txt: no such file or folder in "),
    (("eval", "none"), "none: no such file; create one with minigpt train"),
    (("generate", "-c", "story.txt"), "story.txt: not a safetensors file"),
    (("generate", "-c", "folder"), "folder/checkpoint.safetensors: no such file"),
    (("inspect", "story.txt"), "story.txt: not a safetensors file"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), USER_ERRORS)
def test_user_error_is_one_line_and_leaves_nothing_behind(
    refused: Refused, home: Path, arguments: tuple[object, ...], message: str
) -> None:
    (home / "odd.toml").write_text("[model]\nn_layer = 'three'\nwidth = 3\n[trian]\n")
    (home / "broken.toml").write_text("[model\n")
    (home / "empty.txt").touch()
    (home / "short.txt").write_text("only a few")
    (home / "latin.txt").write_bytes("café".encode("latin-1"))
    (home / "folder").mkdir()
    before = {path: path.read_bytes() for path in (home / "runs").rglob("*.*") if path.is_file()}
    assert refused(*arguments).startswith(message)
    after = {path: path.read_bytes() for path in (home / "runs").rglob("*") if path.is_file()}
    assert after == before
    assert [path.name for path in (home / "runs").iterdir()] == ["tiny"]
    assert not list(home.rglob(".*"))


def test_all_problems_of_a_preset_are_reported_at_once(refused: Refused, home: Path) -> None:
    (home / "odd.toml").write_text("[model]\nn_layer = 'three'\nwidth = 3\n[trian]\n")
    message = refused(*TINY, "--preset", "odd.toml")
    for part in ('model.n_layer = "three"', "unknown setting model.width", "did you mean train?"):
        assert part in message


@pytest.mark.parametrize("command", [("generate", "-c"), ("eval",), ("inspect",)])
def test_truncated_checkpoint_is_rejected(refused: Refused, command: tuple[str, ...]) -> None:
    damaged(lambda content: content[:-100])
    assert refused(*command, FILE).startswith(
        f"{FILE}: not a safetensors file: its header is damaged"
    )


@pytest.mark.parametrize("command", [("generate", "-c"), ("eval",)])
def test_corrupted_checkpoint_is_rejected(refused: Refused, command: tuple[str, ...]) -> None:
    damaged(lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    assert refused(*command, FILE).startswith(f"{FILE}: damaged: ")


def test_corrupted_state_is_rejected(refused: Refused) -> None:
    state = Path("runs/tiny/state.safetensors")
    content = state.read_bytes()
    state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert refused("train", "--resume").startswith(f"{state}: damaged: ")


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.parametrize(
    ("closed", "arguments"),
    [
        ("story.txt", (*TINY, "--out", "out")),
        ("story.txt", ("tokenize", "story.txt")),
        ("shut", (*TINY, "--out", "shut/run")),
        ("shut", (*TINY, "--data-dir", "shut")),
        ("shut", ("tokenize", "story.txt", "--data-dir", "shut/d")),
        ("shut", ("inspect", "shut/checkpoint.safetensors")),
        ("shut", ("generate", "-c", "shut/run")),
        ("runs/tiny/checkpoint.safetensors", ("eval", "runs/tiny")),
        ("runs/tiny/state.safetensors", ("train", "--resume")),
        ("runs/tiny", ("train", "--resume", "runs/tiny")),
    ],
)
def test_missing_permission_is_a_user_error(
    refused: Refused, home: Path, closed: str, arguments: tuple[object, ...]
) -> None:
    (home / "shut").mkdir()
    mode = (home / closed).stat().st_mode
    (home / closed).chmod(0)
    try:
        message = refused(*arguments)
    finally:
        (home / closed).chmod(mode)
    assert closed in message
    assert "Permission denied" in message


@posix
@pytest.mark.parametrize("arguments", [TINY, ("tokenize", "story.txt", "--val-fraction", 0.5)])
def test_full_disk_is_a_user_error_and_harms_no_run(
    minigpt: Minigpt, home: Path, arguments: tuple[object, ...]
) -> None:
    import resource

    before = {path: path.read_bytes() for path in (home / "runs").rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file may be longer
    try:
        result = minigpt(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert os.strerror(errno.EFBIG) in last
    assert "free some space" in last
    assert before == {path: path.read_bytes() for path in before}
    assert not list(home.rglob(".*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("arguments", [("generate", "-n", "5"), ("inspect",), ("eval", "--json")])
def test_output_to_a_full_disk_is_a_user_error(home: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "minigpt_cli", *arguments],
            stdout=full, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    full_disk = os.strerror(errno.ENOSPC)
    assert lines[1:] == [
        f"error: cannot write the output ({full_disk}); send it elsewhere or free some space"
    ]


@posix
@pytest.mark.parametrize(
    "arguments", [("generate", "-n", "2000"), ("inspect", "--json"), ("train", "--list-presets")]
)
def test_closed_pipe_ends_the_program_quietly(home: Path, arguments: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt_cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    if arguments[0] == "generate":
        assert process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 1)
    assert said in ("", f"Using {FILE}\n")


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_training_saves_and_the_printed_command_resumes_it(
    home: Path, minigpt: Minigpt, number: signal.Signals, code: int
) -> None:
    options = ["--max-iters", "1000000", "--set", "train.eval_interval=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt_cli", *TINY, *options, "--out", "my run"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    while not Path("my run/metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)  # until the first step is done
    process.send_signal(number)
    said, told = process.communicate()[::-1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    stopped = re.search(r"Stopped at step ([\d,]+) and saved", said)
    assert stopped is not None
    step = int(stopped[1].replace(",", ""))
    assert load_checkpoint(Path("my run/checkpoint.safetensors")).metadata.step == step
    assert "my run/checkpoint.safetensors" in told

    command = re.search(r"^  (minigpt train --resume .*)$", said, re.MULTILINE)
    assert command is not None
    resumed = minigpt(*shlex.split(command[1])[1:], "--max-iters", step + 2)
    assert resumed.exit_code == 0, resumed.output
    assert f"Resuming my run at step {step:,}\n" in resumed.stderr
    assert load_checkpoint(Path("my run/checkpoint.safetensors")).metadata.step == step + 2


@posix
def test_interrupted_generation_ends_without_a_traceback(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt_cli", "generate", "-n", "1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert said == f"Using {FILE}\n"


def shown_on_a_terminal(*arguments: str, **env: str) -> str:
    code, output = on_a_terminal(*arguments, **env)
    assert code == 0
    return output.decode()


COLOR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10[0-7])[;m]")


@posix
def test_terminal_gets_color_unless_no_color_is_set(home: Path) -> None:
    command = ["tokenize", "story.txt", "--text", "The tide"]
    assert COLOR.search(shown_on_a_terminal(*command))
    assert not COLOR.search(shown_on_a_terminal(*command, NO_COLOR="1"))


@posix
def test_training_shows_its_progress_on_a_terminal_only(home: Path, minigpt: Minigpt) -> None:
    short = [*TINY, "--max-iters", "3"]
    assert re.search(r"step \d/3", shown_on_a_terminal(*short))
    assert not re.search(r"step \d/3", minigpt(*short).output)


@posix
def test_text_cannot_control_the_terminal(home: Path) -> None:
    text = "\x1b[2J\x1b]0;mine\x07 "
    Path("odd.txt").write_text(text * 40)
    shown = shown_on_a_terminal("tokenize", "odd.txt", "--text", text)
    assert "\x1b[2J" not in shown
    assert "\x1b]0;" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        (*TINY, "--max-iters", 3),
        (*TINY, "--max-iters", 3, "--dry-run"),
        ("train", "--list-presets"),
        ("tokenize", "story.txt", "--compare", "--text", "The tide"),
        ("eval",),
        ("inspect", "--tensors"),
        ("generate", "-n", 5, "--num-samples", 2),
    ],
)
def test_no_escape_codes_are_written_outside_a_terminal(
    minigpt: Minigpt, arguments: tuple[object, ...]
) -> None:
    result = minigpt(*arguments)
    assert result.exit_code == 0
    assert result.stdout
    assert "\x1b" not in result.output
    assert "\r" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        (*TINY, "--max-iters", 3),
        (*TINY, "--max-iters", 3, "--dry-run"),
        ("train", "--list-presets"),
        ("tokenize", "story.txt"),
        ("tokenize", "story.txt", "--compare", "--text", "The tide"),
        ("eval", "runs/tiny", "runs/tiny"),
        ("inspect",),
        ("generate", "-n", 5, "--num-samples", 2),
    ],
)
def test_stdout_is_nothing_but_json(minigpt: Minigpt, arguments: tuple[object, ...]) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    result = minigpt(*arguments, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout, parse_constant=no_constant)


def test_click_is_not_imported_by_name() -> None:
    package = Path(__file__).parents[2] / "minigpt_cli"
    for path in package.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) click\b", path.read_text("utf-8"), re.MULTILINE)


@pytest.mark.slow
@posix
@pytest.mark.parametrize("where", ["/dev/full", "closed pipe"])
def test_training_continues_when_stderr_cannot_be_written(home: Path, where: str) -> None:
    command = [sys.executable, "-m", "minigpt_cli", *TINY, "--out", "out", "--max-iters", "20"]
    options = ["--set", "train.eval_interval=5"]
    if where == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
    elif not Path(where).exists():
        pytest.skip("needs the device that is always full")
    else:
        writing = os.open(where, os.O_WRONLY)
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    assert done.returncode == 0
    assert load_checkpoint(Path("out/checkpoint.safetensors")).metadata.step == 20


def test_resume_command_includes_another_data_folder(minigpt: Minigpt, home: Path) -> None:
    options = ["--data-dir", "my texts", "--out", "out", "--max-iters", 2]
    said = minigpt(*TINY, *options).stderr
    assert "minigpt eval out --data-dir 'my texts'" in said


@posix
def test_signal_ignored_by_the_shell_stays_ignored(home: Path) -> None:
    program = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    program += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    options = ["--out", "out", "--max-iters", "1000000", "--set", "train.eval_interval=100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-m", "minigpt_cli", *TINY, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not Path("out/state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
