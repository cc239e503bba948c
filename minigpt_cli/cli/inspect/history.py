"""The overview of runs: how training went, and how several runs compare."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import in_unicode, out
from minigpt_cli.cli.inspect.chart import Series, chart
from minigpt_cli.cli.inspect.output import Output, save_plot
from minigpt_cli.cli.render import count, grid, key_value_table, losses, model_size, number, raw
from minigpt_cli.config.schema import differences, toml_value
from minigpt_cli.errors import about
from minigpt_cli.inspection.run_history import RunHistory, letter, read_run
from minigpt_cli.io.text import duration
from minigpt_cli.language import _

_COLORS = ("green", "magenta", "cyan", "red")


def show_runs(paths: Sequence[Path], output: Output) -> None:
    """Shows one run, or several side by side."""
    runs = [read_run(path) for path in paths]
    if output.plot:
        from minigpt_cli.plots.runs import draw_runs

        save_plot(draw_runs(runs), output.plot)
    output.show(as_json(runs), _alone(runs[0]) if len(runs) == 1 else _compared(runs))


def _alone(run: RunHistory) -> Iterator[Table | Text]:
    yield summary(run)
    yield Text()
    train = Series([(row.step, row.loss) for row in run.steps])
    validation = Series(_val_losses(run), "green", line=False, mark="o")
    key = _("loss, nats per token (the line is training, o is validation, * its best)")
    yield Text(key, "dim")
    curves = [train, validation]
    if run.best:
        curves.append(Series([(run.best.step, run.best.val_loss)], "green", line=False, mark="*"))
    yield _chart(curves, [run])
    for key, points, label in (
        (_("learning rate"), [(row.step, row.learning_rate) for row in run.steps], "{:.3g}"),
        (_("tokens/s"), [(row.step, row.tokens_per_second) for row in run.steps], "{:,.0f}"),
        (_("gradient norm"), [(row.step, row.grad_norm) for row in run.steps], "{:.3g}"),
    ):
        known = [(step, value) for step, value in points if value is not None]
        if known:
            yield Text(key, "dim")
            yield _chart([Series(known)], [run], height=3, label=label.format, axis=False)


MOST_INCIDENTS = 100


def summary(run: RunHistory) -> Table:
    """What a run is and how far it got, as names and values."""
    table = key_value_table()
    table.add_row(_("run"), raw(str(run.path)))
    if run.config is None:
        table.add_row(_("configuration"), raw(run.config_problem or "", "red"))
    else:
        model, data = run.config.model, run.config.data
        sizes = _("{sizes}, block {block_size}").format(
            sizes=model_size(model), block_size=count(model.block_size)
        )
        table.add_row(_("model"), model.family + _(", ") + sizes)
        table.add_row(_("text"), raw(f"{', '.join(data.corpus)} ({data.tokenizer})"))
    end = (
        _(" of {max_iters}").format(max_iters=count(run.config.train.max_iters))
        if run.config
        else ""
    )
    table.add_row(_("steps"), count(run.last_step) + end)
    if run.best:
        bits = run.best.bits_per_byte
        also = "" if bits is None else _(", {bits:.3f} bits per byte").format(bits=bits)
        table.add_row(
            _("best validation loss"),
            _("{val_loss:.4f} at step {step}{also}").format(
                val_loss=run.best.val_loss, step=count(run.best.step), also=also
            ),
        )
    if run.evaluations:
        last = run.evaluations[-1]
        shown = losses(last.train_loss, last.val_loss)
        table.add_row(
            _("last evaluation"),
            _("{shown} at step {step}").format(shown=shown, step=count(last.step)),
        )
        if last.elapsed is not None:
            table.add_row(_("time"), duration(last.elapsed))
    if run.rise:
        table.add_row("", Text(str(run.rise), "bold red"))
    for incident in run.incidents[:MOST_INCIDENTS]:
        table.add_row("", raw(str(incident), "red"))
    if len(run.incidents) > MOST_INCIDENTS:
        more = len(run.incidents) - MOST_INCIDENTS
        table.add_row(
            "", Text(_("and {more} more; --json lists all").format(more=count(more)), "red")
        )
    return table


def _compared(runs: Sequence[RunHistory]) -> Iterator[Table | Text]:
    names = [letter(i) for i in range(len(runs))]
    columns = (
        _("steps"),
        _("best val loss"),
        _("at step"),
        _("bits/byte"),
        _("last train"),
        _("time"),
    )
    table = grid("", _("run"), *columns, text_columns=2)
    for name, run in zip(names, runs, strict=True):
        best, last = run.best, run.evaluations[-1] if run.evaluations else None
        table.add_row(
            name,
            raw(str(run.path)),
            count(run.last_step),
            number(best.val_loss if best else None, ".4f"),
            number(best.step if best else None, ","),
            number(best.bits_per_byte if best else None, ".3f"),
            number(last.train_loss if last else None, ".4f"),
            duration(last.elapsed) if last and last.elapsed is not None else "-",
        )
    yield table
    for name, run in zip(names, runs, strict=True):
        if run.rise:
            yield Text(about(name, str(run.rise)), "bold red")
        if run.config_problem:
            yield raw(about(name, run.config_problem), "red")
    yield _differences(names, runs)
    all_curves: dict[str, list[list[tuple[float, float]]]] = {
        _("validation loss, nats per token"): [_val_losses(run) for run in runs],
        _("training loss, nats per token"): [
            [(row.step, row.loss) for row in run.steps] for run in runs
        ],
    }
    for what, curves in all_curves.items():
        if any(curves):
            yield Text(what, "dim")
            yield _chart(_lettered(names, curves), runs)


def _lettered(
    names: Sequence[str], curves: Sequence[Sequence[tuple[float, float]]]
) -> list[Series]:
    """A line for each run, labeled with its letter at the end and a few times before."""
    series = []
    for i, (name, points) in enumerate(zip(names, curves, strict=True)):
        color = _COLORS[i % len(_COLORS)]
        few = points[:: -max(1, len(points) // 6)]
        series += [Series(points, color), Series(few, color, line=False, mark=name)]
    return series


def _different(runs: Sequence[RunHistory]) -> dict[str, tuple[object, ...]]:
    configs = [run.config for run in runs if run.config is not None]
    return differences(*configs) if configs else {}


def _differences(names: Sequence[str], runs: Sequence[RunHistory]) -> Table | Text:
    known = [name for name, run in zip(names, runs, strict=True) if run.config is not None]
    found = _different(runs)
    if not found:
        return Text(
            _("no setting differs between {known}\n").format(known=", ".join(known))
            if len(known) > 1
            else ""
        )
    table = grid(_("what differs"), *known, text_columns=1 + len(known))
    for setting, values in found.items():
        shown = ["-" if value is None else toml_value(value) for value in values]
        table.add_row(setting, *map(raw, shown))
    return table


def _val_losses(run: RunHistory) -> list[tuple[float, float]]:
    return [(row.step, row.val_loss) for row in run.evaluations]


def _chart(series: Sequence[Series], runs: Sequence[RunHistory], **options: Any) -> Text:
    """A chart as wide as the terminal, from the first to the last step of all runs."""
    steps = [row.step for run in runs for rows in (run.steps, run.evaluations) for row in rows]
    options = {"height": max(10, min(20, out.width // 7)), **options}
    span = min(steps), max(steps)
    return chart(series, steps=span, width=out.width, unicode=in_unicode(), **options)


def as_json(runs: Sequence[RunHistory]) -> dict[str, Any]:
    """Every number of the runs, and the settings that differ."""
    return {
        "runs": [
            {
                "path": str(run.path),
                "config": run.config.model_dump(mode="json") if run.config else None,
                "config_problem": run.config_problem,
                "last_step": run.last_step,
                "best": asdict(run.best) if run.best else None,
                "overfitting": asdict(run.overfitting) if run.overfitting else None,
                **{
                    name: [asdict(row) for row in getattr(run, name)]
                    for name in ("steps", "evaluations", "samples", "machines")
                },
                "incidents": [{"type": row.type, **asdict(row)} for row in run.incidents],
            }
            for run in runs
        ],
        "differences": [
            {"setting": setting, "values": values} for setting, values in _different(runs).items()
        ],
    }
