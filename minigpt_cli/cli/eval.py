"""`minigpt eval`: how well models predict a text."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minigpt_cli.cli.help import examples
from minigpt_cli.cli.loading import load, short_name
from minigpt_cli.cli.options import (
    DEFAULT_DATA_DIR,
    DataDir,
    Device,
    Encoding,
    Json,
    Quantize,
    Verify,
    in_data,
)
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.cli.texts import Include, TextField, piped_kept, reading_settings
from minigpt_cli.cli.typed import models_and_texts
from minigpt_cli.config.choices import Split
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.data.tokens.token_files import Tokens
    from minigpt_cli.evaluation import Evaluation
    from minigpt_cli.runs.checkpoint import Checkpoint

EXAMPLE = examples(
    "minigpt eval", "minigpt eval runs/small runs/nanogpt", "minigpt eval my-poems.txt"
)


@dataclass(frozen=True)
class Text:
    """The text to measure models on."""

    sources: tuple[str, ...]
    """Files, folders or known corpora; empty for each model's own text."""
    split: Split
    reading: dict[str, object]
    """Settings of how it is read, where they are not the model's own."""
    data_dir: Path
    verify: bool


@dataclass(frozen=True)
class Scored:
    """One model's result."""

    path: Path
    checkpoint: "Checkpoint"
    result: "Evaluation"


def evaluate(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN|FILE",
            help="Run folders or checkpoint files (default: the newest run), and texts.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        in_data("--data", "-d", help="Another text: known corpus, file or folder; repeatable.",
                show_default="the text it was trained on"),
    ] = None,
    split: Annotated[
        Split | None,
        in_data("--split", help="Which part of the text.", show_default="val; all with --data"),
    ] = None,
    text_field: TextField = None,
    include: Include = None,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    verify: Verify = False,
    quantize: Quantize = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Measure models: loss, perplexity, bits per byte and accuracy over a whole text.

    Every token is predicted once, so the result is the same each time.
    Bits per byte can be compared between models with different tokenizers.
    """
    import_torch()
    from minigpt_cli.cli.console import print_json
    from minigpt_cli.cli.render import count_progress
    from minigpt_cli.evaluation import evaluate as score

    models, texts = models_and_texts(checkpoints or [], data or [])
    only = {"--encoding": encoding, "--text-field": text_field, "--include": include}
    for option in (option for option, value in only.items() if value and not texts):
        raise typer.BadParameter(_("{option} is only valid with --data").format(option=option))
    texts = piped_kept(texts, data_dir, text_field)
    reading = {"data.encoding": encoding or "utf-8", **reading_settings(include, text_field)}
    text = Text(tuple(texts), split or ("all" if texts else "val"), reading, data_dir, verify)
    scored: list[Scored] = []
    wanted: list[Path | None] = [*models] or [None]
    for given in wanted:
        loaded = load(given, device, quantize=quantize)
        path, model, tokenizer = loaded.path, loaded.checkpoint.model, loaded.checkpoint.tokenizer
        tokens = _tokens(loaded.checkpoint, text, first=not scored)
        with count_progress(_("tokens")) as progress:
            result = score(model, tokenizer, tokens, progress=progress)
        if quantize:
            with count_progress(_("tokens")) as progress:
                exact = score(load(path).checkpoint.model, tokenizer, tokens, progress=progress)
            _note_cost(path, quantize, result.loss, exact.loss)
        scored.append(Scored(path, loaded.checkpoint, result))
    if as_json:
        print_json([_json(one, text) for one in scored])
    else:
        _print_table(scored, text)


def _note_cost(path: Path, quantize: str, loss: float, exact: float) -> None:
    """Says what quantizing costs."""
    from minigpt_cli.cli.console import print_note

    note = _("{path}: {quantize} adds {more:+.4f} to the loss ({exact:.4f} without)")
    print_note(note.format(path=path, quantize=quantize, more=loss - exact, exact=exact))


def _tokens(checkpoint: "Checkpoint", text: Text, first: bool) -> "Tokens":
    """The tokens to predict: of the model's own text, found by its fingerprint, or of another."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.cli.text_files import corpus_lines
    from minigpt_cli.config.loading import resolve
    from minigpt_cli.data.dataset import encode_corpus
    from minigpt_cli.data.workspace import Workspace

    with file_progress() as progress:
        workspace = Workspace(text.data_dir, progress, print_note, text.verify)
        if text.sources:
            trained = checkpoint.metadata.data
            how = resolve({"data": trained.model_dump()}, text.reading, _("the model")).data
            corpus = workspace.corpus(text.sources, how)
            for line in corpus_lines(corpus) if first else []:
                print_note(line)
            return encode_corpus(corpus, checkpoint.tokenizer, text.split, trained.val_fraction)
        return workspace.own_dataset(checkpoint.metadata).tokens(text.split)


def _json(scored: Scored, text: Text) -> dict[str, Any]:
    checkpoint, result = scored.checkpoint, scored.result
    return {
        "checkpoint": str(scored.path),
        "step": checkpoint.metadata.step,
        "tokenizer": checkpoint.tokenizer.kind,
        "corpus": ", ".join(text.sources) or checkpoint.metadata.corpus,
        "split": text.split,
        **asdict(result),
        "perplexity": result.perplexity,
    }


def _print_table(scored: list[Scored], text: Text) -> None:
    from minigpt_cli.cli.console import out, print_note
    from minigpt_cli.cli.render import count, fit, grid, raw

    own = dict.fromkeys(one.checkpoint.metadata.corpus for one in scored)
    parts = {"all": _("whole text"), "train": _("train split"), "val": _("val split")}
    table = grid(
        _("checkpoint"), _("kind"), _("step"), _("tokens"), _("loss"), _("perplexity"),
        _("bits/byte"), _("accuracy"),
        text_columns=2, title=raw(", ".join(text.sources or own) + _(", ") + parts[text.split]),
    )  # fmt: skip
    for one in scored:
        result = one.result
        table.add_row(
            raw(short_name(one.path)),
            one.checkpoint.tokenizer.kind,
            count(one.checkpoint.metadata.step),
            count(result.tokens),
            f"{result.loss:.4f}",
            f"{result.perplexity:.3f}",
            f"{result.bits_per_byte:.4f}",
            f"{result.accuracy:.1%}",
        )
    out.print(fit(table, out.width))
    if not text.sources and len(own) > 1:
        print_note(_("Each model was measured on its own text; the results are not comparable."))
    for one in scored:
        if one.result.unknown_tokens:
            share = one.result.unknown_tokens / one.result.tokens
            print_note(
                _("{path}: {share:.1%} of the tokens are <unk>; their bytes do not count.").format(
                    path=one.path, share=share
                )
            )
