"""The picture of a run: the numbers drawn are the numbers logged."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from minigpt_cli.inspection.clipping import ceiling
from minigpt_cli.inspection.run_history import RunHistory
from minigpt_cli.plots.canvas import DPI, image_bytes
from minigpt_cli.plots.runs import draw_runs, smoothed
from minigpt_cli.runs.metrics import EvaluationRow, RewindRow, SpikeRow, StepRow


def run_named(name: str, val_losses: list[float], grad_norm: float | None = 0.5) -> RunHistory:
    """100 steps, an evaluation every 20."""
    return RunHistory(
        path=Path(name),
        config=None,
        config_problem=None,
        steps=tuple(StepRow(n, 4 - n / 50, 0.01, 50_000 + n, grad_norm) for n in range(1, 101)),
        evaluations=tuple(
            EvaluationRow(20 * i, loss, train_loss=4 - 20 * i / 50)
            for i, loss in enumerate(val_losses, 1)
        ),
        samples=(),
        incidents=(),
        machines=(),
    )


def xs(line: Line2D) -> list[float]:
    found: list[float] = np.asarray(line.get_xdata()).tolist()
    return found


def ys(line: Line2D) -> list[float]:
    found: list[float] = np.asarray(line.get_ydata()).tolist()
    return found


RISING = [3.0, 2.5, 2.8, 2.9, 3.1]


def test_losses_drawn_are_the_losses_logged_and_the_best_is_marked() -> None:
    run = run_named("runs/a", RISING)
    loss, rate, speed, norm = draw_runs([run]).axes
    lines = {line.get_label(): line for line in loss.get_lines()}
    logged = np.array([(row.step, row.loss) for row in run.steps])
    assert np.array_equal(lines["training, as logged"].get_xydata(), logged)
    assert xs(lines["validation"]) == [20, 40, 60, 80, 100]
    assert ys(lines["validation"]) == RISING
    best = lines["best: 2.5000 at step 40"]
    assert (xs(best), ys(best)) == ([40], [2.5])
    assert ys(rate.get_lines()[0]) == [0.01] * 100
    assert ys(speed.get_lines()[0]) == [50_000 + n for n in range(1, 101)]
    assert ys(norm.get_lines()[0]) == [0.5] * 100


def test_axes_say_what_they_are_and_share_the_steps() -> None:
    figure = draw_runs([run_named("runs/a", RISING)])
    names = [axes.get_ylabel() for axes in figure.axes]
    assert names == ["loss (nats per token)", "learning rate", "tokens/s", "gradient norm"]
    assert figure.axes[-1].get_xlabel() == "step"
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert figure.get_suptitle() == "runs/a: loss over 100 steps"


def test_what_an_older_run_did_not_log_has_no_empty_field() -> None:
    names = [axes.get_ylabel() for axes in draw_runs([run_named("a", RISING, None)]).axes]
    assert names == ["loss (nats per token)", "learning rate", "tokens/s"]


def test_overfitting_is_shaded_from_the_best_step_on() -> None:
    (shade,) = draw_runs([run_named("runs/a", RISING)]).axes[0].patches
    assert isinstance(shade, Rectangle)
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (40, 100)
    assert not draw_runs([run_named("runs/a", [3.0, 2.5, 2.4])]).axes[0].patches


def test_spikes_and_rewinds_stand_at_their_steps_with_one_row_in_the_legend() -> None:
    incidents = {"incidents": (SpikeRow(30, 9.0), SpikeRow(31, 9.0), RewindRow(25))}
    run = RunHistory(**{**vars(run_named("runs/a", RISING)), **incidents})
    loss = draw_runs([run]).axes[0]
    dashed = [line for line in loss.get_lines() if line.get_linestyle() in (":", "--")]
    assert [xs(line)[0] for line in dashed] == [30, 31, 25]
    legend = loss.get_legend()
    assert legend is not None
    entries = [text.get_text() for text in legend.get_texts()]
    assert (entries.count("spike"), entries.count("rewind")) == (1, 1)


def test_several_runs_are_told_apart_by_color_and_name() -> None:
    runs = [run_named("runs/$x$_1", RISING), run_named("runs/b", [3.0, 2.0])]
    figure = draw_runs(runs)
    loss = figure.axes[0]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [r"A  runs/\$x\$_1, best 2.5000", "B  runs/b, best 2.0000"]
    named = [line for line in loss.get_lines() if line.get_label() in texts]
    assert [ys(line) for line in named] == [RISING, [3.0, 2.0]]
    assert len({line.get_color() for line in named}) == 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_run_has_whole_steps_and_one_point_is_seen(count: int) -> None:
    run = run_named("runs/a", [])
    run = replace(run, steps=run.steps[:count])
    for runs in ([run], [run, run]):
        figure = draw_runs(runs)
        figure.draw_without_rendering()
        below = figure.axes[-1]
        first, last = below.get_xlim()
        ticks = [tick for tick in below.get_xticks() if first <= tick <= last]
        assert ticks == list(range(1, count + 1))
        marked = [axes.get_lines()[-1].get_marker() == "o" for axes in figure.axes[1:]]
        assert marked == 3 * [count == 1]
        losses = [line for line in figure.axes[0].get_lines() if xs(line)]
        assert any(line.get_marker() == "o" for line in losses) == (count == 1)


def diverged() -> RunHistory:
    """Like the others up to step 50, then off."""
    run = run_named("runs/wild", [3.0, 2.5, 9e4, 9e4, 9e4])
    steps = [replace(row, loss=1.6e5, grad_norm=4e3) if row.step > 50 else row for row in run.steps]
    return replace(run, steps=tuple(steps))


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_that_diverged_does_not_press_the_others_flat(order: int) -> None:
    figure = draw_runs([run_named("runs/a", RISING), diverged()][::order])
    loss, rate, _, norm = figure.axes
    low, high = loss.get_ylim()
    assert low < 2.0 < 3.98 < high < 5  # the first run's losses
    assert loss.get_title("right") == "clipped at 3.98; the highest is 1.6e+05"
    assert norm.get_ylim()[1] < 1
    assert norm.get_title("right") == "clipped at 0.5; the highest is 4e+03"
    assert not rate.get_title("right")
    assert image_bytes(figure, "png")


def test_what_lies_near_enough_is_not_clipped() -> None:
    falling = [10.8, 5.0, *[1.5] * 50]
    assert ceiling([falling]) is None
    assert ceiling([falling, [4.2, *[0.02] * 50]]) is None  # learned by heart
    assert ceiling([falling, [10.8, 20.0, 40.0] + [1e5] * 30]) == 20.0
    assert ceiling([[0.5] * 99 + [30.0]]) == 0.5
    assert ceiling([[4.2, 1.6e5]]) is None  # alone it is shown as it went
    assert ceiling([[4.2, 1.6e5], falling]) == 10.8
    assert ceiling([[0.0, 0.0], [3.0], []]) is None
    assert ceiling([]) is None


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("part", ["long_name", "长名字", "$W$"])
def test_long_paths_lose_their_beginning_and_cover_nothing(count: int, part: str) -> None:
    runs = [run_named(f"{part}/" * (120 // len(part)) + f"run{i}", RISING) for i in range(count)]
    figure = draw_runs(runs, 9 if count > 1 else 6)
    image_bytes(figure, "png")  # in the fonts of the file
    texts = [figure.texts[0], *(text for one in figure.legends for text in one.get_texts())]
    assert all(f"/run{i}" in text.get_text() for i, text in enumerate(texts[-count:]))
    assert all("…/" in text.get_text() for text in texts[-count:])
    for text in texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    for legend in figure.legends:
        for axes in figure.axes:
            drawn = axes.get_tightbbox()
            assert drawn is not None
            assert not legend.get_window_extent().overlaps(drawn)


@pytest.mark.parametrize("runs", [1, 2])
def test_image_has_the_stated_size(runs: int) -> None:
    figure = draw_runs([run_named(f"runs/$\\{i}", RISING) for i in range(runs)])
    pixels = imread(io.BytesIO(image_bytes(figure, "png")))
    width, height = figure.get_size_inches()
    assert pixels.shape[:2] == (round(height * DPI), round(width * DPI))
    assert b"<svg" in image_bytes(figure, "svg")


def test_smoothing_is_the_mean_of_the_neighbors() -> None:
    values = list(np.random.default_rng(0).normal(size=90))  # 3 to each side
    found = smoothed(values)
    assert len(found) == 90
    assert found[40] == pytest.approx(np.mean(values[37:44]))
    assert found[0] == pytest.approx(values[0])
    assert found[2] == pytest.approx(np.mean(values[0:5]))
    assert found[89] == pytest.approx(np.mean(values[86:90]))
    assert smoothed([]) == []
    assert smoothed([2.0]) == [2.0]
