"""How a plan for other machines is shown: `minigpt train --dry-run --gpus N`."""

from dataclasses import asdict

from rich.table import Table

from minigpt_cli.cli.console import err, out, print_json, print_note
from minigpt_cli.cli.render import count, key_value_table, model_size, raw, short_count, size
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.io.text import duration
from minigpt_cli.language import _, mark, ngettext
from minigpt_cli.training.planning.memory import Memory
from minigpt_cli.training.planning.plan import Plan, Strategy

_STRATEGIES: dict[Strategy, str] = {
    "one": mark("one process"),
    "ddp": mark("ddp: a whole model on each GPU, gradients summed"),
    "fsdp": mark("fsdp: weights, gradients and optimizer state shared among the GPUs"),
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
    print_note(_("Computed from the sizes alone, not measured: see docs/scaling.md."))


def plan_table(config: RunConfig, plan: Plan) -> Table:
    """The plan's rows."""
    table = key_value_table()
    gpus = f"{count(plan.gpus)} × {plan.gpu}"
    if plan.machines > 1:
        gpus = _("{gpus} in {machines} machines").format(gpus=gpus, machines=count(plan.machines))
    table.add_row(_("machines"), gpus)
    table.add_row(_("strategy"), _(_STRATEGIES[plan.strategy]))
    sizes = _("{sizes}, vocabulary {vocabulary}").format(
        sizes=model_size(config.model), vocabulary=count(plan.vocab_size)
    )
    table.add_row(_("parameters"), f"{count(plan.parameters)} ({sizes})")
    verdict = _("{bytes} of {all}: fits") if plan.fits else _("{bytes} of {all}: does not fit")
    used, most = size(plan.memory.peak), size(plan.gpu_memory_bytes)
    table.add_row(_("memory per GPU"), verdict.format(bytes=used, all=most))
    for name, number in _kinds(plan.memory):
        table.add_row(f"  {name}", size(number))
    _add_work(table, config, plan)
    return table


def _add_work(table: Table, config: RunConfig, plan: Plan) -> None:
    """The rows about time and data."""
    step = ngettext(
        "{tokens} tokens; {sequences} sequences per GPU in {passes} pass",
        "{tokens} tokens; {sequences} sequences per GPU in {passes} passes",
        plan.passes,
    )
    sequences = count(plan.sequences_per_gpu)
    table.add_row(
        _("a step"),
        step.format(tokens=count(plan.tokens_per_step), sequences=sequences, passes=plan.passes),
    )
    if plan.traffic.bytes:
        sent = _("{bytes} in {time}, of which a step waits {waiting}").format(
            bytes=size(plan.traffic.bytes),
            time=duration(plan.traffic.seconds),
            waiting=duration(plan.traffic.exposed_seconds),
        )
        table.add_row(_("sent per GPU and step"), sent)
    table.add_row(_("time per step"), duration(plan.seconds_per_step))
    table.add_row(
        _("speed"), _("{number} tokens/s").format(number=count(round(plan.tokens_per_second)))
    )
    total = _("{time}, at {share:.0%} of the bf16 peak")
    table.add_row(_("total time"), total.format(time=_days(plan.seconds), share=plan.utilization))
    work = _("{flops:.2e} FLOPs in {steps} steps")
    table.add_row(_("compute"), work.format(flops=plan.flops, steps=count(config.train.max_iters)))
    suit = _("{tokens}; {suitable} suit this size (Chinchilla): {ratio:.2g} times that").format(
        tokens=short_count(plan.tokens),
        suitable=short_count(plan.compute_optimal_tokens),
        ratio=plan.tokens / plan.compute_optimal_tokens,
    )
    table.add_row(_("tokens"), suit)
    ids = _("{bytes} of token ids, if each is read once")
    table.add_row(_("data"), ids.format(bytes=size(plan.token_bytes)))


def by_kind(memory: Memory) -> str:
    """A process's memory in one line."""
    return _(", ").join(f"{name} {size(number)}" for name, number in _kinds(memory))


def _days(seconds: float) -> str:
    """A duration, in days when it is long."""
    if seconds < 2 * _DAY:
        return duration(seconds)
    return _("{days:,.1f} days").format(days=seconds / _DAY)


def _kinds(memory: Memory) -> list[tuple[str, int]]:
    return [
        (_("weights"), memory.weights),
        (_("gradients"), memory.gradients),
        (_("optimizer state"), memory.optimizer_state),
        (_("activations"), memory.activations),
        (_("logits"), memory.logits),
        (_("transients"), memory.transients),
        (_("program"), memory.program),
    ]
