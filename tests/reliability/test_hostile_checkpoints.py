"""A damaged or forged checkpoint is refused in one line, or is the very same model."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs import checkpoint_header
from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint
from minigpt_cli.tokenizer.factory import train_tokenizer
from tests.helpers.seeds import seed
from tests.helpers.tiny_checkpoint import (
    CLASSIC,
    MODERN,
    digest,
    forged,
    joined,
    parts,
    signed,
    tiny_checkpoint,
)

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def whole(path: Path) -> bytes:
    return tiny_checkpoint(path)


def refusal(path: Path, content: bytes) -> str:
    """The message about the file, without its name."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    return named(path, caught.value)


def named(path: Path, error: CheckpointError) -> str:
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message) > len(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def same(one: Checkpoint, other: Checkpoint) -> bool:
    weights, others = one.model.state_dict(), other.model.state_dict()
    return (
        one.metadata == other.metadata
        and one.tokenizer.token_bytes == other.tokenizer.token_bytes
        and weights.keys() == others.keys()
        and all(torch.equal(weights[name], others[name]) for name in weights)
    )


def padding(content: bytes) -> set[int]:
    """The positions of the spaces between header and tensors."""
    end = 8 + int.from_bytes(content[:8], "little")
    return set(range(len(content[:end].rstrip(b" ")), end))


def check_changed(path: Path, places: range, others: Callable[[int, int], set[int]]) -> int:
    """Changes bytes of a file, one at a time; returns how many changes were tried."""
    content, known, blank = path.read_bytes(), load_checkpoint(path), padding(path.read_bytes())
    tries = 0
    for place in places:
        for byte in others(place, content[place]) - {content[place]}:
            path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            tries += 1
            try:
                found = load_checkpoint(path)
            except CheckpointError as error:
                named(path, error)
            else:
                assert place in blank, f"byte {place} = {byte} went unnoticed"
                assert same(found, known)
    return tries


def check_truncated(path: Path) -> int:
    content = path.read_bytes()
    for length in range(len(content)):
        assert "safetensors file" in refusal(path, content[:length])
    return len(content)


# Damage


def test_changed_byte_is_noticed_or_was_padding(path: Path, whole: bytes) -> None:
    tries = check_changed(path, range(0, len(whole), 11), lambda i, byte: {byte ^ 1 << i % 8})
    assert tries > 190
    path.write_bytes(whole)
    assert check_changed(path, range(min(padding(whole)), len(whole), 999), blanks) > 0


def blanks(place: int, byte: int) -> set[int]:
    return {*b"\t\n\r "}


@pytest.mark.slow
def test_every_truncated_file_is_refused(path: Path, whole: bytes) -> None:
    assert check_truncated(path) == len(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "kind"), [(MODERN, "char"), (CLASSIC, "word")])
def test_every_bit_of_every_byte(path: Path, config: Any, kind: str, request: Any) -> None:
    whole = tiny_checkpoint(path, config, kind)
    chance = random.Random(seed())
    bits = {1 << bit for bit in range(8)}
    tries = check_changed(
        path, range(len(whole)), lambda _, byte: {byte ^ b for b in bits} | {chance.randrange(256)}
    )
    assert tries >= 8 * len(whole)
    path.write_bytes(whole)
    assert check_truncated(path) == len(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "kind"), [(MODERN, "bpe"), (CLASSIC, "byte")])
def test_many_bytes_changed_at_once(path: Path, config: Any, kind: str) -> None:
    whole = tiny_checkpoint(path, config, kind)
    known, chance = load_checkpoint(path), random.Random(seed())
    for _ in range(5000):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(content) + 1)
            length = chance.choice([0, 1, 2, 8, 100])
            content[start : start + chance.choice([0, length])] = chance.randbytes(length)
        path.write_bytes(content)
        try:
            found = load_checkpoint(path)
        except CheckpointError as error:
            named(path, error)
        else:
            assert same(found, known)


def test_digest_is_the_documented_one(whole: bytes) -> None:
    header, data = parts(whole)
    assert header["__metadata__"]["digest"] == digest(header, data)


# Another file in the place of the one that is being read


def test_file_replaced_while_it_is_read_gives_no_mixture(
    path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, read = load_checkpoint(path), checkpoint_header._read_header
    header, data = parts(forged(whole, step=8))
    other = path.with_name("other")
    other.write_bytes(signed(header, bytes(len(data))))

    def read_and_replace(*arguments: Any) -> Any:
        found = read(*arguments)
        other.replace(path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_header, "_read_header", read_and_replace)
        assert same(load_checkpoint(path), known)
    assert load_checkpoint(path).metadata.step == 8


def test_weights_once_verified_are_no_longer_the_file(path: Path, whole: bytes) -> None:
    found, known = load_checkpoint(path), load_checkpoint(path)
    before = {name: weight.clone() for name, weight in known.model.state_dict().items()}
    with path.open("rb+") as file:
        file.write(bytes(len(whole)))
    assert all(torch.equal(w, before[n]) for n, w in found.model.state_dict().items())


def test_loading_leaves_the_random_numbers_alone(path: Path, whole: bytes) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    load_checkpoint(path)
    assert torch.equal(torch.rand(4), wanted)


def test_loading_does_not_load_the_compiler(path: Path, whole: bytes) -> None:
    program = (
        "import sys; from pathlib import Path; "
        "from minigpt_cli.runs.checkpoint import load_checkpoint; "
        f"load_checkpoint(Path({str(path)!r})); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# Headers


@pytest.mark.parametrize("length", [100 * 10**9, 2**63, 2**64 - 1])
def test_header_with_a_huge_length_is_refused(path: Path, whole: bytes, length: int) -> None:
    content = length.to_bytes(8, "little") + whole[8:]
    assert f"its header claims {length}" in refusal(path, content)


FIRST = "blocks.0.attention.k_norm.weight"


def place(*offsets: Any) -> Change:
    return lambda header: header[FIRST].update(data_offsets=list(offsets))


@pytest.mark.parametrize(
    "change",
    [
        place(-16, 0),
        place(0, -16),
        place(16, 0),
        place(0, 15),
        place(0, 17),
        place(1, 17),
        place(8, 24),
        place(0.0, 16.0),
        place(False, 16),
        place("0", "16"),
        place(0, 16, 16),
        place(0, 10**30),
        place(10**30, 10**30 + 16),
        place(None, None),
        lambda header: header[FIRST].update(shape=[4, True]),
        lambda header: header[FIRST].update(shape=[4.0]),
        lambda header: header[FIRST].update(shape=[-2, -2]),
        lambda header: header[FIRST].update(shape=[2**32, 2**32]),
        lambda header: header[FIRST].update(shape=[0, 2**62, 2**62]),
        lambda header: header[FIRST].update(shape=[1] * 1000),
        lambda header: header[FIRST].update(shape={"4": 0}),
        lambda header: header[FIRST].update(dtype="F64"),
        lambda header: header[FIRST].update(dtype="f32"),
        lambda header: header[FIRST].update(dtype=None),
        lambda header: header[FIRST].clear(),
        lambda header: header.update(more=header[FIRST]),
        lambda header: header.update(more={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
        lambda header: header.pop(FIRST),
        lambda header: header["__metadata__"].update(more=1),
        lambda header: header.update(__metadata__=[]),
    ],
)  # fmt: skip
def test_impossible_header_is_refused(path: Path, whole: bytes, change: Change) -> None:
    header, data = parts(whole)
    assert header[FIRST]["data_offsets"] == [0, 16]
    change(header)
    assert "its header is damaged (" in refusal(path, joined(header, data))


def test_gap_and_overlap_are_refused(path: Path, whole: bytes) -> None:
    header, data = parts(whole)
    for entry in list(header.values())[2:]:
        entry["data_offsets"] = [offset + 4 for offset in entry["data_offsets"]]
    assert "not where they should be" in refusal(path, joined(header, data + bytes(4)))
    header, data = parts(whole)
    header[FIRST]["data_offsets"] = header["token_embedding.weight"]["data_offsets"]
    assert "not where they should be" in refusal(path, joined(header, data))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda text: text.replace('"head.weight"', '"norm.weight"'),
            "duplicate key 'norm.weight'",
        ),
        (lambda text: text.replace('"shape"', '"shape": [1], "shape"', 1), "duplicate key 'shape'"),
        (lambda text: '{"__metadata__": {}, ' + text[1:], "duplicate key '__metadata__'"),
        (lambda text: text.replace("[0, 16]", "[NaN, 16]"), "contains NaN"),
        (lambda text: text.replace("[0, 16]", "[-Infinity, 16]"), "contains -Infinity"),
        (lambda text: text.replace("[0, 16]", "[1e999, 16]"), "for a shape or an offset"),
        (lambda text: "\ufeff" + text, "BOM"),
        (lambda text: text[:-1] + ', "deep": ' + "[" * 10**5 + "]" * 10**5 + "}", "too deeply"),
        (lambda text: text + " {}", "Extra data"),
        (lambda text: text + "\0", "Extra data"),
    ],
)
def test_header_that_can_be_read_in_two_ways_is_refused(
    path: Path, whole: bytes, change: Callable[[str], str], reason: str
) -> None:
    header, data = parts(whole)
    assert reason in refusal(path, joined(change(json.dumps(header)), data))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_header_in_another_encoding_is_refused(path: Path, whole: bytes, encoding: str) -> None:
    header, data = parts(whole)
    header["__metadata__"]["by"] = "\xe9"
    raw = json.dumps(header, ensure_ascii=False).encode(encoding)
    assert "header is damaged" in refusal(path, len(raw).to_bytes(8, "little") + raw + data)


# Descriptions, whose digest is right


def described(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    def made(whole: bytes) -> bytes:
        header, data = parts(whole)
        header["__metadata__"]["minigpt"] = change(header["__metadata__"]["minigpt"])
        return signed(header, data)

    return made


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-1] + ', "step": 8}', "duplicate key 'step'"),
        (
            lambda text: text.replace('"n_layer"', '"n_head": 1, "n_layer"'),
            "duplicate key 'n_head'",
        ),
        (lambda text: text.replace("1.75", "NaN"), "contains NaN"),
        (lambda text: text.replace("1.75", "1e999"), "val_loss: Input should be a finite number"),
        (lambda text: text.replace("1.75", '"1.75"'), "val_loss: "),
        (lambda text: text.replace('"step": 7', '"step": -7'), "step: "),
        (lambda text: text.replace('"step": 7', '"step": 1' + "0" * 30), "step: "),
        (lambda text: text.replace('"step": 7', '"step": 1' + "0" * 5000), "digits"),
        (lambda text: text.replace('"step": 7', '"step": true'), "step: "),
        (lambda text: text.replace('"vocab_size": 3', '"vocab_size": "3"'), "vocab_size: "),
        (lambda text: text.replace('"vocab_size": 3', '"vocab_size": 0'), "vocab_size: "),
        (lambda text: text.replace('"step": 7', '"steps": 7'), "step: Field required"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 0'), "version is 0"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 1.5'), "is 1.5"),
        (
            lambda text: text.replace('"format_version"', '"version_of"'),
            "_version' is missing",
        ),
        (lambda text: text.replace('"modern"', '"ancient"'), "model: "),
        (lambda text: text.replace('"n_layer"', f'"{"x" * 9999}"'), "model.modern.xxx"),
        (lambda text: "[" * 10**5 + "]" * 10**5, "nested too deeply"),
        (lambda text: "[]", "not a JSON object"),
        (lambda text: '"text"', "not a JSON object"),
        (lambda text: "3", "not a JSON object"),
        (lambda text: "", "Expecting value"),
    ],
)
def test_impossible_description_is_refused(
    path: Path, whole: bytes, change: Callable[[str], str], reason: str
) -> None:
    said = refusal(path, described(change)(whole))
    assert said.startswith("its metadata is damaged (")
    assert reason in said
    assert len(said) < 300


@contextmanager
def little_memory(room: int) -> Iterator[None]:
    """Limits further allocations to `room` bytes."""
    if sys.platform != "linux":
        pytest.skip("needs the process's size")
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"n_embd": 2**30}, f"the model needs [3, {2**30}]"),
        ({"n_embd": 2**31 - 2}, f"the model needs [3, {2**31 - 2}]"),
        ({"n_layer": 2**31 - 1}, f"claims {2**31 - 1} layers but has 11 tensors"),
        ({"n_layer": 10}, r"the tensor blocks.1.attention.k_norm.weight is missing"),
        ({"n_hidden": 2**31 - 1}, f"needs torch.float32 [4, {2**31 - 1}]"),
        ({"n_embd": 2**20, "n_head": 2**19}, f"the model needs [3, {2**20}]"),
    ],
)
def test_sizes_are_compared_before_they_are_allocated(
    path: Path, whole: bytes, sizes: dict[str, Any], reason: str
) -> None:
    content = forged(whole, model={**MODERN.model_dump(), **sizes})
    with little_memory(1 << 28):
        assert reason in refusal(path, content)


def test_width_of_an_empty_embedding_is_not_trusted(path: Path, whole: bytes) -> None:
    header, data = parts(forged(whole, model={**MODERN.model_dump(), "n_embd": 2**30}))
    size = header["token_embedding.weight"]["data_offsets"]
    header["token_embedding.weight"]["shape"] = [0, 2**30]
    header["token_embedding.weight"]["data_offsets"] = [size[0], size[0]]
    for entry in header.values():
        begin, end = entry.get("data_offsets", (0, 0))
        if begin >= size[1]:
            entry["data_offsets"] = [begin - size[1] + size[0], end - size[1] + size[0]]
    data = data[: size[0]] + data[size[1] :]
    with little_memory(1 << 28):
        assert "is [0, 1073741824] but the model needs [3, 1" in refusal(path, signed(header, data))


@pytest.mark.parametrize(
    "command",
    [["eval", "--data", "a.txt"], ["generate", "-c"], ["inspect", "next", "a", "-c"]],
)
def test_huge_block_size_needs_no_more_memory_than_what_is_read(
    path: Path, whole: bytes, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    Path("a.txt").write_text("abba\n" * 9)
    path.write_bytes(forged(whole, model={**MODERN.model_dump(), "block_size": 2**31 - 1}))
    run = [*command, path.name]
    assert CliRunner().invoke(app, ["inspect", path.name]).exit_code == 0
    with little_memory(1 << 30):
        result = CliRunner().invoke(app, run, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_refused_by_name(path: Path, whole: bytes, number: float) -> None:
    header, data = parts(whole)
    begin, end = header["blocks.0.down.weight"]["data_offsets"]
    bad = torch.tensor([number]).numpy().tobytes()
    content = signed(header, data[: end - 4] + bad + data[end:])
    assert "the tensor blocks.0.down.weight contains NaN or infinity" in refusal(path, content)
    assert begin < end - 4


@pytest.mark.parametrize(("dtype", "shape"), [("I32", [3, 4]), ("BF16", [6, 4]), ("F4", [24, 4])])
def test_wrong_dtype_is_refused(path: Path, whole: bytes, dtype: str, shape: list[int]) -> None:
    header, data = parts(whole)
    header["head.weight"].update(dtype=dtype, shape=shape)
    assert "the tensor head.weight is " in refusal(path, signed(header, data))


def test_hostile_name_of_a_tensor_is_cut_short(path: Path, whole: bytes) -> None:
    header, data = parts(whole)
    header["x" * 100_000] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    assert len(refusal(path, signed(header, data))) < 300


# Tokenizers


def vocabulary(kind: str, value: Any) -> str:
    return json.dumps({"kind": kind, "vocabulary": value})


def bpe(change: Change) -> str:
    saved = json.loads(train_tokenizer("bpe", ["abab"], 258).to_json())
    change(saved["tokenizer"])
    return json.dumps(saved)


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
ADDED = {"id": 3, "content": "x", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": True, "special": False}  # fmt: skip


@pytest.mark.parametrize(
    "tokenizer",
    [
        vocabulary("char", "aab"),
        vocabulary("char", "\nba"),  # out of order: it would be another numbering
        vocabulary("char", ["\n", "a", "b"]),
        vocabulary("char", ["ab", "c", "d"]),
        vocabulary("char", {"a": 0}),
        vocabulary("char", "a\ud800b"),
        vocabulary("char", 3),
        vocabulary("word", "ab"),
        vocabulary("word", ["a", "a"]),
        vocabulary("word", ["a", "<unk>"]),
        vocabulary("word", ["a", ""]),
        vocabulary("word", ["a", 1]),
        vocabulary("word", [["a"]]),
        '{"kind": "char", "kind": "char", "vocabulary": "\\nab"}',
        '{"kind": "char", "vocabulary": "\\nab", "more": 1}',
        '{"kind": "byte", "vocabulary": "ab"}',
        '{"kind": "char", "vocabulary": NaN}',
        '{"kind": "bpe", "tokenizer": null}',
        '{"kind": null}',
        "[" * 10**5,
        bpe(lambda saved: saved["model"]["vocab"].update({"ab": 300})),
        bpe(lambda saved: saved["model"]["vocab"].update({"ab": 255})),
        bpe(lambda saved: saved["model"]["vocab"].update({"ab": -1})),
        bpe(lambda saved: saved["model"]["vocab"].update({"ab": 2**40})),
        bpe(lambda saved: saved["model"]["vocab"].update({"": 258})),
        bpe(lambda saved: saved["model"].update(vocab=[])),
        bpe(lambda saved: saved["model"]["merges"].append(["x", "y"])),
        bpe(lambda saved: saved["model"]["merges"].append(["a", "b"])),
        bpe(lambda saved: saved["model"]["merges"].append(["a"])),
        bpe(lambda saved: saved["model"]["merges"].append(None)),
        bpe(lambda saved: saved["model"].update(merges=None)),
        bpe(lambda saved: saved["model"].update(dropout=0.5)),
        bpe(lambda saved: saved["model"].update(unk_token="a")),
        bpe(lambda saved: saved["model"].update(type="WordPiece")),
        bpe(lambda saved: saved.update(normalizer={"type": "Lowercase"})),
        bpe(lambda saved: saved.update(pre_tokenizer=SPLIT)),
        bpe(lambda saved: saved.update(pre_tokenizer=None)),
        bpe(lambda saved: saved.update(added_tokens=[ADDED])),
        bpe(lambda saved: saved.update(truncation={"max_length": 1})),
        bpe(lambda saved: saved.update(decoder={"type": "Fuse"})),
    ],
)
def test_tokenizer_that_training_cannot_produce_is_refused(
    path: Path, whole: bytes, tokenizer: str
) -> None:
    said = refusal(path, forged(whole, tokenizer=tokenizer))
    assert said.startswith("the stored tokenizer cannot be read (")
    assert len(said) < 300


def test_tokenizer_of_another_size_is_refused(path: Path, whole: bytes) -> None:
    said = refusal(path, forged(whole, tokenizer=vocabulary("char", "abcd")))
    assert re.match("its tokenizer has 4 tokens but its model 3", said)
