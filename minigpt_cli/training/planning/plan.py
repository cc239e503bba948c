"""What a run would take on machines that are not here: memory, time, data, and what to change.

Computed from sizes alone; nothing is trained, and no accelerator is asked.

N is the number of GPUs, P the number of parameters.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.tokenizer.bpe import DEFAULT_VOCAB_SIZE
from minigpt_cli.training.automatic import AUTO
from minigpt_cli.training.lora import adapter_count
from minigpt_cli.training.planning.accelerators import PER_MACHINE, Accelerator
from minigpt_cli.training.planning.fitting import fit_batch, smaller_batches
from minigpt_cli.training.planning.memory import (
    Memory,
    Pass,
    replica_fits,
    sizes_of,
    training_memory,
)
from minigpt_cli.training.setup import TrainRequest

Strategy = Literal["one", "ddp", "fsdp"]

UTILIZATION = 0.4
"""Default share of the peak that training reaches; 0.35 to 0.45 is usual for models of a billion
parameters and more on GPUs, and less for small ones."""
CHINCHILLA = 20
"""Training tokens for each parameter at which a given amount of compute gives the lowest loss
(Hoffmann et al. 2022, arXiv:2203.15556)."""
MOST_GPUS = 1_000_000
_USABLE = 0.9
"""Share of an accelerator's memory to plan with; the rest is lost to holes in its allocator."""
_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class Machines:
    """The machines to plan for."""

    gpus: int
    accelerator: Accelerator
    utilization: float = UTILIZATION
    """Share of the peak FLOP/s that training reaches."""

    @property
    def count(self) -> int:
        """Machines, of `PER_MACHINE` accelerators each."""
        return -(-self.gpus // PER_MACHINE)

    @property
    def link(self) -> float:
        """Bytes per second, in one direction, over the slowest link between two neighbors."""
        device = self.accelerator
        return device.link_bytes_per_second if self.count == 1 else device.network_bytes_per_second


@dataclass(frozen=True)
class Traffic:
    """What each GPU sends in a step; it receives as much."""

    bytes: int
    seconds: float
    """At the full speed of the link."""
    hidden_seconds: float
    """The part that the backward pass can cover."""

    @property
    def exposed_seconds(self) -> float:
        """What a step waits for."""
        return self.seconds - self.hidden_seconds


@dataclass(frozen=True)
class Plan:
    """What a run would take."""

    gpus: int
    machines: int
    gpu: str
    gpu_memory_bytes: int
    utilization: float
    parameters: int
    vocab_size: int
    strategy: Strategy
    memory: Memory
    """For each GPU."""
    fits: bool
    sequences_per_gpu: int
    """In a step, on the GPU that has most."""
    passes: int
    """Forward and backward passes of a GPU in a step."""
    tokens_per_step: int
    tokens: int
    """Of the whole run."""
    compute_optimal_tokens: int
    """Chinchilla's, for this many parameters."""
    token_bytes: int
    """The run's tokens on disk, if each is read once."""
    flops: float
    """Of the whole run."""
    traffic: Traffic
    seconds_per_step: float
    tokens_per_second: float
    seconds: float
    """Time of the steps alone, without evaluations, saves and failures."""
    advice: tuple[str, ...]
    """What does not fit, or is wasteful, and what to change; one line each."""


def known_vocab_size(config: RunConfig) -> int | None:
    """The vocabulary's size, or the most it can be; None where only the text tells it."""
    kind = config.data.tokenizer
    if kind == "byte":
        return 256
    return config.data.vocab_size or (DEFAULT_VOCAB_SIZE if kind == "bpe" else None)


def planned(request: TrainRequest, machines: Machines) -> tuple[RunConfig, Plan]:
    """Plans what the user asks for; reads the text only where the vocabulary depends on it.

    Raises:
        MinigptError: in the preset or the data, or the machines do not suit the run.
    """
    if request.preset == AUTO:
        raise ConfigError(
            _("preset auto measures this machine, and cannot plan for another; name another preset")
        )
    config, initial = request.unresolved_config(), request.initial
    vocab_size = known_vocab_size(config) if initial is None else initial.tokenizer.vocab_size
    if vocab_size is None:
        vocab_size = request.workspace.dataset(config.data).tokenizer.vocab_size
    if request.max_memory is not None:
        strategy = _strategy(config, vocab_size, machines)
        at = partial(memory_per_gpu, config, vocab_size, strategy, machines)
        config, note = fit_batch(config, request.max_memory, at)
        request.note(note)
    return config, plan(config, vocab_size, machines)


def plan(config: RunConfig, vocab_size: int, machines: Machines) -> Plan:
    """Plans a run.

    Args:
        config: the run.
        vocab_size: V.
        machines: where it would run.

    Raises:
        ConfigError: a step has fewer sequences than there are GPUs.
    """
    train, N = config.train, machines.gpus
    windows = train.batch_size * train.grad_accum_steps
    if windows < N:
        raise ConfigError(
            _(
                "train.batch_size × train.grad_accum_steps = {sequences} sequences per step cannot "
                "be shared among {gpus} GPUs; plan for at most {sequences}, or use larger batches"
            ).format(sequences=windows, gpus=N),
            (f"train.grad_accum_steps={-(-N // train.batch_size)}",),
        )
    share = -(-windows // N)
    passes = -(-share // train.batch_size)
    strategy = _strategy(config, vocab_size, machines)
    memory = memory_per_gpu(config, vocab_size, strategy, machines)
    per_token = 3 * forward_flops_per_token(config.model, vocab_size)
    if config.train.activation_checkpointing:
        per_token += forward_flops_per_token(config.model, vocab_size)
    per_step = windows * config.model.block_size
    speed = machines.accelerator.flops_per_second * machines.utilization
    computing = share * config.model.block_size * per_token / speed
    P = sizes_of(config.model, vocab_size).parameters
    traffic = _traffic(P, strategy, machines, computing, passes)
    step = computing + traffic.exposed_seconds
    draft = Plan(
        gpus=N,
        machines=machines.count,
        gpu=machines.accelerator.title,
        gpu_memory_bytes=machines.accelerator.memory_bytes,
        utilization=machines.utilization,
        parameters=P,
        vocab_size=vocab_size,
        strategy=strategy,
        memory=memory,
        fits=memory.peak <= _USABLE * machines.accelerator.memory_bytes,
        sequences_per_gpu=share,
        passes=passes,
        tokens_per_step=per_step,
        tokens=per_step * train.max_iters,
        compute_optimal_tokens=CHINCHILLA * P,
        token_bytes=per_step * train.max_iters * (2 if vocab_size <= 2**16 else 4),
        flops=float(per_step) * train.max_iters * per_token,
        traffic=traffic,
        seconds_per_step=step,
        tokens_per_second=per_step / step,
        seconds=step * train.max_iters,
        advice=(),
    )
    return replace(draft, advice=tuple(_advice(draft, config, vocab_size, machines)))


def _strategy(config: RunConfig, vocab_size: int, machines: Machines) -> Strategy:
    """As set, or `ddp` while a whole model with its optimizer leaves room for the activations."""
    if machines.gpus == 1:
        return "one"
    setting = config.distributed.strategy
    if setting == "ddp" or config.lora is not None:  # adapters are not sharded
        return "ddp"
    parameters = sizes_of(config.model, vocab_size).parameters
    averages = config.optimizer.ema_decay > 0
    fits = replica_fits(parameters, machines.accelerator.memory_bytes, averages)
    return "ddp" if setting == "auto" and fits else "fsdp"


def memory_per_gpu(
    config: RunConfig,
    vocab_size: int,
    strategy: Strategy,
    machines: Machines,
    batch_size: int | None = None,
) -> Memory:
    """What one GPU takes, with the run's sequences per pass or with another number of them."""
    N, train = machines.gpus, config.train
    share = -(-train.batch_size * train.grad_accum_steps // N)
    size = min(share, batch_size or train.batch_size)
    of = Pass(
        batch_size=size,
        bytes_per_value=_FP32 if train.precision == "fp32" else _BF16,
        on_cpu=False,
        accumulates=share > size,
        checkpointing=config.train.activation_checkpointing,
    )
    replicas, shards = (N if strategy == "ddp" else 1), (N if strategy == "fsdp" else 1)
    return training_memory(
        config.model, vocab_size, config.optimizer, of,
        replicas=replicas, shards=shards, adapters=adapter_count(config),
    )  # fmt: skip


def _traffic(
    parameters: int, strategy: Strategy, machines: Machines, computing: float, passes: int
) -> Traffic:
    """Bytes that each GPU sends in a step, by ring algorithms, and how long that takes.

    DDP sums fp32 gradients once in a step: 2 (N-1)/N · 4P bytes. FSDP gathers bf16 weights for the
    forward and again for the backward pass, and sums and scatters fp32 gradients, in every pass:
    (N-1)/N · (2 + 2 + 4) P bytes.
    """
    N = machines.gpus
    ring = (N - 1) / N * parameters
    if strategy == "fsdp":
        sent, share = passes * ring * (2 * _BF16 + _FP32), 1.0
    else:
        sent, share = ring * 2 * _FP32, 2 / 3 / passes  # during the last backward pass
    seconds = sent / machines.link
    return Traffic(round(sent), seconds, min(seconds, share * computing))


def _advice(draft: Plan, config: RunConfig, vocab_size: int, machines: Machines) -> list[str]:
    """What does not fit or is wasteful, and what to change."""
    found = [] if draft.fits else [_smaller(draft, config, vocab_size, machines)]
    windows = config.train.batch_size * config.train.grad_accum_steps
    if windows % draft.gpus:
        even = -(-windows // draft.gpus) * draft.gpus
        found.append(
            _(
                "{sequences} sequences a step do not divide among {gpus} GPUs, and some wait for "
                "the others: use {even}"
            ).format(sequences=windows, gpus=draft.gpus, even=even)
        )
    if draft.traffic.exposed_seconds > 0.1 * draft.seconds_per_step:
        waiting = draft.traffic.exposed_seconds / draft.seconds_per_step
        advice = (  # fsdp sends in every pass
            _(
                "{waiting:.0%} of a step waits for the network: use more sequences a pass "
                "(train.batch_size) or fewer GPUs"
            )
            if draft.strategy == "fsdp"
            else _(
                "{waiting:.0%} of a step waits for the network: use more sequences a step "
                "(train.grad_accum_steps) or fewer GPUs"
            )
        )
        found.append(advice.format(waiting=waiting))
    ratio = draft.tokens / draft.compute_optimal_tokens
    if ratio < 0.5:
        found.append(
            _(
                "the run has {ratio:.1%} of the tokens that suit its size: raise train.max_iters "
                "to {steps:,}, or train a smaller model"
            ).format(ratio=ratio, steps=round(config.train.max_iters / ratio))
        )
    return found


def _smaller(draft: Plan, config: RunConfig, vocab_size: int, machines: Machines) -> str:
    """In one line: the first change that makes the run fit."""
    usable = _USABLE * draft.gpu_memory_bytes
    problem = _("{needed:.1f} GB do not fit {usable:.1f} usable GB").format(
        needed=draft.memory.peak / 1e9, usable=usable / 1e9
    )
    windows = config.train.batch_size * config.train.grad_accum_steps
    strategies: tuple[Strategy, ...] = (draft.strategy, "fsdp") if draft.gpus > 1 else ("one",)
    for strategy in dict.fromkeys(strategies):
        for size in smaller_batches(config):
            memory = memory_per_gpu(config, vocab_size, strategy, machines, size)
            if memory.peak <= usable:
                settings = [
                    f"train.batch_size={size}", f"train.grad_accum_steps={windows // size}",
                    *(["distributed.strategy=fsdp"] if strategy != draft.strategy else []),
                ]  # fmt: skip
                return _("{problem}: set {settings}, the same batch in more passes").format(
                    problem=problem, settings=_(", ").join(settings)
                )
    if draft.gpus == 1 or draft.memory.weights > 0.5 * usable:
        return _(
            "{problem}, not even one sequence at a time: use more GPUs (fsdp shares weights and "
            "optimizer among them), or a smaller model"
        ).format(problem=problem)
    return _(
        "{problem}, not even one sequence at a time: one layer does not fit, and needs tensor "
        "parallelism, which torchtitan has; or a smaller model.block_size or model.n_embd"
    ).format(problem=problem)
