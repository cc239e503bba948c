"""Corpora by options: records, patterns, standard input, weights."""

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import ByteLevelBPETokenizer

from minigpt_cli.cli.options import how_to_set
from minigpt_cli.cli.texts import weighted
from tests.helpers.callers import Minigpt, Misused, Refused

LINES = "".join(
    json.dumps({"id": number, "body": f"Boat {number} came in at dawn, counted and named.\n"})
    + "\n"
    for number in range(60)
)
TINY = ("--max-iters", 2, "--set", "train.sample_tokens=0", "--preset", "tiny")


def test_a_run_is_trained_on_the_documents_of_records(minigpt: Minigpt) -> None:
    Path("boats.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    result = minigpt("train", "--data", "boats.jsonl.gz", "--text-field", "body", *TINY, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["run"] == "runs/boats"
    config = Path("runs/boats/config.toml").read_text()
    assert 'text_field = "body"' in config
    evaluated = minigpt("eval", "runs/boats", "--json")
    assert json.loads(evaluated.stdout)[0]["corpus"] == "boats"
    other = minigpt("eval", "runs/boats", "--data", "boats.jsonl.gz", "--json")
    assert other.exit_code == 0, other.output
    written = minigpt("generate", "-c", "runs/boats", "--max-new-tokens", 5)
    assert written.exit_code == 0, written.output


def test_a_field_that_is_not_there_is_named_with_the_option(refused: Refused) -> None:
    Path("boats.jsonl").write_text(LINES)
    said = refused("tokenize", "boats.jsonl")
    assert said.startswith('boats.jsonl:1: no field "text"; it has: id, body; choose one')
    assert "--text-field" in said


def test_code_is_read_by_patterns(minigpt: Minigpt) -> None:
    Path("code").mkdir()
    for name in ("a.py", "b.py", "notes.md"):
        Path("code", name).write_text(f"# {name}\n" * 9)
    result = minigpt("tokenize", "code", "--include", "*.py", "--check", "--json")
    found = json.loads(result.stdout)
    assert [file["path"] for file in found["files"]] == ["code/a.py", "code/b.py"]
    assert [item["path"] for item in found["left_out"]] == ["code/notes.md"]
    assert "Read 2 files" in result.stderr


@pytest.mark.parametrize(
    ("text", "suffix", "field"),
    [("Boats at dawn.\n" * 20, ".txt", None), (LINES, ".jsonl", "body")],
)
def test_a_text_may_come_from_a_pipe(
    minigpt: Minigpt, text: str, suffix: str, field: str | None
) -> None:
    options = () if field is None else ("--text-field", field)
    first = minigpt("tokenize", "-", *options, "--json", stdin=text)
    assert first.exit_code == 0, first.output
    (kept,) = Path("data").glob("piped-*.*")
    assert kept.suffix == suffix
    assert kept.read_text() == text
    assert str(kept) in first.stderr
    again = minigpt("tokenize", "-", *options, "--json", stdin=text)
    assert json.loads(again.stdout)["fingerprint"] == json.loads(first.stdout)["fingerprint"]
    assert list(Path("data").glob("*piped-*.*")) == [kept]


def test_an_empty_pipe_is_said(refused: Refused) -> None:
    assert refused("train", "--data", "-", stdin="") == (
        "standard input is empty; pipe a text into the command"
    )
    assert not list(Path("data").glob("*piped*"))


def test_a_terminal_is_not_waited_for(misused: Misused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigpt_cli.cli.texts.is_terminal", lambda: True)
    assert "nothing is piped into the command" in misused("tokenize", "-")


def test_weights_are_read_from_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weighted(["a.txt=0.7", "b=3e-1"]) == (["a.txt", "b"], [0.7, 0.3])
    assert weighted(["a.txt", "x=y"]) == (["a.txt", "x=y"], [])
    Path("k=2").write_text("a name with an equals sign")
    assert weighted(["k=2"]) == (["k=2"], [])
    assert weighted(["k=2=3", "a=b=1"]) == (["k=2", "a=b"], [3.0, 1.0])


@pytest.mark.parametrize(
    ("weight", "problem"),
    [("0", "greater than 0"), ("-1", "greater than 0"), ("nan", "finite"), ("inf", "finite")],
)
def test_a_weight_that_is_not_positive_is_refused(
    refused: Refused, weight: str, problem: str
) -> None:
    said = refused("train", "--data", f"story.txt={weight}", "--data", "story.txt=1")
    assert said.startswith("data.weights[0] = ")
    assert problem in said


def test_all_texts_have_weights_or_none(misused: Misused) -> None:
    said = misused("train", "--data", "story.txt=0.5", "--data", "other.txt")
    assert "other.txt has no weight: give each text one, or none" in said


def test_the_options_of_settings_are_known() -> None:
    options = {"--text-field", "--include"}
    assert how_to_set(("data.text_field",), options) == " (set with --text-field)"
    assert how_to_set(("data.include",), options) == " (set with --include)"


def test_a_run_takes_its_tokenizer_from_a_file(
    minigpt: Minigpt, refused: Refused, misused: Misused
) -> None:
    theirs = ByteLevelBPETokenizer()
    theirs.train_from_iterator(["the old heron " * 9], vocab_size=270, show_progress=False)
    Path("gpt2").mkdir()
    theirs.save_model("gpt2")
    result = minigpt("train", "story.txt", "--tokenizer", "gpt2", *TINY, "--out", "r")
    assert result.exit_code == 0, result.output
    config = Path("r/config.toml").read_text()
    assert 'tokenizer = "pretrained"' in config
    assert 'tokenizer_file = "gpt2"' in config
    shown = json.loads(minigpt("tokenize", "story.txt", "--kind", "gpt2", "-t", "he<|endoftext|>",
                               "--json").stdout)  # fmt: skip
    assert (shown["kind"], shown["vocab_size"]) == ("pretrained", theirs.get_vocab_size() + 1)
    assert theirs.get_vocab_size() not in shown["text"]["ids"]
    again = minigpt("train", "--preset", "r/config.toml", "--out", "again")
    assert again.exit_code == 0, again.output
    Path("gpt2/vocab.json").unlink()
    resumed = minigpt("train", "--resume", "r", "--max-iters", 3)
    assert resumed.exit_code == 0, resumed.output
    assert minigpt("eval", "r").exit_code == 0
    assert minigpt("generate", "-c", "r", "--max-new-tokens", 3).exit_code == 0
    said = refused("train", "--data", "story.txt", "--tokenizer", "gpt2", "--out", "s")
    assert said.startswith("gpt2: no tokenizer; it needs tokenizer.json, or vocab.json with")
    said = misused("train", "--data", "story.txt", "--tokenizer", "bpee")
    assert "bpee is neither a file or folder nor one of char, word, byte, bpe" in said


def test_a_check_says_what_repeats_and_what_is_rare(minigpt: Minigpt) -> None:
    texts = [f"Boat {number} came in at dawn." for number in range(20)] + [
        "Boat 7 came in at dawn."
    ]
    Path("boats.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    shown = minigpt("tokenize", "boats.jsonl", "--check").stdout
    assert "repeated documents          1 of 21, as 'Boat 7 came in at dawn.'" in shown
    assert "in training and validation  1" in shown
    assert "documents                   21: 23 to 24 characters, median 23" in shown
    found = json.loads(minigpt("tokenize", "boats.jsonl", "--check", "--json").stdout)["check"]
    assert (found["unit"], found["passages"], found["duplicates"]) == ("documents", 21, 1)
    assert not list(Path("data").glob("boats*"))


def test_a_check_names_every_damaged_byte_before_it_fails(minigpt: Minigpt) -> None:
    Path("a.txt").write_bytes(b"fine\xff and not\xfe")
    result = minigpt("tokenize", "a.txt", "--check")
    assert result.exit_code == 1
    assert "a.txt       utf-8         4, 13" in result.stdout
    assert result.stderr.startswith("error: a.txt: not utf-8: byte 4 (0xff)")


def test_a_check_lists_every_file_when_some_cannot_be_read(minigpt: Minigpt) -> None:
    Path("poems").mkdir()
    Path("poems/a.txt").write_text("plain text\n" * 9)
    Path("poems/b.txt").write_bytes("中文测试".encode("gb18030"))
    Path("poems/c.txt").write_bytes(b"bad \xff\xfe\n" * 9)  # no encoding can be told
    for options, bad in (
        ((), "bc"),
        (("--encoding", "auto"), "c"),
        (("--encoding", "gb18030"), "c"),
    ):
        result = minigpt("tokenize", "--check", "poems", "--json", *options)
        found = json.loads(result.stdout)
        assert result.exit_code == 1
        named = [Path(item["path"]).stem for item in found["unreadable"]]
        assert sorted(named) == list(bad)
        assert sorted([*named, *(Path(item["path"]).stem for item in found["files"])]) == list(
            "abc"
        )
        assert result.stderr.splitlines()[-1].startswith("error: ")
    shown = minigpt("tokenize", "--check", "poems")
    assert "not utf-8: byte 0 (0xd6)" in shown.stdout
    assert "error: 2 files cannot be read; the first: poems/b.txt: not utf-8" in shown.stderr


def test_a_check_of_one_file_of_unknown_encoding_says_why(minigpt: Minigpt) -> None:
    Path("a.txt").write_bytes(b"bad \xff\xfe\n" * 9)
    result = minigpt("tokenize", "--check", "a.txt", "--encoding", "auto")
    assert result.exit_code == 1
    assert "cannot tell its encoding" in result.stdout
    assert result.stderr.startswith("error: a.txt: cannot tell its encoding")
