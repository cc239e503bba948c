"""The four tokenizers as `tokenizer.json`, which Hugging Face's libraries read without our code.

Each becomes a model, a rule for cutting text and a rule for joining it again. The file says all
three, so that no version of a library has to guess.
"""

import json
import re
import sys

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.bpe import byte_alphabet
from minigpt_cli.tokenizer.word import UNKNOWN, pieces_pattern

TOKENIZER_CONFIG = {
    # Without a class named here, transformers 5 rebuilds the tokenizer of the model's family.
    "tokenizer_class": "PreTrainedTokenizerFast",
    # Without this, transformers 4 passes token types, which GPT-2 adds to the embeddings.
    "model_input_names": ["input_ids", "attention_mask"],
    "clean_up_tokenization_spaces": False,  # keeps "cat ." from becoming "cat."
}
"""Any further key, the names of special tokens above all, would change how a text is cut."""


def to_hf(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer, of Hugging Face's library.

    It raises on a character that a `char` vocabulary lacks, as ours does.
    """
    saved = json.loads(tokenizer.to_json())
    if tokenizer.kind == "bpe":
        inner = tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer"]))
        inner.decoder = decoders.ByteLevel()
        return inner
    if tokenizer.kind == "byte":
        vocabulary = {char: byte for byte, char in enumerate(byte_alphabet())}
        inner = tokenizers.Tokenizer(models.BPE(vocabulary, []))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return inner
    words = [token.decode() for token in tokenizer.token_bytes]
    inner = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN)
    )
    # `.` would skip line breaks.
    pieces = r"[\s\S]" if tokenizer.kind == "char" else word_pieces(saved.get("splitting", 1))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
    inner.decoder = decoders.Fuse()  # without one, tokens are joined by spaces
    return inner


def word_pieces(splitting: int) -> str:
    r"""The pattern of the word tokenizer, with Python's `\w` and `\s` written out.

    The library's own classes differ from Python's in thousands of characters, and both change
    with each version of Unicode.
    """
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    word, space = (
        "".join(
            found[0] if len(found) == 1 else f"{found[0]}-{found[-1]}"
            for found in re.findall(pattern, characters)
        )
        for pattern in (r"\w+", r"\s+")
    )
    return pieces_pattern(splitting, word, space)
