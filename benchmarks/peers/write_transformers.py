"""`transformers` writes, from an exported folder.

`python -m benchmarks.peers.write_transformers FOLDER fp32|bf16 TOKENS dynamic|static|compiled`;
`compiled` has a static cache and its forward pass through `torch.compile`.
"""

import sys
import time
import warnings
from typing import Any

from benchmarks.turns import Turn, serve

TYPES = {"fp32": "float32", "bf16": "bfloat16"}


def prepare() -> tuple[str, Turn]:
    """Loads the folder with `from_pretrained`."""
    import torch
    import transformers

    warnings.simplefilter("ignore")
    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    folder, dtype, tokens, cache = sys.argv[1:]
    # No text here reaches the end of the window. With a sliding one, the static cache counts its
    # tokens in Python, and compiled code is compiled again for each new count.
    config = transformers.AutoConfig.from_pretrained(folder)
    config.sliding_window, config.layer_types = None, ["full_attention"] * config.num_hidden_layers
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=getattr(torch, TYPES[dtype])
    )
    model.eval()
    options: dict[str, Any] = {"max_new_tokens": int(tokens), "do_sample": False}
    options |= {"eos_token_id": None, "pad_token_id": 0}
    if cache != "dynamic":
        options["cache_implementation"] = "static"
    if cache == "compiled":
        model.forward = torch.compile(model.forward, dynamic=False)

    @torch.inference_mode()
    def turn(request: dict[str, Any]) -> dict[str, Any]:
        prompts = torch.tensor(request["prompts"])[:, None]
        mask = torch.ones_like(prompts)
        started = time.perf_counter()
        written = model.generate(prompts, attention_mask=mask, **options)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": written[:, 1:].tolist()}

    return f"transformers {transformers.__version__}", turn


if __name__ == "__main__":
    serve(prepare)
