"""Generation speed: `python -m benchmarks.generate`.

The baby GPT (6 layers, 6 heads, 384 wide, block 256, modern) with random weights generates 500
tokens from a prompt of one. The baselines are recomputing the whole context for every token, as
nanoGPT does; `transformers` with its own cache; and multiplying by each weight matrix once per
token and doing nothing else, in plain PyTorch and with the matrices packed in advance.
The contenders take turns, so that changes of the machine's speed affect all of them. Needs the
extra `bench`.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.machine import keep, markdown
from minigpt_cli.config.schema import ModernConfig
from minigpt_cli.generation.decoder import product
from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.model.quantization import quantize_int8

VOCAB, TOKENS, MANY = 65, 500, 100_000


def model(dtype: torch.dtype, quantized: bool = False) -> GPT:
    """The baby GPT with all weights random, so that no kernel is given zeros."""
    torch.manual_seed(0)
    gpt = GPT(ModernConfig(), VOCAB).initialize().eval()
    for parameter in gpt.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    gpt.compute_dtype = dtype
    if quantized:
        quantize_int8(gpt)
    return gpt


def writing(gpt: GPT, batch: int) -> Callable[[], float]:
    """minigpt: total tokens per second over all texts."""

    def run() -> float:
        started = time.perf_counter()
        for _ in generate_tokens(gpt, GenerationRequest([[0]], TOKENS, num_samples=batch)):
            pass
        return batch * TOKENS / (time.perf_counter() - started)

    return run


def recomputing(gpt: GPT) -> Callable[[], float]:
    """The whole context for every token; every tenth length is enough without a cache."""
    lengths = range(1, TOKENS, 10)

    @torch.inference_mode()
    def run() -> float:
        started = time.perf_counter()
        for length in lengths:
            gpt(torch.zeros(1, min(length, 256), dtype=torch.long))[0, -1].softmax(-1).multinomial(
                1
            ).item()
        return len(lengths) / (time.perf_counter() - started)

    return run


def transformers_writing() -> Callable[[], float]:
    """`transformers`: `generate` of a Qwen3 of the same size in fp32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import Qwen3Config, Qwen3ForCausalLM

    config = ModernConfig()
    peer: Any = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCAB,
            hidden_size=config.n_embd,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.hidden,
            max_position_embeddings=1024,
            eos_token_id=None,
            bos_token_id=None,
        )
    )
    peer.eval()

    def run() -> float:
        started = time.perf_counter()
        ids = torch.zeros(1, 1, dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.generate(
                ids, max_new_tokens=TOKENS, do_sample=True, attention_mask=torch.ones_like(ids)
            )
        return TOKENS / (time.perf_counter() - started)

    return run


def reading(gpt: GPT, laid_out: bool) -> Callable[[], float]:
    """The matrix-vector products alone, in bf16."""
    linears = [module for module in gpt.modules() if isinstance(module, Linear)]
    inputs = {linear.in_features: torch.randn(1, linear.in_features) for linear in linears}
    inputs = {size: x.bfloat16() for size, x in inputs.items()}
    products = [
        (inputs[linear.in_features], product(linear, torch.bfloat16))
        if laid_out
        else (
            inputs[linear.in_features],
            partial(F.linear, weight=linear.weight.detach().bfloat16()),
        )
        for linear in linears
    ]

    @torch.inference_mode()
    def run() -> float:
        started = time.perf_counter()
        for _ in range(TOKENS):
            for x, multiply in products:
                multiply(x)
        return TOKENS / (time.perf_counter() - started)

    return run


def trained_like_small(folder: Path) -> dict[str, str]:
    """Trains a model like `small` for one step in a folder; returns the environment to use it."""
    env = {**os.environ, "MINIGPT_DATA": str(Path.cwd() / "data")}
    train = ["train", "--preset", "small", "--max-iters", "1", "--set", "train.sample_tokens=0"]
    subprocess.run([sys.executable, "-m", "minigpt_cli", *train, "--json"], cwd=folder, check=True,
                   env=env, capture_output=True)  # fmt: skip
    return env


def to_the_first_character(rounds: int) -> float:
    """Seconds from the shell to the first character of a model like `small`."""
    with tempfile.TemporaryDirectory() as folder:
        env = trained_like_small(Path(folder))
        run = [sys.executable, "-m", "minigpt_cli", "generate", "-p", ""]
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            write = subprocess.Popen(run, cwd=folder, env=env, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL)  # fmt: skip
            assert write.stdout
            write.stdout.read(1)
            seconds.append(time.perf_counter() - started)
            write.kill()
        return statistics.median(seconds)


def memory_growth() -> int:
    """Bytes by which the process grew while a tiny model wrote many tokens."""
    config = ModernConfig(n_layer=1, n_head=2, n_embd=32, block_size=64)
    gpt = GPT(config, VOCAB).initialize().eval()
    for i, _ in enumerate(generate_tokens(gpt, GenerationRequest([[0]], MANY))):
        if i == MANY // 10:  # everything has been allocated by now
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def main() -> None:
    """Runs the contenders in turn and keeps the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    fp32, bf16 = model(torch.float32), model(torch.bfloat16)
    int8 = model(torch.bfloat16, quantized=True)
    contenders = {
        "context computed again for each token, fp32": recomputing(fp32),
        "transformers, its cache, fp32": transformers_writing(),
        "the bf16 products alone, plain": reading(fp32, laid_out=False),
        "the bf16 products alone, laid out": reading(fp32, laid_out=True),
        "minigpt, fp32": writing(fp32, 1),
        "minigpt, bf16": writing(bf16, 1),
        "minigpt, int8": writing(int8, 1),
        "minigpt, bf16, 32 texts": writing(bf16, 32),
        "minigpt, int8, 32 texts": writing(int8, 32),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            speeds[name].append(run())
    middle = {name: statistics.median(found) for name, found in speeds.items()}
    peers = list(middle)[:4]
    rows = [
        [name, f"{speed:,.0f}", *(f"{speed / middle[peer]:.2f}" for peer in peers)]
        for name, speed in middle.items()
    ]
    columns = ["", "tokens/s", "of computing again", "of transformers", "of plain", "of laid out"]
    table = markdown(columns, rows)
    first = to_the_first_character(rounds)
    with multiprocessing.get_context("spawn").Pool(
        1
    ) as fresh:  # a process with no memory in use yet
        growth = fresh.apply(memory_growth)
    table += f"\n\nFrom the shell to the first character, `small`: {first:.2f} s."
    table += f"\nGrowth of memory over {MANY:,} tokens: {growth:,} bytes."
    keep("generate", table, {"tokens_per_second": speeds, "first": first, "growth": growth})


if __name__ == "__main__":
    main()
