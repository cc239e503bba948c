"""The library is built once, trusted only if nobody else can write it, and never in the way.

Most tests have a compiler of their own: a script that counts its calls and copies a small library
or misbehaves. The suite itself uses the developer's real cache, as `conftest.py` says.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minigpt_cli.native import library as module
from minigpt_cli.native.library import COMPILER, library

pytestmark = pytest.mark.skipif(os.name != "posix", reason="builds on POSIX systems only")
SCRIPT = "import minigpt_cli.native.library as m; print(m.library() is not None)"

FakeCompiler = Callable[[str], Path]
"""Makes a compiler from the lines of a shell script, in which `$out` is the file to write."""


@pytest.fixture(scope="session")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small library, made by the real compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("answer")
    (folder / "answer.c").write_text("int answer(void) { return 42; }\n")
    command = [compiler, "-shared", "-fPIC", "-o", "answer.so", "answer.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "answer.so"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for caches; the library is looked for again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    library.cache_clear()
    yield tmp_path / "caches"
    library.cache_clear()


@pytest.fixture
def fake(tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    assert not caches.exists()

    def make(script: str) -> Path:
        compiler = tmp_path / "fake-cc"
        count, find = f'echo called >> "{tmp_path}/calls"', 'while [ "$1" != -o ]; do shift; done'
        compiler.write_text(f'#!/bin/sh\n{count}\n{find}\nout="$2"\n{script}\n')
        compiler.chmod(0o755)
        monkeypatch.setenv(COMPILER, str(compiler))
        return compiler

    return make


def calls(tmp_path: Path) -> int:
    path = tmp_path / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def loaded_again() -> ctypes.CDLL | None:
    library.cache_clear()
    return library()


def kept(caches: Path) -> list[str]:
    return sorted(path.name for path in (caches / "minigpt").iterdir())


@pytest.mark.parametrize("name", ["", "no-such-compiler", "/no/such/compiler"])
def test_without_a_compiler_there_is_no_library(
    caches: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(COMPILER, name)
    assert library() is None
    assert not caches.exists()


def test_the_current_folder_s_compiler_is_not_run(
    fake: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("exit 1").rename(tmp_path / "cc")
    monkeypatch.delenv(COMPILER)
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert library() is None
    assert calls(tmp_path) == 0


def test_it_is_built_once_and_found_afterwards(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path
) -> None:
    fake(f'cp "{answer}" "$out"')
    for _ in range(3):
        found = loaded_again()
        assert found is not None
        assert found.answer() == 42
    assert calls(tmp_path) == 1
    (only,) = (caches / "minigpt").iterdir()
    assert only.suffix == ".so"
    assert (caches / "minigpt").stat().st_mode & 0o777 == 0o700


def test_a_compiler_that_fails_is_not_started_again_the_same_day(
    fake: FakeCompiler, caches: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake("echo 'cannot find -lm' >&2; exit 1")
    assert loaded_again() is None
    attempts = calls(tmp_path)
    assert attempts > 1  # with other flags
    assert loaded_again() is None
    assert calls(tmp_path) == attempts
    assert capfd.readouterr() == ("", "")
    (failed,) = (caches / "minigpt").iterdir()
    yesterday = time.time() - 90_000
    os.utime(failed, (yesterday, yesterday))
    assert loaded_again() is None
    assert calls(tmp_path) == 2 * attempts


def test_a_compiler_that_hangs_is_given_up_with_what_it_started(
    fake: FakeCompiler, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_BUILD", 0.5)
    fake(f'sleep 1000 & echo $! > "{tmp_path}/child"; wait')
    assert loaded_again() is None
    assert loaded_again() is None
    assert calls(tmp_path) == 1
    assert [name.endswith("-failed") for name in kept(caches)] == [True]
    assert has_ended(int((tmp_path / "child").read_text()))


def has_ended(process: int) -> bool:
    for _ in range(100):
        state = subprocess.run(
            ["ps", "-o", "state=", "-p", str(process)], capture_output=True, text=True, check=False
        ).stdout.strip()
        if state in ("", "Z"):  # nobody may be there to reap it
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("damage", [b"", b"not a library", None], ids=["empty", "other", "cut"])
def test_a_damaged_library_is_built_again(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path, damage: bytes | None
) -> None:
    fake(f'cp "{answer}" "$out"')
    assert loaded_again() is not None
    (built,) = (caches / "minigpt").iterdir()
    whole = built.read_bytes()
    built.unlink()  # it is mapped into this process
    built.write_bytes(whole[:5000] if damage is None else damage)
    assert loaded_again() is not None
    assert calls(tmp_path) == 2
    assert built.read_bytes() == whole


def test_a_compiler_that_writes_something_else_makes_no_library(
    fake: FakeCompiler, tmp_path: Path
) -> None:
    fake('echo hello > "$out"')
    assert loaded_again() is None
    assert loaded_again() is None
    assert calls(tmp_path) == 1


def test_another_source_or_compiler_is_another_library(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = fake(f'cp "{answer}" "$out"')
    assert loaded_again() is not None
    monkeypatch.setenv(COMPILER, str(compiler.rename(tmp_path / "other-cc")))
    assert loaded_again() is not None
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "step.c").write_text("int changed;\n")
    monkeypatch.setattr(module, "_FOLDER", sources)
    assert loaded_again() is not None
    assert len(kept(caches)) == 3


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_not_trusted(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path, mode: int
) -> None:
    fake(f'cp "{answer}" "$out"')
    (caches / "minigpt").mkdir(parents=True)
    (caches / "minigpt").chmod(mode)
    assert library() is None
    assert calls(tmp_path) == 0


def test_a_library_that_others_can_write_to_is_not_loaded(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path
) -> None:
    fake(f'cp "{answer}" "$out"')
    assert loaded_again() is not None
    (built,) = (caches / "minigpt").iterdir()
    built.chmod(0o666)
    assert loaded_again() is not None
    assert calls(tmp_path) == 2
    assert built.stat().st_mode & 0o022 == 0


def test_somebody_else_s_folder_is_not_trusted(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(f'cp "{answer}" "$out"')
    (caches / "minigpt").mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert library() is None
    assert calls(tmp_path) == 0


@pytest.mark.usefixtures("unprivileged")
def test_a_cache_that_cannot_be_written_is_left_alone(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path
) -> None:
    fake(f'cp "{answer}" "$out"')
    caches.mkdir(mode=0o500)
    assert library() is None
    assert calls(tmp_path) == 0


def test_no_home_is_made(
    fake: FakeCompiler, answer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(f'cp "{answer}" "$out"')
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    assert library() is None
    assert not (tmp_path / "nobody").exists()

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert loaded_again() is None


def test_a_relative_cache_is_in_the_home_instead(
    fake: FakeCompiler, answer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(f'cp "{answer}" "$out"')
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.chdir(tmp_path)
    assert library() is not None
    assert not (tmp_path / "here").exists()
    assert len(kept(tmp_path / "home" / ".cache")) == 1


def test_two_processes_that_build_at_once_both_get_the_library(
    fake: FakeCompiler, answer: Path, caches: Path, tmp_path: Path
) -> None:
    # Each goes on when the other has begun too.
    wait = f'while [ $(wc -l < "{tmp_path}/calls") -lt 2 ]; do sleep 0.01; done'
    fake(f'{wait}; cp "{answer}" "$out"')
    command = [sys.executable, "-c", SCRIPT]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [each.communicate(timeout=60)[0] for each in both] == ["True\n"] * 2
    assert len(kept(caches)) == 1


def test_ctrl_c_while_building_leaves_nothing_behind(
    fake: FakeCompiler, caches: Path, tmp_path: Path
) -> None:
    fake(f'echo half > "$out"; echo $$ > "{tmp_path}/child"; exec sleep 1000')
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=subprocess.DEVNULL)
    child = tmp_path / "child"
    while not (child.exists() and child.read_text().strip()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert kept(caches) == []
    assert has_ended(int(child.read_text()))


def test_what_a_killed_build_left_is_removed_a_day_later(
    fake: FakeCompiler, answer: Path, caches: Path
) -> None:
    fake(f'cp "{answer}" "$out"')
    for name, days in (("build-old", 2), ("build-new", 0)):
        (caches / "minigpt" / name).mkdir(parents=True, mode=0o700)
        (caches / "minigpt" / name / "made.so").touch()
        then = time.time() - days * 86_400
        os.utime(caches / "minigpt" / name, (then, then))
    (caches / "minigpt").chmod(0o700)
    assert library() is not None
    assert [name for name in kept(caches) if name.startswith("build")] == ["build-new"]


def test_a_user_without_any_environment_gets_the_library(tmp_path: Path) -> None:
    if shutil.which("cc", path="/usr/bin:/bin") is None:
        pytest.skip("needs a C compiler")
    # The home is that of the user's account, where the suite's library is kept.
    program = "from pathlib import Path; Path.home().stat(); " + SCRIPT
    done = subprocess.run(
        ["env", "-i", "PATH=/usr/bin:/bin", sys.executable, "-c", program],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("compiler", ["", "exit 1"])
def test_generating_works_without_the_library(
    fake: FakeCompiler, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    import torch

    from minigpt_cli.config.schema import ModernConfig
    from minigpt_cli.generation.compiled import decoder_for
    from minigpt_cli.generation.decoder import Decoder
    from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
    from minigpt_cli.model.gpt import GPT

    if compiler:
        fake(compiler)
    else:
        monkeypatch.setenv(COMPILER, "")
    torch.manual_seed(0)
    model = GPT(ModernConfig(n_layer=1, n_head=2, n_embd=16, block_size=8), 11).initialize()
    assert type(decoder_for(model)) is Decoder
    assert len([*generate_tokens(model, GenerationRequest([[1]], 12))]) == 12
