"""Pages of small random models, and node to ask their engines."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
from minigpt_cli.model.gpt import GPT
from minigpt_cli.pages.playground import PageDtype, playground_page, rounded
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import SPLITTINGS
from minigpt_cli.tokenizer.factory import train_tokenizer
from tests.helpers.checkpoints import checkpoint_of

NODE = shutil.which("node")
SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 24, "block_size": 40}
MODELS: dict[str, ModelConfig] = {
    "modern": ModernConfig(**SIZES, n_kv_head=2, n_hidden=50),
    "modern-tied": ModernConfig(**{**SIZES, "block_size": 41}, tie_embeddings=True),
    "classic": ClassicConfig(**SIZES),
    "guide": ClassicConfig(**SIZES, activation="relu", qkv_bias=False, tie_embeddings=True),
    "nanogpt": ClassicConfig(**{**SIZES, "block_size": 33}, bias=False),
}


def random_checkpoint(
    config: ModelConfig,
    kind: TokenizerKind,
    text: str,
    vocab_size: int | None = None,
    splitting: int = SPLITTINGS[0],
) -> Checkpoint:
    """A model whose every weight is random, large enough that texts do not settle into a loop."""
    tokenizer = train_tokenizer(kind, [text], vocab_size, splitting)
    torch.manual_seed(1)
    model = GPT(config, tokenizer.vocab_size).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=2.0 if "position" in name else 0.5 if weight.dim() > 1 else 0.1)
            if "norm" in name and name.endswith("weight"):
                weight.add_(1.0)
    return checkpoint_of(model, tokenizer)


def greedy(checkpoint: Checkpoint, ids: list[int], tokens: int) -> list[tuple[int, Tensor]]:
    """What Python writes at temperature 0: each token, and the logits it was chosen from, (V)."""
    request = GenerationRequest([ids], tokens, Sampling(temperature=0))
    steps = generate_tokens(checkpoint.model, request)
    return [(token, step.logits[0]) for step in steps if (token := step.tokens[0]) is not None]


def round_weights(checkpoint: Checkpoint, dtype: PageDtype) -> None:
    """Gives a model the weights of its page."""
    with torch.no_grad():
        for weight in checkpoint.model.parameters():
            weight.copy_(rounded(weight, dtype))


def ask(page: Path, *requests: dict[str, Any]) -> list[Any]:
    """What the page's engine answers under node."""
    assert NODE is not None
    program = Path(__file__).with_name("engine.js")
    result = subprocess.run(
        [NODE, program, page], input=json.dumps(requests), capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr
    answers: list[Any] = json.loads(result.stdout)
    return answers


def write_page(checkpoint: Checkpoint, path: Path, dtype: PageDtype, **options: Any) -> Path:
    """The page of a model, as a file."""
    page = playground_page(checkpoint, dtype, **options)
    file = path / "page.html"
    file.write_text(page, encoding="utf-8")
    return file
