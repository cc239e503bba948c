"""No file is ever unpickled: no code does so, and a planted pickle is refused unread."""

import ast
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import minigpt_cli
from minigpt_cli.cli.app import app
from tests.helpers.tiny_checkpoint import tiny_checkpoint

SOURCES = sorted(Path(minigpt_cli.__file__).parent.rglob("*.py"))

# Modules that unpickle or run what they read, and calls that do.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve",
           "yaml", "runpy", "torch.package", "torch.serialization", "pandas"}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load",
         "torch.jit.load", "torch.export.load", "numpy.load", "numpy.save", "yaml.load",
         "numpy.fromregex", "importlib.import_module"}  # fmt: skip


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.random.default_rng` with the module's own name in front; empty for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value, names)):
        return f"{before}.{node.attr}"
    return ""


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Every module and call of the lists above, however it is imported or named."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            found = [dotted(node, names)]
        for name in found:
            parts = name.split(".")
            if name in CALLS or any(".".join(parts[:n]) in MODULES for n in range(1, 9)):
                yield name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_module_of_the_package_unpickles_or_runs_what_it_reads(source: Path) -> None:
    assert not list(forbidden(ast.parse(source.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import torch\ntorch.load('f')",
        "import torch as t\nt.load('f')",
        "from torch import load",
        "from torch import load as read",
        "import numpy as np\nnp.load('f', allow_pickle=True)",
        "def f():\n    import yaml",
        "eval('1')",
        "read = exec",
        "import torch.serialization",
        "from torch.serialization import load",
    ],
)
def test_the_search_finds_each_way_in(code: str) -> None:
    assert list(forbidden(ast.parse(code)))


def test_the_search_lets_good_code_pass() -> None:
    code = "import torch, numpy as np\nmodel.eval()\nmodel.load('f')\nnp.memmap('f')\ntorch.rand(3)"
    assert not list(forbidden(ast.parse(code)))


class Planted:
    """Creates a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def as_pickle(marker: Path) -> bytes:
    return pickle.dumps(Planted(marker))


def as_torch_file(marker: Path) -> bytes:
    """The archive that `torch.save` writes, which contains a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", as_pickle(marker))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def as_metadata(marker: Path) -> bytes:
    """A pickle behind the length of a header, where a safetensors file has its JSON."""
    return len(as_pickle(marker)).to_bytes(8, "little") + as_pickle(marker)


COMMANDS = [
    ["inspect", "runs/stolen"],
    ["inspect", "runs/stolen/checkpoint.safetensors", "--tensors"],
    ["eval", "runs/stolen"],
    ["generate", "--checkpoint", "runs/stolen"],
    ["inspect", "next", "a", "--checkpoint", "runs/stolen"],
    ["generate"],
    ["train", "--resume", "runs/stolen"],
    ["train", "--resume"],
    ["train", "--data", "runs/stolen/checkpoint.safetensors"],
    ["train", "--preset", "runs/stolen/config.toml"],
    ["tokenize", "runs/stolen/checkpoint.safetensors"],
]


@pytest.mark.parametrize("made", [as_pickle, as_torch_file, as_metadata])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_planted_pickle_is_refused_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: object, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    marker, run = tmp_path / "marker", tmp_path / "runs" / "stolen"
    run.mkdir(parents=True)
    assert callable(made)
    for name in ("checkpoint.safetensors", "state.safetensors", "config.toml"):
        (run / name).write_bytes(made(marker))
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.output
    assert not marker.exists()


def test_planted_pickle_would_have_made_its_marker(tmp_path: Path) -> None:
    pickle.loads(as_pickle(tmp_path / "marker"))
    assert (tmp_path / "marker").exists()


def test_nothing_is_unpickled_while_a_good_checkpoint_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    tiny_checkpoint(path)
    (tmp_path / "text.txt").write_text("abba\n" * 20)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", type("", (pickle.Unpickler,), {"load": refuse}))
    text = str(tmp_path / "text.txt")
    for command in (
        ["inspect", str(path)],
        ["eval", str(path), "--data", text],
        ["generate", "--checkpoint", str(path), "--prompt", "ab", "--max-new-tokens", "4"],
        ["tokenize", text, "--kind", "bpe", "--data-dir", str(tmp_path / "data")],
    ):
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
