"""CTranslate2 writes: `python -m benchmarks.peers.write_ctranslate2 FOLDER TYPE TOKENS THREADS`.

Converts the exported folder first, which needs `transformers` and PyTorch beside CTranslate2.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.turns import Turn, serve


def prepare() -> tuple[str, Turn]:
    """Converts the weights and opens them."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    folder, kind, tokens, threads = sys.argv[1:]
    with tempfile.TemporaryDirectory() as converted:
        TransformersConverter(folder).convert(converted, force=True)
        config = Path(converted) / "config.json"  # where it insists on names for these two
        named = {**json.loads(config.read_text()), "bos_token": "", "eos_token": ""}
        config.write_text(json.dumps(named))
        generator = ctranslate2.Generator(
            converted, compute_type=kind, inter_threads=1, intra_threads=int(threads)
        )
        vocabulary = json.loads((Path(converted) / "vocabulary.json").read_text(encoding="utf-8"))

    def turn(request: dict[str, Any]) -> dict[str, Any]:
        prompts = [[vocabulary[token]] for token in request["prompts"]]
        started = time.perf_counter()
        results = generator.generate_batch(
            prompts, max_length=int(tokens), min_length=int(tokens), sampling_topk=1, beam_size=1,
            include_prompt_in_result=False,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": [result.sequences_ids[0] for result in results]}

    return f"CTranslate2 {ctranslate2.__version__}", turn


if __name__ == "__main__":
    serve(prepare)
