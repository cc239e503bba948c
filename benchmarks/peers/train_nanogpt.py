"""nanoGPT's own model and optimizer: `… train_nanogpt FOLDER fp32|bf16|compiled`.

On a CPU its `train.py` computes in fp32; `bf16` is autocast around the forward pass, as that script
does on a GPU, and `compiled` is `torch.compile`, its default, on top of that.
"""

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.turns import Turn, serve


def prepare() -> tuple[str, Turn]:
    """Imports the folder's `model.py`."""
    folder, mode = sys.argv[1:]
    if not (Path(folder) / "model.py").is_file():
        raise ImportError("name a checkout with --nanogpt")
    import torch

    sys.path.insert(0, folder)
    from model import GPT, GPTConfig

    torch.manual_seed(0)
    plain = GPT(
        GPTConfig(
            block_size=256, vocab_size=65, n_layer=6, n_head=6, n_embd=384, dropout=0.0, bias=False
        )
    )
    optimizer = plain.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    model: Any = torch.compile(plain) if mode == "compiled" else plain
    x, y = torch.randint(65, (2, 16, 256))

    def turn(_request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode != "fp32"):
            _, loss = model(x, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "seconds": time.perf_counter() - started}

    return f"nanoGPT, torch {torch.__version__}", turn


if __name__ == "__main__":
    serve(prepare)
