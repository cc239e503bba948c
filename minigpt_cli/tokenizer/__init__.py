"""Text to token ids and back: characters, words, bytes, or byte pairs."""

from minigpt_cli.tokenizer.base import StreamDecoder, Tokenizer
from minigpt_cli.tokenizer.bpe import BPETokenizer
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.factory import (
    check_settings,
    tokenizer_from_json,
    train_tokenizer,
)
from minigpt_cli.tokenizer.word import WordTokenizer

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "WordTokenizer",
    "check_settings",
    "tokenizer_from_json",
    "train_tokenizer",
]
