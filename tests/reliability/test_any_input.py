"""Whatever a command is given, it works or says in one line why not; it never crashes."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.config.loading import load_run_config, parse_override, setting_names
from minigpt_cli.config.schema import RunConfig, toml_value
from minigpt_cli.errors import CheckpointError, ConfigError, MinigptError, TokenizerError
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.tokenizer.factory import tokenizer_from_json, train_tokenizer
from tests.helpers.seeds import seed
from tests.helpers.tiny_checkpoint import CLASSIC, MODERN, forged, parts, signed, tiny_checkpoint

SLOWLY = 20
"""How many times more inputs the slow tests try."""


def hunt(times: int, examples: int, check: Callable[[Any], None], given_by: Any) -> None:
    """Runs a check on many inputs: always the same, or new ones each time in the slow tests."""
    decorated: Any = given(given_by)(check)  # type: ignore[no-untyped-call]
    run = settings(
        max_examples=times * examples,
        derandomize=times == 1,
        suppress_health_check=list(HealthCheck),
    )(decorated)
    if times > 1:
        run = hypothesis.seed(seed())(run)
    run()


twice = pytest.mark.parametrize("times", [1, pytest.param(SLOWLY, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with a text, a preset of a very small run and checkpoints."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.txt").write_text("ab\nba\nabba\n" * 20)
    (folder / "b.txt").write_bytes(b"\xff\xfe+2AA-")
    (folder / "empty.txt").touch()
    (folder / "folder").mkdir()
    (folder / "tiny.toml").write_text(
        "[model]\nn_layer = 1\nn_head = 1\nn_embd = 4\nblock_size = 4\n"
        "[train]\nmax_iters = 2\nbatch_size = 2\neval_interval = 1\nsample_tokens = 4\n"
    )
    tiny_checkpoint(folder / "good.safetensors")
    tiny_checkpoint(folder / "word.safetensors", CLASSIC, "word")
    (folder / "bad.safetensors").write_bytes(b"\x80\x04.")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


# Values

words = st.text(max_size=8) | st.sampled_from(
    ["", "auto", "cuda", "cuda:9", "mps", "cpu", "meta", "fp32", "char", "bpe", "muon", "classic",
     "a.txt", "utf-7", "utf-16", "idna", "hex", "[red]", "[/]", "\x1b[2J", "\udc80", "nan", "0x1"]
)  # fmt: skip
# Small, or too much: nothing between, where a model would fit and take all night.
numbers = (
    st.integers(-2, 12)
    | st.sampled_from([2**31, 2**63, -(2**63), 10**30])
    | st.sampled_from([float("nan"), float("inf"), -0.0, 0.1, 0.5, 1.0, 1e-300, 1e300, -1e308])
)
leaves = st.none() | st.booleans() | numbers | words
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    name.split(".")
    for name in setting_names()
    if name != "train.compile"  # takes a minute
]
fields = st.sampled_from(FIELDS)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything inside a JSON value."""
    inside: Any = ()
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
    deeper = [place for key, part in inside for place in places(part, (*path, key))]
    return [path, *deeper[:200]]


@st.composite
def altered(draw: st.DrawFn, values: SearchStrategy[Any]) -> Any:
    """A JSON value with up to three of its parts replaced, dropped or added."""
    value = json.loads(json.dumps(draw(values)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(value)))
        if not place:
            return draw(anything)
        part = value
        for key in place[:-1]:
            part = part[key]
        change = draw(st.sampled_from(["exchange", "drop", "add"]))
        if change == "exchange":
            part[place[-1]] = draw(anything)
        elif change == "drop":
            del part[place[-1]]
        elif isinstance(part, list):
            part.append(draw(anything))
        else:
            part[draw(words)] = draw(anything)
    return value


def said(error: MinigptError, of: str = "") -> None:
    """Checks that the message names its subject; the terminal makes it one line."""
    assert str(error).startswith(of)
    assert len(str(error).strip()) > len(of)


# Presets and settings


@twice
def test_any_preset_is_a_configuration_or_a_config_error(tmp_path: Path, times: int) -> None:
    path = tmp_path / "preset.toml"

    def line(key: str, value: Any) -> str:
        try:
            return f"{key} = {toml_value(value)}"
        except UnicodeEncodeError:
            return f"{key} ="

    table = st.builds(
        lambda pairs: "\n".join(f"[{s}]\n{line(k, v)}" for (s, k), v in pairs),
        st.lists(st.tuples(fields, anything), max_size=4, unique_by=lambda pair: pair[0][0]),
    )
    content = st.binary(max_size=40) | st.text(max_size=60).map(encoded) | table.map(encoded)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            config = load_run_config(str(path))
        except ConfigError as error:
            said(error, str(path))
        else:
            path.write_text(config.to_toml(), encoding="utf-8")
            assert load_run_config(str(path)) == config

    hunt(times, 100, check, content)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if "\udc80" in text else "replace")


def as_setting(pair: tuple[tuple[str, str], Any]) -> str:
    (section, key), value = pair
    return f"{section}.{key}={value if isinstance(value, str) else toml_value(value)}"


settings_given = st.lists(
    st.text(max_size=20) | st.tuples(fields, anything).map(as_setting), min_size=1, max_size=4
)


@twice
def test_any_setting_is_accepted_or_a_config_error(times: int) -> None:
    def check(overrides: list[str]) -> None:
        try:
            config = load_run_config("tiny", dict(map(parse_override, overrides)))
        except ConfigError as error:
            said(error)
        else:
            assert RunConfig.model_validate(config.model_dump()) == config

    hunt(times, 100, check, settings_given)


# Checkpoints and tokenizers


@twice
@pytest.mark.parametrize("config", [MODERN, CLASSIC])
def test_any_metadata_is_a_model_or_a_checkpoint_error(
    tmp_path: Path, times: int, config: Any
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    whole = tiny_checkpoint(path, config)
    facts = json.loads(parts(whole)[0]["__metadata__"]["minigpt"])

    def check(changed: Any) -> None:
        header, data = parts(whole)
        header["__metadata__"]["minigpt"] = json.dumps(changed)
        path.write_bytes(signed(header, data))
        try:
            found = load_checkpoint(path).metadata
        except CheckpointError as error:
            said(error, f"{path}: ")
        else:
            assert found.model.model_dump() == {**found.model.model_dump(), **changed["model"]}

    hunt(times, 50, check, altered(st.just(facts)))


@twice
@pytest.mark.parametrize("kind", ["char", "word", "byte", "bpe"])
def test_any_tokenizer_works_or_is_refused(times: int, kind: Any) -> None:
    text = "abba ab\n"
    saved = json.loads(train_tokenizer(kind, [text * 3]).to_json())

    def check(changed: Any) -> None:
        try:
            tokenizer = tokenizer_from_json(json.dumps(changed))
        except TokenizerError as error:
            said(error)
            return
        assert tokenizer.vocab_size == len(tokenizer.token_bytes)
        assert json.loads(tokenizer.to_json()).keys() <= changed.keys()
        try:
            ids = tokenizer.encode(text)
        except TokenizerError:
            return
        assert tokenizer.unknown_id in ids or tokenizer.decode(ids) == text

    hunt(times, 40, check, altered(st.just(saved)))


@twice
def test_any_text_is_a_tokenizer_or_refused(times: int) -> None:
    def check(text: str) -> None:
        with pytest.raises(TokenizerError):
            tokenizer_from_json(text)

    hunt(times, 60, check, st.text(max_size=30) | anything.map(json.dumps))


# Commands

files = st.sampled_from(
    ["a.txt", "b.txt", "empty.txt", "folder", "none", "", ".", "good.safetensors",
     "word.safetensors", "bad.safetensors", "tiny.toml", "[/]", "a.txt/x", "x" * 300]
)  # fmt: skip
texts = st.text(st.characters(exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["ab", "\udc80", "\x1b[2J", "[/red]", "天", "-", "--", "-h"]
)
values = numbers.map(str) | texts | files
flags = {
    "tokenize": ["--compare", "--json"],
    "train": ["--dry-run", "--json", "--resume", "--list-presets"],
    "generate": ["--interactive", "--exact-window", "--show-probabilities", "--json"],
    "eval": ["--json"],
    "inspect": ["--tensors", "--json"],
    "inspect next": ["--json"],
}
options = {
    "tokenize": "--kind --vocab-size --text --val-fraction --encoding --data-dir",
    "train": "--data --tokenizer --encoding --data-dir --max-iters --batch-size --learning-rate "
    "--precision --device --seed --out --preset --gpus --gpu --utilization --max-memory",
    "generate": "--prompt --prompt-file --checkpoint --max-new-tokens --num-samples --stop "
    "--temperature --top-k --top-p --min-p --repetition-penalty --seed --precision --quantize "
    "--device",
    "eval": "--data --split --encoding --data-dir --quantize --device",
    "inspect": "--nonsense --attention",
    "inspect next": "--checkpoint --top --top-k --top-p --device",
}
choices = {
    "--kind": ["char", "word", "byte", "bpe"],
    "--tokenizer": ["char", "word", "byte", "bpe"],
    "--precision": ["auto", "fp32", "bf16"],
    "--split": ["train", "val", "all"],
    "--quantize": ["int8"],
    "--encoding": ["utf-8", "utf-7", "utf-16", "cp1252", "idna", "unicode_escape", "hex"],
    # Folders that the test may write to.
    "--out": ["out", "a.txt", "", "deep/out", "a.txt/out", "folder"],
    "--data-dir": ["data", "a.txt", "", "deep/data"],
}
basis = {
    "tokenize": ["a.txt"],
    "train": ["--preset", "tiny.toml", "--data", "a.txt"],
    "generate": ["-c", "good.safetensors", "-n", "3"],
    "eval": ["good.safetensors"],
    "inspect": ["good.safetensors"],
    "inspect next": ["ab", "-c", "good.safetensors"],
}


def command_lines(command: str) -> SearchStrategy[list[str]]:
    """A valid command with up to five more words or options."""

    def option(name: str) -> SearchStrategy[list[str]]:
        value: SearchStrategy[str] = values
        if name in ("--max-new-tokens", "--num-samples"):  # as many as one wishes, if one waits
            value = st.integers(-2, 12).map(str) | texts | files
        elif name in choices:
            value = st.sampled_from(choices[name])
            value = value if name in ("--out", "--data-dir") else value | values
        return value.map(lambda text: [name, text])

    more = [option(name) for name in options[command].split()]
    more += [st.just([flag]) for flag in flags[command]]
    more += [st.lists(values, min_size=1, max_size=1)]
    if command == "train":
        more += [st.tuples(fields, anything).map(lambda pair: ["--set", as_setting(pair)])]
    return st.lists(st.one_of(more), max_size=5).map(
        lambda groups: [
            *command.split(),
            *basis[command],
            *(word for group in groups for word in group),
        ]
    )


@twice
@pytest.mark.parametrize(
    ("command", "examples"),
    [
        ("tokenize", 25),
        ("train", 12),
        ("generate", 30),
        ("eval", 20),
        ("inspect", 30),
        ("inspect next", 20),
    ],
)
def test_any_arguments_work_or_are_refused_in_one_line(
    home: Path, times: int, command: str, examples: int
) -> None:
    def check(arguments: list[str]) -> None:
        os.environ["COLUMNS"] = "120"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of an encoding's own
            result = CliRunner().invoke(
                app, arguments, input="ab\n/seed x\n\n/nonsense\n", catch_exceptions=False
            )
        assert result.exit_code in (0, 1, 2), result.output
        assert "Traceback" not in result.output
        if result.exit_code == 1:
            assert result.stderr.splitlines()[-1].startswith("error: "), result.stderr

    hunt(times, examples, check, command_lines(command))


@twice
@pytest.mark.parametrize(
    "command",
    [["inspect"], ["inspect", "--json", "--tensors"], ["eval"], ["generate", "-n", "3", "-c"]],
)
def test_any_checkpoint_works_in_every_command_or_is_refused_in_one_line(
    home: Path, times: int, command: list[str]
) -> None:
    whole = (home / "good.safetensors").read_bytes()
    facts = json.loads(parts(whole)[0]["__metadata__"]["minigpt"])
    corpus = st.sampled_from([["a.txt"], ["b.txt"], ["none"], ["\0"], [], ["folder", "a.txt"]])
    data = st.fixed_dictionaries(
        {"corpus": corpus, "tokenizer": st.sampled_from(["char", "word", "byte", "bpe"])},
        optional={
            "vocab_size": st.sampled_from([2, 256, 300, 2**31 - 1]),
            "encoding": st.sampled_from(["utf-8", "utf-16", "utf-7", "\0", "hex"]),
            "val_fraction": st.sampled_from([1e-300, 0.5, 1 - 1e-16]),
        },
    )
    described = st.fixed_dictionaries({"data": data | st.just(facts["data"]), "corpus": words})

    def check(changes: dict[str, Any]) -> None:
        (home / "forged.safetensors").write_bytes(forged(whole, **changes))
        arguments = [*command, "forged.safetensors"]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code in (0, 1), result.output
        if result.exit_code == 1:
            assert result.stderr.splitlines()[-1].startswith("error: "), result.stderr

    hunt(times, 8, check, described)


# What was found so


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # The library set memory aside for so many tokens and ended the process.
        (["tokenize", "a.txt", "--kind", "bpe", "--vocab-size", "2000000000"], "at most 1,048,576"),
        # Halves of characters, which no tokenizer can encode.
        (["tokenize", "utf-7.txt", "--encoding", "utf-7"], "not utf-7: "),
        (["tokenize", "utf-7.txt", "--encoding", "utf-7", "--kind", "bpe"], "not utf-7: "),
        # No number of the weights' own.
        (["train", "--preset", "tiny.toml", "--learning-rate", "1e300"], "equal to 1000000"),
        # A zero byte, which no file's name has.
        (["train", "--preset", "tiny.toml", "--set", r'data.corpus="\u0000"'], "null byte"),
    ],
)
def test_input_that_once_ended_in_a_traceback(
    home: Path, arguments: list[str], message: str
) -> None:
    (home / "utf-7.txt").write_bytes(b"a+2AA-b\n" * 9)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
