"""A coverage-guided fuzz target for the checkpoint reader; not part of the test suite.

    pip install atheris
    python tests/fuzz/fuzz_checkpoint.py FOLDER -max_total_time=600

FOLDER keeps the corpus, which grows from run to run; its seeds are made here. Every option of
libFuzzer works: `-seed=1`, or a file in place of the folder, to try it alone. What must hold of any
bytes: a `CheckpointError` that names the file, or a model with exactly the file's weights.

A blind change hardly ever leaves a header that can be read, and never the right digest. So changes
are also made inside one part, with the lengths around it kept right, and whatever has a header is
signed anew and tried again: thus descriptions, tokenizers and shapes are reached that were forged.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["minigpt_cli"]):
    from minigpt_cli.errors import CheckpointError
    from minigpt_cli.runs.checkpoint import load_checkpoint, model_tensors
    from minigpt_cli.runs.checkpoint_header import read_header

import safetensors.torch
import torch

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

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-checkpoint-"))
FILE = FOLDER / "checkpoint.safetensors"
WORDS = """
F32 BF16 I64 U8 BOOL F4 data_offsets dtype shape __metadata__ minigpt digest format format_version
minigpt-checkpoint vocab_size tokenizer kind char word byte bpe vocabulary merges model family
classic modern n_layer n_head n_kv_head n_embd n_hidden block_size tie_embeddings rope_theta step
val_loss true null NaN 1e999 -1 9223372036854775807
"""


def loads(content: bytes) -> bool:
    """Whether the bytes are a model; anything except a model or a clean refusal is a bug."""
    FILE.write_bytes(content)
    try:
        found = load_checkpoint(FILE)
    except CheckpointError as error:
        if not str(error).startswith(f"{FILE}: ") or len(str(error)) > 2000:
            raise AssertionError(error) from None
        return False
    header, data = parts(content)
    assert header["__metadata__"]["digest"] == digest(header, data)
    wanted = safetensors.torch.load(content)  # the library's own reader
    weights = model_tensors(found.model)
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert found.tokenizer.vocab_size == found.model.vocab_size == len(found.tokenizer.token_bytes)
    return True


def try_bytes(content: bytes) -> None:
    """One input of the fuzzer."""
    if loads(content):
        return
    try:
        read_header(FILE)
    except CheckpointError:
        return
    header, data = parts(content)
    if "__metadata__" in header:
        loads(signed(header, data))


def mutate(content: bytes, most: int, seed: int) -> bytes:
    """Another input of at most this many bytes."""
    other = mutated(content, most, seed)
    return other if len(other) <= most else bytes(atheris.Mutate(content, most))


def mutated(content: bytes, most: int, seed: int) -> bytes:
    """The input changed anywhere, or within one part of the file."""
    chance = random.Random(seed)
    try:
        header, data = parts(content)
        metadata = header["__metadata__"]
        described = json.loads(metadata["minigpt"])
    except (ValueError, LookupError, TypeError):
        return bytes(atheris.Mutate(content, most))

    def changed(text: str) -> str:
        return bytes(atheris.Mutate(text.encode(errors="replace"), most)).decode(errors="replace")

    match chance.choice(["any", "header", "tensors", "description", "tokenizer", "tokenizer"]):
        case "any":
            return bytes(atheris.Mutate(content, most))
        case "header":
            return joined(changed(json.dumps(header)), data)
        case "tensors":
            return joined(header, bytes(atheris.Mutate(data, most)))
        case "tokenizer":
            described["tokenizer"] = changed(str(described.get("tokenizer")))
            metadata["minigpt"] = json.dumps(described)
        case _:
            metadata["minigpt"] = changed(metadata["minigpt"])
    return joined(header, data)


def seeds() -> list[bytes]:
    """Good files of both families and all tokenizers, and some with one thing wrong."""
    path = FOLDER / "seed"
    kinds = ("char", "word", "byte", "bpe")
    good = [tiny_checkpoint(path, config, kind) for config in (MODERN, CLASSIC) for kind in kinds]
    header, data = parts(good[0])
    model = json.loads(header["__metadata__"]["minigpt"])["model"]
    return [
        *good,
        joined({}, b""),
        joined({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        signed(header, b"\xff" * len(data)),
        forged(good[0], model={**model, "n_embd": 2**30}),
        forged(good[0], model={**model, "n_layer": 2**30}),
        forged(good[0], tokenizer='{"kind": "char", "vocabulary": ["ab", "c"]}'),
    ]


def main() -> None:
    arguments = [sys.argv[0]]
    for argument in sys.argv[1:]:
        arguments.append(argument)
        if not argument.startswith("-") and not Path(argument).is_file():
            Path(argument).mkdir(parents=True, exist_ok=True)
            for number, seed in enumerate(seeds()):
                (Path(argument) / f"seed-{number}").write_bytes(seed)
    dictionary = FOLDER / "words"
    dictionary.write_text("".join(f'"{word}"\n' for word in WORDS.split()))
    limits = ["-rss_limit_mb=2048", "-timeout=20", "-max_len=20000", f"-dict={dictionary}"]
    atheris.Setup([*arguments[:1], *limits, *arguments[1:]], try_bytes, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
