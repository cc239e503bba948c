"""All of the output is written or the exit status is not 0, whatever the streams are."""

import errno
import os
import re
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.programs import on_a_terminal
from tests.helpers.tiny_checkpoint import tiny_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs descriptors")

FULL = Path("/dev/full")
UNBUFFERED = [pytest.param({}, marks=pytest.mark.slow), {"PYTHONUNBUFFERED": "1"}]
COMMANDS = [
    ["--help"],
    ["--version"],
    ["train", "--list-presets", "--json"],
    ["inspect", "model", "--json"],
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of characters beyond ASCII; not to change."""
    folder = tmp_path_factory.mktemp("streams")
    tiny_checkpoint(folder / "model", text="天é\n")
    return folder


def started(
    home: Path, arguments: list[str], env: dict[str, str] | None = None, **options: object
) -> "subprocess.Popen[bytes]":
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", "minigpt_cli", *arguments],
        **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options},
        cwd=home,
        env={**os.environ, **(env or {})},
    )  # type: ignore[call-overload]
    return process


def written(home: Path, arguments: list[str]) -> bytes:
    process = started(home, arguments, stdout=subprocess.PIPE)
    output: bytes = process.communicate()[0]
    assert process.returncode == 0
    return output


@pytest.mark.skipif(not FULL.exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("env", UNBUFFERED, ids=str)
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_full_disk_is_one_line_and_exit_code_1(
    home: Path, arguments: list[str], env: dict[str, str]
) -> None:
    with FULL.open("wb") as full:
        process = started(home, arguments, env, stdout=full)
        said = process.communicate()[1].decode()
    assert process.returncode == 1
    assert said == (
        f"error: cannot write the output ({os.strerror(errno.ENOSPC)}); send it elsewhere or free "
        "some space\n"
    )


@pytest.mark.parametrize("env", UNBUFFERED, ids=str)
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("closed", "code"), [(0, 0), (1, 1), (2, 0)])
def test_closed_stream_is_one_line_or_silence(
    home: Path, arguments: list[str], env: dict[str, str], closed: int, code: int
) -> None:
    process = started(
        home, arguments, env, stdout=subprocess.PIPE, preexec_fn=partial(os.close, closed)
    )
    output, said = process.communicate()
    assert process.returncode == code, said
    assert said.count(b"\n") == (closed == 1), said
    assert bool(output) == (closed != 1)


def test_a_file_never_takes_the_number_of_a_closed_stream(home: Path) -> None:
    program = """
        import os, sys
        from minigpt_cli.cli import streams
        streams.set_up()
        with open("model", "rb") as file:
            print(file.fileno() > 2, sys.stdin.fileno(), file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        stderr=subprocess.PIPE, cwd=home, preexec_fn=partial(os.closerange, 0, 2),
    )  # fmt: skip
    assert done.stderr.startswith(b"True 0\n"), done.stderr


@pytest.mark.parametrize("option", [["-p", "-"], ["--interactive"]], ids=str)
def test_prompt_from_a_closed_stdin_is_refused(home: Path, option: list[str]) -> None:
    process = started(
        home, ["generate", "-c", "model", *option], stdout=subprocess.PIPE,
        preexec_fn=partial(os.close, 0),
    )  # fmt: skip
    output, said = process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert said.splitlines()[-1].startswith(b"error: stdin: cannot be read (")


@pytest.mark.parametrize("env", UNBUFFERED, ids=str)
@pytest.mark.parametrize("blocking", [True, False])
def test_slow_reader_gets_everything(home: Path, env: dict[str, str], blocking: bool) -> None:
    arguments = ["inspect", "model", "--json"]
    expected = written(home, arguments)
    program = f"""
        import sys
        from minigpt_cli.cli import streams
        streams.set_up()
        sys.stdout.write({"x" * 200!r} * 2000)
        sys.argv = ["minigpt", *{arguments!r}]
        from minigpt_cli.__main__ import main
        main()
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=writing, cwd=home, env={**os.environ, **env},
    )  # fmt: skip
    os.close(writing)
    got = b""
    while piece := os.read(reading, 30_000):
        got += piece
        time.sleep(0.01)
    os.close(reading)
    assert process.wait() == 0
    assert got == b"x" * 400_000 + expected


ENCODINGS = [
    "ascii",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("cp1252", "cp437:replace", "utf-16")),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_pipes_and_files_get_utf8_whatever_the_encoding_of_the_terminal(
    home: Path, encoding: str, tmp_path: Path
) -> None:
    for extra in ([], ["--json"]):
        arguments = ["generate", "-c", "model", "-p", "天é", "-n", "9", *extra]
        with (tmp_path / "out").open("wb") as file:
            process = started(home, arguments, {"PYTHONIOENCODING": encoding}, stdout=file)
            assert process.communicate()[1] == b""
        assert process.returncode == 0
        text = (tmp_path / "out").read_text("utf-8")
        assert "天é" in text
        assert "?" not in text


def test_console_that_cannot_show_a_character_is_told_once(home: Path) -> None:
    arguments = ["generate", "-c", "model", "-p", "天天é", "-n", "30"]
    code, output = on_a_terminal(
        *arguments[:2], str(home / "model"), *arguments[3:], PYTHONIOENCODING="ascii"
    )
    assert code == 0
    assert b"???" in output
    assert output.count(b"encoding (ascii) cannot show some characters") == 1
    code, output = on_a_terminal(
        "generate", "-c", str(home / "model"), "-p", "天", "--json", "-n", "5",
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert code == 0
    assert rb"\u5929" in output
    assert b"cannot show" not in output


def test_messages_are_in_english_where_a_terminal_cannot_show_the_users_language() -> None:
    for encoding, error in (("ascii", "nowhere: no such"), ("utf-8", "nowhere：没有")):
        environment = {"MINIGPT_LANG": "zh_CN", "PYTHONIOENCODING": encoding}
        code, output = on_a_terminal("eval", "nowhere", **environment)
        assert code == 1
        assert error in output.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "-c", "model", "-p", "X"],
        ["generate", "-c", "model", "--stop", "X"],
        ["inspect", "next", "X", "-c", "model"],
        ["inspect", "attention", "X", "-c", "model"],
        ["inspect", "shapes", "X", "-c", "model"],
        ["tokenize", "model", "--text", "X"],
    ],
    ids=" ".join,
)
def test_typed_text_in_another_encoding_is_refused(home: Path, arguments: list[str]) -> None:
    typed: list[str] = [os.fsdecode("é".encode("latin-1")) if a == "X" else a for a in arguments]
    process = started(home, typed, stdout=subprocess.PIPE)
    output, said = process.communicate()
    assert (process.returncode, output) == (2, b""), said
    assert "not utf-8; convert the text" in re.sub(r"[│\s]+", " ", said.decode())


def test_terminal_that_is_gone_does_not_end_a_command(home: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = started(home, ["inspect", "model"], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    assert process.communicate()[0]
    assert process.returncode == 0
