"""How a plan for other machines is shown: `minigpt train --dry-run --gpus N`."""

from dataclasses import asdict

from rich.table import Table

from minigpt_cli.cli.console import err, out, print_json, print_note
from minigpt_cli.cli.render import count, key_value_table, model_size, raw, short_count, size
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.io.text import duration
from minigpt_cli.training.memory import Memory
from minigpt_cli.training.plan import Plan

_STRATEGIES = {
    "one": "one process",
    "ddp": "ddp: a whole model on each GPU, gradients summed",
    "fsdp": "fsdp: weights, gradients and optimizer state shared among the GPUs",
}
_DAY = 86_400


def print_plan(config: RunConfig, plan: Plan, as_json: bool) -> None:
    """Prints the plan to stdout, and to stderr what to change."""
    if as_json:
        print_json({**asdict(plan), "config": config.model_dump(mode="json")})
        return
    out.print(plan_table(config, plan))
    for line in plan.advice:
        err.print(raw(f"- {line}"), soft_wrap=not err.is_terminal)
    print_note("Computed from the sizes alone, not measured: see docs/scaling.md.")


def plan_table(config: RunConfig, plan: Plan) -> Table:
    """The plan's rows."""
    table, train = key_value_table(), config.train
    machines = f" in {count(plan.machines)} machines" if plan.machines > 1 else ""
    table.add_row("machines", f"{count(plan.gpus)} × {plan.gpu}{machines}")
    table.add_row("strategy", _STRATEGIES[plan.strategy])
    table.add_row(
        "parameters",
        f"{count(plan.parameters)} ({model_size(config.model)}, vocabulary "
        f"{count(plan.vocab_size)})",
    )
    verdict = "fits" if plan.fits else "[bold]does not fit[/]"
    table.add_row(
        "memory per GPU", f"{size(plan.memory.peak)} of {size(plan.gpu_memory_bytes)}: {verdict}"
    )
    for name, number in _kinds(plan.memory):
        table.add_row(f"  {name}", size(number))
    passes = f"{plan.passes} pass{'es' * (plan.passes > 1)}"
    table.add_row(
        "a step",
        f"{count(plan.tokens_per_step)} tokens; {count(plan.sequences_per_gpu)} sequences per GPU "
        f"in {passes}",
    )
    if plan.traffic.bytes:
        table.add_row(
            "sent per GPU and step",
            f"{size(plan.traffic.bytes)}, {duration(plan.traffic.seconds)}, of which "
            f"{duration(plan.traffic.exposed_seconds)} not behind the backward pass",
        )
    table.add_row("time per step", duration(plan.seconds_per_step))
    table.add_row("speed", f"{count(round(plan.tokens_per_second))} tokens/s")
    table.add_row("total time", f"{days(plan.seconds)}, at {plan.utilization:.0%} of the bf16 peak")
    table.add_row("compute", f"{plan.flops:.2e} FLOPs, {count(train.max_iters)} steps")
    ratio = plan.tokens / plan.compute_optimal_tokens
    table.add_row(
        "tokens",
        f"{short_count(plan.tokens)}; {short_count(plan.compute_optimal_tokens)} suit this size "
        f"(Chinchilla): {ratio:.2g} times that",
    )
    table.add_row("data", f"{size(plan.token_bytes)} of token ids, if each is read once")
    return table


def by_kind(memory: Memory) -> str:
    """A process's memory in one line."""
    return ", ".join(f"{name} {size(number)}" for name, number in _kinds(memory))


def days(seconds: float) -> str:
    """A duration, in days when it is long."""
    return duration(seconds) if seconds < 2 * _DAY else f"{seconds / _DAY:,.1f} days"


def _kinds(memory: Memory) -> list[tuple[str, int]]:
    return [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer state", memory.optimizer_state),
        ("activations", memory.activations),
        ("logits", memory.logits),
        ("transients", memory.transients),
        ("program", memory.program),
    ]
