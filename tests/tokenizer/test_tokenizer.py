"""The four tokenizers: what they encode, restore and reject."""

import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt_cli.errors import TokenizerError
from minigpt_cli.tokenizer.base import StreamDecoder, Tokenizer
from minigpt_cli.tokenizer.bpe import BPETokenizer, splittable
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json, train_tokenizer
from minigpt_cli.tokenizer.word import WordTokenizer, whole_pieces

# Difficult cases: contractions, all sorts of white space (U+001C is white space to Python but not
# to the BPE library), scripts without spaces, combining marks, joined emoji, digits.
FRAGMENTS = [
    "a", "re", "The", "don't", "we'll", "'s", "'ve", "'", "''", "12", "3.5", "½", "_", "x_1",
    " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x1f", "\x85",
    "天地", "玄黄", "，", "。", "「", "」", "ひ", "カ", "한국", "é", "e\u0301", "ß", "\u0301",
    "👋", "👩\u200d👧", "🇨🇳", "!", "...", "--", "<unk>", "\ufeff", "\x00", "𠀀",
    "हिन्दी", "สวัสดี", "שָׁ", "می\u200cخواهم", "क्\u200dष",
]  # fmt: skip
# Every pair once, so that merges cross every possible boundary, except where the library always
# splits.
PAIRS = [a + b for a, b in itertools.product(FRAGMENTS, FRAGMENTS)]

any_text = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=30).map("".join)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, ...]:
    """A text in pieces, split at arbitrary places; some pieces are empty."""
    text = draw(any_text)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return tuple(text[a:b] for a, b in itertools.pairwise([0, *places, len(text)]))


def expected_words(text: str) -> list[str]:
    """Words with their marks and joiners, runs of white space, every other character by itself."""
    pieces: list[str] = []
    for char in text:
        last = pieces[-1][-1:] if pieces else ""
        in_word = bool(last) and (pieces[-1][0].isalnum() or pieces[-1][0] == "_")
        joins = unicodedata.category(char)[0] == "M" or char in "\u200c\u200d"
        if (
            (in_word and (char.isalnum() or char == "_" or joins))
            or (last.isspace() and char.isspace())
        ):  # fmt: skip
            pieces[-1] += char
        else:
            pieces.append(char)
    return pieces


def bpe_trained_on(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    tokenizer = train_tokenizer("bpe", texts, vocab_size)
    assert isinstance(tokenizer, BPETokenizer)
    return tokenizer


BPE = bpe_trained_on(PAIRS, 1200)


def chars_of(text: str) -> Tokenizer:
    return CharTokenizer(text)


def words_of(text: str) -> Tokenizer:
    return WordTokenizer.train([text])


# For each kind, a tokenizer that can encode the given text.
KNOWING: dict[str, Callable[[str], Tokenizer]] = {
    "char": chars_of,
    "word": words_of,
    "byte": lambda text: ByteTokenizer(),
    "bpe": lambda text: BPE,
}
all_kinds = pytest.mark.parametrize("kind", KNOWING)


# Encoding


def test_char_tokenizer_matches_the_guide() -> None:
    tokenizer = CharTokenizer("hello")
    assert tokenizer.encode("hello") == [1, 0, 2, 2, 3]
    assert tokenizer.decode([1, 0, 2, 2, 3]) == "hello"
    assert tokenizer.itos == ["e", "h", "l", "o"]
    assert tokenizer.vocab_size == 4


@given(st.text(min_size=1))
def test_char_ids_are_indices_into_the_sorted_characters(text: str) -> None:
    alphabet = sorted(set(text))
    assert CharTokenizer(text).encode(text) == [alphabet.index(char) for char in text]


def test_word_vocabulary_is_ordered_by_frequency_and_then_by_spelling() -> None:
    tokenizer = WordTokenizer.train(["b a c a, b a"])  # five spaces, three a, two b
    assert tokenizer.itos == ["<unk>", " ", "a", "b", ",", "c"]
    assert tokenizer.encode("a, b") == [2, 4, 1, 3]


@given(any_text)
def test_word_tokens_are_words_white_space_and_single_punctuation_marks(text: str) -> None:
    tokenizer = WordTokenizer.train([text])
    assert [tokenizer.itos[i] for i in tokenizer.encode(text)] == expected_words(text)


@pytest.mark.parametrize(
    "word",
    ["हिन्दी", "भाषा", "สวัสดี", "שָׁלוֹם", "مُحَمَّد", "தமிழ்", "မြန်မာ", "ខ្មែរ", "བོད", "ไทย",
     "e\u0301te\u0301", "ö\u0323", "Å\u030a", "می\u200cخواهم", "क्\u200dष", "Việt"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_marks_do_not_split_a_word(word: str, form: Literal["NFC", "NFD"]) -> None:
    word = unicodedata.normalize(form, word)
    words = WordTokenizer.train([f"{word} {word}"])
    assert words.itos[1:] == [word, " "]
    bpe = bpe_trained_on([f" {word}" * 300], 400)
    assert len(bpe.encode(f" {word}")) == 1


SAVED_BEFORE = (
    '{"kind": "word", "vocabulary": ["\u0301", " ", "t", "e"]}',
    BPETokenizer.train(["e\u0301te\u0301 हिन्दी"] * 50, 300, splitting=1).to_json(),
)


@pytest.mark.parametrize("saved", SAVED_BEFORE)
def test_a_tokenizer_saved_before_marks_belonged_to_words_splits_as_it_did(saved: str) -> None:
    tokenizer = tokenizer_from_json(saved)
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("te\u0301 te")]
    assert pieces[-1] == "te" if tokenizer.kind == "bpe" else "<unk>"
    assert "\u0301" in pieces
    assert json.loads(tokenizer.to_json()) == json.loads(saved)


def test_a_bpe_tokenizer_saved_before_splits_as_gpt2_does() -> None:
    text = "".join(PAIRS)
    before = BPETokenizer.train(PAIRS, 1200, splitting=1)
    plain = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert before._inner.pre_tokenizer.pre_tokenize_str(text) == plain.pre_tokenize_str(text)
    again = tokenizer_from_json(before.to_json())
    assert again.encode(text) == before.encode(text) != BPE.encode(text)


@pytest.mark.parametrize("splitting", [0, 3, "2", None, 1.5, [1]])
def test_a_splitting_of_the_future_is_refused(splitting: object) -> None:
    saved = {"kind": "word", "splitting": splitting, "vocabulary": ["a"]}
    with pytest.raises(TokenizerError, match="splitting"):
        tokenizer_from_json(json.dumps(saved))


@pytest.mark.parametrize(
    ("known", "prompt", "advice"),
    [
        ("cafe\u0301", "café", r"has é as U\+0065 \+ U\+0301 \(NFD\)"),
        ("café", "cafe\u0301", r"has é as one character, U\+00E9 \(NFC\)"),
        ("\u1100\u1161 x", "가", r"has 가 as U\+1100 \+ U\+1161"),
        ("が", "か\u3099", r"has が as one character, U\+304C"),
    ],
)
def test_a_prompt_in_the_other_composition_is_told_so(known: str, prompt: str, advice: str) -> None:
    with pytest.raises(
        TokenizerError, match=f"the training text {advice}.*; write it that way, remove"
    ):
        CharTokenizer(known + "cafe").encode(prompt)


def test_composition_is_not_mentioned_where_it_does_not_help() -> None:
    with pytest.raises(TokenizerError) as caught:
        CharTokenizer("cafe").encode("café Ω")
    assert "(NF" not in str(caught.value)


def test_word_tokenizer_writes_unk_for_a_word_it_does_not_know() -> None:
    tokenizer = WordTokenizer.train(["the cat sat"])
    ids = tokenizer.encode("the dog sat")
    assert ids[2] == tokenizer.unknown_id == 0
    assert tokenizer.decode(ids) == "the <unk> sat"


def test_beyond_the_limit_of_counted_words_the_rarest_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minigpt_cli.tokenizer.word._MOST_COUNTED", 40)
    chunks = [f"{'common frequent usual ' * 9}rare{i} once{i} " for i in range(500)]
    tokenizer = train_tokenizer("word", chunks, vocab_size=5)
    assert sorted(tokenizer.token_bytes[1:]) == [b" ", b"common", b"frequent", b"usual"]
    with pytest.raises(TokenizerError, match=r"more than 40 distinct words.*vocab_size.*bpe"):
        train_tokenizer("word", chunks)


def test_word_vocabulary_is_capped_at_the_most_frequent() -> None:
    tokenizer = train_tokenizer("word", ["x y x z x y"], vocab_size=3)
    assert tokenizer.vocab_size == 3
    assert tokenizer.decode(tokenizer.encode("x y z")) == "x <unk> <unk>"


@given(st.text())
def test_byte_ids_are_the_utf8_bytes(text: str) -> None:
    assert ByteTokenizer().encode(text) == list(text.encode())
    assert ByteTokenizer().vocab_size == 256


def test_bpe_makes_frequent_sequences_one_token() -> None:
    tokenizer = bpe_trained_on(["the moth and the mother, the other moth"] * 20, 280)
    assert len(tokenizer.encode(" the")) == 1
    assert len(tokenizer.encode("Q")) == 1
    assert b" the" in tokenizer.token_bytes


def test_bpe_vocabulary_has_the_requested_size_if_the_text_allows_it() -> None:
    assert BPE.vocab_size == len(BPE.token_bytes) == 1200
    assert bpe_trained_on(["ab"], 400).vocab_size == 257  # there is only one pair to merge


@given(any_text)
def test_bpe_agrees_with_the_library_on_the_whole_text(text: str) -> None:
    assert BPE.encode(text) == BPE._inner.encode(text).ids


# Decoding


@all_kinds
@given(text=any_text)
@example(text="")
def test_decoding_restores_the_text_exactly(kind: str, text: str) -> None:
    tokenizer = KNOWING[kind](text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@all_kinds
@given(text=any_text)
def test_joined_token_bytes_are_the_utf8_of_the_text(kind: str, text: str) -> None:
    tokenizer = KNOWING[kind](text)
    assert b"".join(tokenizer.token_bytes[i] for i in tokenizer.encode(text)) == text.encode()


@all_kinds
@given(text=any_text)
def test_json_rebuilds_the_same_tokenizer(kind: str, text: str) -> None:
    tokenizer = KNOWING[kind](text)
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.kind == kind
    assert again.token_bytes == tokenizer.token_bytes
    assert again.encode(text) == tokenizer.encode(text)


@all_kinds
@given(chunks=cut_texts())
@example(chunks=("!\x1c", "a"))
@example(chunks=("we'", "ll"))
@example(chunks=("a ", " b"))
@example(chunks=("", ""))
def test_encoding_does_not_depend_on_where_chunks_are_split(
    kind: str, chunks: tuple[str, ...]
) -> None:
    text = "".join(chunks)
    tokenizer = KNOWING[kind](text)
    ids = [i for array in tokenizer.encode_chunks(chunks) for i in array.tolist()]
    # Compares with the library itself, since `encode` also splits the text.
    assert ids == (BPE._inner.encode(text).ids if kind == "bpe" else tokenizer.encode(text))


@given(cut_texts())
def test_training_does_not_depend_on_where_chunks_are_split(chunks: tuple[str, ...]) -> None:
    text = "".join(chunks)
    for kind in ("char", "word"):
        cut, whole = train_tokenizer(kind, chunks), train_tokenizer(kind, [text])
        assert cut.token_bytes == whole.token_bytes


def test_long_text_without_spaces_is_split_only_after_punctuation() -> None:
    sentence = "天地玄黄ひカ，天地。"
    text = sentence * 30_000  # far longer than the text that is held back
    chunks = [text[i : i + 100_001] for i in range(0, len(text), 100_001)]
    assert all(piece[-1] in "，。" for piece in splittable(chunks))
    pieces = BPE._inner.encode(sentence).ids
    assert BPE.encode(text) == pieces * 30_000


@pytest.mark.parametrize("cut_anew", [splittable, whole_pieces])
def test_endless_word_is_not_held_in_memory(
    cut_anew: Callable[[Iterable[str]], Iterable[str]],
) -> None:
    chunks = ["x" * 5_000] * 100
    pieces = list(cut_anew(chunks))
    assert "".join(pieces) == "".join(chunks)
    assert max(len(piece) for piece in pieces) < 80_000


@given(st.lists(st.integers(0, 255)))
def test_joined_stream_equals_the_decoded_text(ids: list[int]) -> None:
    tokenizer = ByteTokenizer()
    decoder = StreamDecoder(tokenizer.token_bytes)
    streamed = "".join([decoder.push(i) for i in ids] + [decoder.flush()])
    assert streamed == bytes(ids).decode("utf-8", errors="replace") == tokenizer.decode(ids)


def test_stream_holds_back_a_character_until_it_is_complete() -> None:
    decoder = StreamDecoder(ByteTokenizer().token_bytes)
    assert [decoder.push(byte) for byte in "é天".encode()] == ["", "é", "", "", "天"]
    assert decoder.flush() == ""


def test_generation_starts_from_a_line_break_if_the_vocabulary_has_one() -> None:
    assert CharTokenizer("a\nb").start_ids == [0]
    assert ByteTokenizer().start_ids == [10]
    assert BPE.decode(BPE.start_ids) == "\n"
    assert CharTokenizer("ab").start_ids == [0]


# Rejecting


def test_unknown_characters_are_reported_with_their_position_and_a_fix() -> None:
    with pytest.raises(TokenizerError) as caught:
        CharTokenizer("abc").encode("ab天aé天")
    message = str(caught.value)
    assert "'天' (U+5929), 'é' (U+00E9)" in message
    assert "first at character 3 of the text" in message
    assert "byte or bpe" in message
    assert "\n" not in message


def test_many_unknown_characters_are_counted() -> None:
    with pytest.raises(TokenizerError, match=r"'e' \(U\+0065\) and 3 more, first at character 1 "):
        CharTokenizer("xyz").encode("abcdefgh")


def test_position_of_an_unknown_character_counts_from_the_start_of_the_text() -> None:
    with pytest.raises(TokenizerError, match="first at character 9 of the text"):
        list(CharTokenizer("abc").encode_chunks(["abc", "", "cba", "abZ"]))


@given(st.text(alphabet="abcé天", max_size=20), st.text(min_size=1, max_size=20))
def test_char_tokenizer_rejects_exactly_the_unknown_characters(known: str, text: str) -> None:
    tokenizer = CharTokenizer(known)
    if set(text) <= set(known):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    else:
        place = next(i for i, char in enumerate(text) if char not in known)
        with pytest.raises(TokenizerError, match=f"character {place + 1} of"):
            tokenizer.encode(text)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPE], ids=["byte", "bpe"])
def test_lone_surrogate_is_replaced_by_byte_and_bpe(
    tokenizer: Tokenizer,
) -> None:
    assert tokenizer.decode(tokenizer.encode("a\udcffb")) == "a?b"


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_vocab_size_is_rejected_for_kinds_of_fixed_size(kind: Any) -> None:
    with pytest.raises(
        TokenizerError,
        match=f"vocab_size = 300: the {kind} tokenizer .* fixed",
    ):
        train_tokenizer(kind, ["some text"], vocab_size=300)


@pytest.mark.parametrize(("kind", "least"), [("bpe", 256), ("word", 2)])
def test_too_small_a_vocabulary_is_rejected(kind: Any, least: int) -> None:
    with pytest.raises(TokenizerError, match=f"{kind} needs at least {least}"):
        train_tokenizer(kind, ["some text"], vocab_size=least - 1)
    assert train_tokenizer(kind, ["some text"], vocab_size=least).vocab_size == least


def bpe_json(change: Callable[[dict[str, int]], object]) -> str:
    saved = json.loads(bpe_trained_on(["ab"], 256).to_json())
    change(saved["tokenizer"]["model"]["vocab"])
    return json.dumps(saved)


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"kind": "char"}',
        '{"kind": "sentence", "vocabulary": "ab"}',
        '{"kind": ["char"], "vocabulary": "ab"}',
        '{"kind": "char", "vocabulary": 5}',
        '{"kind": "char", "vocabulary": "aba"}',
        '{"kind": "char", "vocabulary": ["ab", "c"]}',
        '{"kind": "word", "vocabulary": ["to", "be", "to"]}',
        '{"kind": "word", "vocabulary": ["to", 2]}',
        '{"kind": "bpe"}',
        '{"kind": "bpe", "tokenizer": {}}',
        BPE.to_json()[:-100],
        bpe_json(lambda vocabulary: vocabulary.pop("Q")),
        bpe_json(lambda vocabulary: vocabulary.update(QQ=vocabulary.pop("Q"))),
        bpe_json(lambda vocabulary: vocabulary.update(Q=1000)),
        bpe_json(lambda vocabulary: vocabulary.update({"天": 256})),
    ],
)
def test_damaged_tokenizer_is_rejected(damaged: str) -> None:
    with pytest.raises(TokenizerError, match=re.escape("the stored tokenizer cannot be read (")):
        tokenizer_from_json(damaged)


def test_ids_are_wide_enough_for_any_vocabulary() -> None:
    words = [f"w{i}" for i in range(70_000)]
    array = WordTokenizer(words).encode_array("w69999")
    assert array.dtype == np.uint32
    assert array.tolist() == [70_000]
