"""`minigpt tokenize`: what it prints, and what it stores on disk."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigpt_cli.tokenizer.factory import tokenizer_from_json
from tests.helpers.callers import Minigpt, Refused

KINDS = ["char", "word", "byte", "bpe"]


def facts(minigpt: Minigpt, *arguments: object) -> Any:
    result = minigpt("tokenize", "story.txt", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def rows(text: str) -> list[list[str]]:
    """The table's rows, without the header."""
    return [line.split() for line in text.splitlines() if line.strip().startswith(tuple(KINDS))]


def test_table_agrees_with_the_text(minigpt: Minigpt, story: str) -> None:
    result = minigpt("tokenize", "story.txt")
    (row,) = rows(result.stdout)
    size = f"{len(story):,}"
    assert row[:5] == ["char", size, size, "1.00", str(len(set(story)))]
    assert result.stderr == ""


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_folder_holds_the_text(minigpt: Minigpt, story: str, kind: str) -> None:
    result = minigpt("tokenize", "story.txt", "--kind", kind, "--val-fraction", 0.25)
    found = re.search(r"Prepared in (\S+)", result.stdout)
    assert found is not None
    folder = Path(found[1])
    tokenizer = tokenizer_from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {name: np.fromfile(folder / f"{name}.bin", np.uint16) for name in ("train", "val")}
    cut = int(len(story) * 0.75)
    assert tokenizer.decode(ids["train"]) == story[:cut]
    assert tokenizer.decode(ids["val"]) == story[cut:]
    (row,) = rows(result.stdout)
    count = len(ids["train"]) + len(ids["val"])
    assert row[:5] == [
        kind, f"{len(story):,}", f"{count:,}", f"{len(story) / count:.2f}",
        f"{tokenizer.vocab_size:,}",
    ]  # fmt: skip


def test_json_agrees_with_the_text(minigpt: Minigpt, story: str) -> None:
    found = facts(minigpt, "--kind", "byte")
    assert found["characters"] == len(story)
    assert found["tokens"] == found["train_tokens"] + found["val_tokens"] == len(story.encode())
    assert found["characters_per_token"] == len(story) / len(story.encode())
    assert (found["vocab_size"], found["dtype"]) == (256, "uint16")
    assert found["megabytes_per_second"] == pytest.approx(
        len(story.encode()) / 1e6 / found["seconds"]
    )


def test_comparison_shows_every_kind_on_the_same_text(minigpt: Minigpt) -> None:
    result = minigpt("tokenize", "story.txt", "--compare", "--vocab-size", 300)
    table = rows(result.stdout)
    assert [row[0] for row in table] == KINDS
    for row, found in zip(table, facts(minigpt, "--compare", "--vocab-size", 300), strict=True):
        assert row[2] == f"{found['tokens']:,}"
        assert row[4] == f"{found['vocab_size']:,}"
    assert table[3][4] == "300"


def test_text_is_shown_token_by_token_and_restored(minigpt: Minigpt, home: Path) -> None:
    (home / "hello.txt").write_text("hello", encoding="utf-8")
    result = minigpt("tokenize", "hello.txt", "--text", "hello")
    assert result.stdout == "char: 5 tokens\nh:1 e:0 l:2 l:2 o:3 \ndecoding restores the text\n"


def test_brackets_are_shown_as_is_and_white_space_escaped(minigpt: Minigpt) -> None:
    result = minigpt("tokenize", "story.txt", "--kind", "byte", "--text", "[b]\n\t\x1b")
    pieces = [f"{shown}:{ord(char)} " for shown, char in zip(
        ["[", "b", "]", "\\n", "\\t", "\\x1b"], "[b]\n\t\x1b", strict=True)]  # fmt: skip
    assert result.stdout.splitlines()[1] == "".join(pieces)


def test_pieces_of_a_character_are_shown_as_bytes(minigpt: Minigpt) -> None:
    result = minigpt("tokenize", "story.txt", "--kind", "byte", "--text", "é")
    assert result.stdout.splitlines()[1:] == ["\\xc3:195 \\xa9:169 ", "decoding restores the text"]


def test_unknown_word_is_not_restored(minigpt: Minigpt) -> None:
    result = minigpt("tokenize", "story.txt", "--kind", "word", "--text", "The zebra")
    assert result.stdout.endswith("decoding does not restore the text\n")
    found = facts(minigpt, "--kind", "word", "--text", "The zebra")["text"]
    assert found["pieces"] == ["The", " ", "<unk>"]
    assert found["ids"][2] == 0
    assert found["round_trip"] is False


def test_comparison_shows_the_tokens_of_every_kind(minigpt: Minigpt) -> None:
    found = facts(minigpt, "--compare", "--text", "The tide")
    assert [cut["kind"] for cut in found] == KINDS
    assert found[0]["text"]["pieces"] == list("The tide")
    assert found[1]["text"]["pieces"] == ["The", " ", "tide"]
    assert found[2]["text"]["ids"] == list(b"The tide")
    assert "".join(found[3]["text"]["pieces"]) == "The tide"


def test_prepared_text_is_reused_unless_it_changed(
    minigpt: Minigpt, home: Path, story: str
) -> None:
    first, again = facts(minigpt), facts(minigpt)
    assert first == again  # including the seconds: nothing was computed again
    with (home / "story.txt").open("a", encoding="utf-8") as file:
        file.write("Zzz.\n")
    changed = facts(minigpt)
    assert changed["fingerprint"] != first["fingerprint"]
    assert changed["vocab_size"] == len({*story, *"Zzz.\n"})


def test_folder_name_with_brackets_is_shown(minigpt: Minigpt, home: Path) -> None:
    (home / "my[red]text.txt").write_text("some text", encoding="utf-8")
    assert "Prepared in data/my[red]text/" in minigpt("tokenize", "my[red]text.txt").stdout


def test_named_encoding_is_read(minigpt: Minigpt, home: Path) -> None:
    (home / "poem.txt").write_text("春眠不觉晓，处处闻啼鸟。\n", encoding="gb18030")
    result = minigpt("tokenize", "poem.txt", "--encoding", "gb18030", "--text", "春晓")
    assert result.stdout.startswith("char: 2 tokens")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none.txt"], "none.txt: no such file or folder in "),
        (["story.txt", "--encoding", "klingon"], "data.encoding = klingon: unknown encoding"),
        (["story.txt", "--val-fraction", 1], "data.val_fraction = 1.0: must be less"),
        (["story.txt", "--val-fraction", 0], "data.val_fraction = 0.0: must be greater than 0"),
        (["story.txt", "--vocab-size", 99], "the char tokenizer has a vocabulary of fixed size"),
        (["story.txt", "--kind", "bpe", "--vocab-size", 99], "bpe needs at least 256"),
        (["story.txt", "--kind", "bpe", "--vocab-size", 10**30], "data.vocab_size"),
        (["story.txt", "--text", "Ω"], "'Ω' (U+03A9)"),
        (["empty.txt"], "the text has 0 characters and needs at least 2"),
        (["latin.txt"], "latin.txt: not utf-8: byte 3 (0xe9)"),
    ],
)
def test_user_errors_are_reported(
    refused: Refused, home: Path, options: list[object], message: str
) -> None:
    (home / "empty.txt").touch()
    (home / "latin.txt").write_bytes("café".encode("latin-1"))
    assert message in refused("tokenize", *options)
    assert not list((home / "data").rglob(".*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--val-fraction", "nan"), ("--val-fraction", 1.5), ("--vocab-size", 1), ("--kind", "words")],
)
def test_value_out_of_range_is_a_usage_error(minigpt: Minigpt, option: str, value: object) -> None:
    result = minigpt("tokenize", "story.txt", option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert option in result.stderr


def test_fix_that_a_message_names_comes_with_the_option_of_this_command(refused: Refused) -> None:
    message = refused("tokenize", "story.txt", "--text", "Ω")
    assert message.endswith("(set with --kind bpe)")


# Which files are read


@pytest.fixture
def diary(home: Path) -> Path:
    folder = home / "diary"
    (folder / ".trash").mkdir(parents=True)
    for month in ("01", "02", "03", "04"):
        (folder / f"{month}.txt").write_text(f"Month {month}, and the boats went by.\n" * 25)
    (folder / "05.txt").write_bytes("学而时习之，不亦说乎？\n".encode("gb18030") * 20)
    (folder / ".trash" / "old.txt").write_text("DELETED SECRET")
    (folder / "letter.docx").write_bytes(b"PK\x03\x04")
    (folder / "scan.pdf").touch()
    (folder / "empty.md").touch()
    return folder


def test_a_folder_says_what_was_read_and_left_out(minigpt: Minigpt, diary: Path) -> None:
    result = minigpt("tokenize", "diary", "--encoding", "auto")
    assert result.exit_code == 0
    size = sum(path.stat().st_size for path in diary.glob("0?.txt"))
    kinds = "1 trash folder, 1 empty, 1 .docx, 1 .pdf"
    assert result.stderr.splitlines() == [
        f"Read 5 files ({size / 1000:.1f} kB); left out 4: " + kinds,
        "Read 1 file as gb18030: 05.txt",
        "For validation, the last 10% of the text: the end of 04.txt, 05.txt",
    ]  # fmt: skip


def test_check_lists_every_file_and_keeps_nothing(minigpt: Minigpt, diary: Path) -> None:
    before = sorted(Path("data").rglob("*"))
    result = minigpt("tokenize", "--check", "diary", "--encoding", "auto", "--json")
    found = json.loads(result.stdout)
    assert [Path(file["path"]).name for file in found["files"]] == [
        "01.txt", "02.txt", "03.txt", "04.txt", "05.txt"
    ]  # fmt: skip
    assert [file["encoding"] for file in found["files"]] == ["utf-8"] * 4 + ["gb18030"]
    texts = [path.read_bytes() for path in sorted(diary.glob("0?.txt"))]
    assert [file["bytes"] for file in found["files"]] == [len(text) for text in texts]
    lengths = [len(text.decode("utf-8" if text.isascii() else "gb18030")) for text in texts]
    assert [file["characters"] for file in found["files"]] == lengths
    validation = sum(lengths) - int(sum(lengths) * 0.9)
    assert sum(file["validation_characters"] for file in found["files"]) == validation
    assert found["files"][4]["validation_characters"] == min(lengths[4], validation)
    assert {Path(item["path"]).name: item["kind"] for item in found["left_out"]} == {
        ".trash": "trash folder", "letter.docx": ".docx", "scan.pdf": ".pdf", "empty.md": "empty"
    }  # fmt: skip
    assert sorted(Path("data").rglob("*")) == before


def test_check_shows_the_same_as_tables(minigpt: Minigpt, diary: Path) -> None:
    result = minigpt("tokenize", "--check", "diary", "--encoding", "auto")
    lines = result.stdout.splitlines()
    assert any(line.split()[:2] == ["diary/05.txt", "gb18030"] for line in lines)
    assert any("diary/letter.docx" in line and "save it as plain text" in line for line in lines)
    assert "SECRET" not in result.stdout


def test_check_and_text_exclude_each_other(minigpt: Minigpt) -> None:
    result = minigpt("tokenize", "story.txt", "--check", "--text", "a")
    assert result.exit_code == 2
    assert "--check cannot be combined with --text or --compare" in result.output


def test_one_plain_file_needs_no_words(minigpt: Minigpt) -> None:
    assert minigpt("tokenize", "story.txt", "--encoding", "auto").stderr == ""


def test_a_detected_encoding_is_always_said(minigpt: Minigpt, diary: Path) -> None:
    result = minigpt("tokenize", "diary/05.txt", "--encoding", "auto")
    assert result.stderr == "Read 1 file as gb18030: 05.txt\n"
    assert minigpt("tokenize", "diary/05.txt", "--encoding", "gb18030").stderr == ""


def test_names_from_the_disk_cannot_drive_the_terminal(minigpt: Minigpt, home: Path) -> None:
    folder = home / "evil"
    folder.mkdir()
    (folder / "a.txt").write_text("text\n" * 9)
    (folder / "\x1b]0;owned\a.txt").write_text("text\n" * 9)
    (folder / "b\x1b[31m.docx").touch()
    for arguments in (("evil",), ("--check", "evil"), ("--check", "evil", "--json")):
        result = minigpt("tokenize", *arguments)
        assert result.exit_code == 0
        assert "\x1b" not in result.stdout + result.stderr
        assert "\a" not in result.stdout + result.stderr
