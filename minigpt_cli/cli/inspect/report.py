"""`minigpt inspect report`: everything known about a run, as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.inspect.output import Output, save, save_plot
from minigpt_cli.cli.loading import RunPath, load, run_folder
from minigpt_cli.cli.options import Force, Html, Json, Plot
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _

Playground = Annotated[
    bool,
    typer.Option(
        "--playground", help="Include the model, to write with in the browser (see export)."
    ),
]
EXAMPLE = "minigpt inspect report runs/small"


def show(
    run: RunPath = None,
    html: Html = None,
    plot: Plot = None,
    playground: Playground = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an HTML report of a run, and show its summary.

    The report is RUN/report.html and is replaced each time; --html FILE writes it elsewhere.
    """
    import_torch()
    from minigpt_cli.cli.inspect import history as rendering
    from minigpt_cli.cli.render import busy
    from minigpt_cli.inspection.run_history import read_run
    from minigpt_cli.pages.run_report import look_inside, report_page
    from minigpt_cli.runs.folder import RunFolder

    output = Output(as_json, plot, html, force)
    folder = RunFolder(run_folder(run))
    history = read_run(folder.path)
    with busy(_("Drawing the report")):
        model = _playground(folder.path) if playground else None
        page = report_page(history, look_inside(folder), playground=model)
    if html is None:
        folder.write_report(page)
        print_note(_("Wrote {report}").format(report=folder.report))
    else:
        save(page.encode(), html)
    if plot:
        from minigpt_cli.plots.runs import draw_runs

        save_plot(draw_runs([history]), plot)
    output.show(rendering.as_json([history]), [rendering.summary(history)])


def _playground(run: Path) -> str:
    """The model of a run as a page.

    Raises:
        MinigptError: the checkpoint is missing, or too large for a page.
    """
    from minigpt_cli.cli.export.html import check_size
    from minigpt_cli.pages.playground import playground_page, usual_dtype

    loaded = load(run)
    check_size(loaded, usual_dtype(loaded.checkpoint))
    return playground_page(loaded.checkpoint)
