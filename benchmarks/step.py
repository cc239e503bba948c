"""Where the time of a training step goes: `python -m benchmarks.step`.

The baby GPT (6 layers, 6 heads, 384 wide, block 256, batch 16), in both families and several
precisions, compared with plain fp32 PyTorch and its fused attention. Plain PyTorch runs in a
process of its own, where `keep_freed_memory` has no effect.
"""

import argparse
import multiprocessing
import statistics
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import keep, markdown
from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig, OptimizerConfig
from minigpt_cli.device import matmul_flops
from minigpt_cli.io.memory import keep_freed_memory
from minigpt_cli.model.compilation import compile_blocks
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.model.gpt import GPT
from minigpt_cli.training.optimizers.optimizer import Optimizer

BATCH, BLOCK, VOCAB = 16, 256, 65
SIZES: dict[str, Any] = {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": BLOCK}


class PlainBlock(nn.Module):
    """A textbook GPT-2 block: the baseline."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        attn_out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attn_out.transpose(1, 2).reshape(B, T, C))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class PlainGPT(nn.Module):
    """A GPT of the same size in plain fp32 PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        width = SIZES["n_embd"]
        self.token, self.place = nn.Embedding(VOCAB, width), nn.Embedding(BLOCK, width)
        self.blocks = nn.Sequential(
            *(PlainBlock(width, SIZES["n_head"]) for _ in range(SIZES["n_layer"]))
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCAB, bias=False)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = self.blocks(self.token(idx) + self.place.weight)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


class Contender:
    """A model and its optimizer, to be timed."""

    def __init__(self, name: str, config: ModelConfig | None, optimizer: str, mode: str) -> None:
        torch.manual_seed(0)
        self.name, self.config = name, config
        self.x, self.y = torch.randint(VOCAB, (2, BATCH, BLOCK))
        self.seconds: list[float] = []
        self.casts = config is None and mode == "bf16"
        if config is None:
            plain = PlainGPT()
            self.model: nn.Module = plain
            self.optimizer: torch.optim.Optimizer | Optimizer = torch.optim.AdamW(
                plain.parameters(), lr=1e-3
            )
            return
        model = GPT(config, VOCAB).initialize()
        model.compute_dtype = torch.float32 if mode == "fp32" else torch.bfloat16
        self.optimizer = Optimizer(model, OptimizerConfig.model_validate({"name": optimizer}))
        self.model = model
        if mode == "compiled":
            reason = compile_blocks(model, self.x, self.y)
            self.name += f" (not: {reason})" if reason else ""

    def step(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.casts):
            loss = self.model(self.x, self.y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed_step(self) -> None:
        started = time.perf_counter()
        self.step()
        self.seconds.append(time.perf_counter() - started)

    @property
    def tokens_per_second(self) -> float:
        return BATCH * BLOCK / statistics.median(self.seconds)


class Apart(Contender):
    """Plain PyTorch in another process, which steps on request."""

    def __init__(self, name: str, mode: str) -> None:
        self.name, self.config = name, None
        self.seconds: list[float] = []
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        context.Process(target=step_on_request, args=(mode, other), daemon=True).start()

    def step(self) -> None:
        self.pipe.send("step")
        self.pipe.recv()

    def timed_step(self) -> None:
        self.pipe.send("step")
        self.seconds.append(self.pipe.recv())


def step_on_request(mode: str, pipe: Connection) -> None:
    """The process behind `Apart`."""
    contender = Contender("", None, "adamw", mode)
    with suppress(EOFError):  # the benchmark has ended
        while pipe.recv():
            contender.timed_step()
            pipe.send(contender.seconds[-1])


def where_time_goes(contender: Contender) -> str:
    """The slowest operations of one step, as a Markdown table."""
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        contender.step()
    events = sorted(trace.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    rows = [
        [event.key, f"{event.self_cpu_time_total / total:.1%}", str(event.count)]
        for event in events[:14]
    ]
    return f"{contender.name}\n\n" + markdown(["operation", "share of the step", "calls"], rows)


def main() -> None:
    """Times the contenders in turn, round by round."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    classic, modern = ClassicConfig.model_validate(SIZES), ModernConfig.model_validate(SIZES)
    contenders = [
        Apart("plain PyTorch, fp32", "fp32"),
        Apart("plain PyTorch, bf16 by autocast", "bf16"),
        Contender("classic, fp32", classic, "adamw", "fp32"),
        Contender("classic, bf16", classic, "adamw", "bf16"),
        Contender("modern, bf16, AdamW", modern, "adamw", "bf16"),
        Contender("modern, bf16, Muon", modern, "muon", "bf16"),
        Contender("classic, bf16, compiled", classic, "adamw", "compiled"),
        Contender("modern, bf16, Muon, compiled", modern, "muon", "compiled"),
    ]
    for contender in contenders:
        contender.step()
    for _ in range(rounds):
        for contender in contenders:
            contender.timed_step()
    base = contenders[0].tokens_per_second
    peak = matmul_flops(torch.device("cpu"), torch.bfloat16)
    rows = []
    for contender in contenders:
        speed, used = contender.tokens_per_second, "-"
        if contender.config is not None and "bf16" in contender.name:
            flops = 3 * forward_flops_per_token(contender.config, VOCAB)
            used = f"{speed * flops / peak:.0%}"
        rows.append([contender.name, f"{speed:,.0f}", f"{speed / base:.2f}", used])
    columns = ["training step", "tokens/s", "of plain PyTorch", "of the bf16 peak"]
    parts = [
        markdown(columns, rows),
        where_time_goes(contenders[3]),
        where_time_goes(contenders[5]),
    ]
    keep("step", "\n\n".join(parts), {"seconds": {c.name: c.seconds for c in contenders}})


if __name__ == "__main__":
    main()
