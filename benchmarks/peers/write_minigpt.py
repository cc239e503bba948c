"""minigpt writes: `… write_minigpt CHECKPOINT fp32|bf16|int8 TOKENS compiled|plain`.

`plain` is what it does where there is no C compiler.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.turns import Turn, serve


def prepare() -> tuple[str, Turn]:
    """Loads the checkpoint as `minigpt generate` does."""
    path, dtype, tokens, decoder = sys.argv[1:]
    if decoder == "plain":
        os.environ["MINIGPT_CC"] = ""
    import torch

    from minigpt_cli import __version__
    from minigpt_cli.generation.sampling import Sampling
    from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
    from minigpt_cli.model.quantization import quantize_int8
    from minigpt_cli.runs.checkpoint import load_checkpoint

    gpt = load_checkpoint(Path(path)).model
    gpt.compute_dtype = torch.float32 if dtype == "fp32" else torch.bfloat16
    if dtype == "int8":
        quantize_int8(gpt)

    def turn(request: dict[str, Any]) -> dict[str, Any]:
        prompts = [[token] for token in request["prompts"]]
        asked = GenerationRequest(prompts, int(tokens), Sampling(temperature=0.0))
        started = time.perf_counter()
        written = [step.tokens for step in generate_tokens(gpt, asked)]
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": [list(text) for text in zip(*written, strict=True)]}

    return f"minigpt {__version__}, torch {torch.__version__}", turn


if __name__ == "__main__":
    serve(prepare)
