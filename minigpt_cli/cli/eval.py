"""`minigpt eval`: how well models predict a text."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minigpt_cli.cli.options import (
    DATA,
    DEFAULT_DATA_DIR,
    DataDir,
    Device,
    Encoding,
    Json,
    Quantize,
)
from minigpt_cli.config.choices import Split

if TYPE_CHECKING:
    from minigpt_cli.data.dataset import Tokens
    from minigpt_cli.evaluation import Evaluation
    from minigpt_cli.runs.checkpoint import Checkpoint

EXAMPLE = (
    "Examples:  minigpt eval    minigpt eval runs/small runs/nanogpt    "
    "minigpt eval --data my-poems.txt"
)


def evaluate(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(help="Checkpoints or runs' folders. Default: the newest run."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Another text; may be repeated.",
                     show_default="the one it was trained on", rich_help_panel=DATA),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option("--split", help="Which part.", show_default="val; all with --data",
                     rich_help_panel=DATA),
    ] = None,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quantize: Quantize = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Measure models: loss, perplexity, bits per byte and accuracy over a whole text.

    Every token is predicted once, so the figures are the same each time. Bits per byte compares
    models of different tokenizers.
    """
    from minigpt_cli.cli.console import print_json, print_note
    from minigpt_cli.device import pick_device
    from minigpt_cli.evaluation import evaluate as score
    from minigpt_cli.model.quantization import quantize_int8
    from minigpt_cli.runs.checkpoint import load_checkpoint
    from minigpt_cli.runs.folder import find_checkpoint

    if encoding and not data:
        raise typer.BadParameter("--encoding is that of the files that --data names; name them")
    part: Split = split or ("all" if data else "val")
    results = []
    wanted: list[Path | None] = [*(checkpoints or [])] or [None]
    for given in wanted:
        path, chosen = find_checkpoint(given)
        if chosen:
            print_note(f"Using {path}")
        wanted_device = "cpu" if quantize and device == "auto" else device
        loaded = load_checkpoint(path, pick_device(wanted_device))
        tokens = _tokens(loaded, data, part, encoding, data_dir)
        if quantize == "int8":
            rounded = deepcopy(loaded.model)
            quantize_int8(rounded)
        result = score(loaded.model, loaded.tokenizer, tokens)
        if quantize == "int8":
            whole, result = result, score(rounded, loaded.tokenizer, tokens)
            print_note(
                f"{path}: int8 costs {result.loss - whole.loss:+.4f} of loss "
                f"({whole.loss:.4f} without)"
            )
        results.append((path, loaded, result))
    if as_json:
        print_json([_facts(path, data, part, loaded, result) for path, loaded, result in results])
    else:
        _print_table(results, part, data)


def _tokens(
    loaded: "Checkpoint", data: list[str] | None, split: Split, encoding: str | None, data_dir: Path
) -> "Tokens":
    """The text to score: the model's own, found by its fingerprint, or another."""
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.dataset import encode_corpus
    from minigpt_cli.data.workspace import Workspace

    with file_progress() as progress:
        workspace = Workspace(data_dir, progress)
        if data:
            trained = loaded.metadata.data
            corpus = workspace.corpus(tuple(data), encoding or "utf-8", trained.newlines)
            return encode_corpus(corpus, loaded.tokenizer, split, trained.val_fraction)
        own = workspace.own_dataset(loaded.metadata)
    return own.tokens(split)


def _facts(
    path: Path, data: list[str] | None, split: Split, loaded: "Checkpoint", result: "Evaluation"
) -> dict[str, Any]:
    return {
        "checkpoint": str(path),
        "step": loaded.metadata.step,
        "tokenizer": loaded.tokenizer.kind,
        "corpus": loaded.metadata.corpus if data is None else ", ".join(data),
        "split": split,
        **asdict(result),
        "perplexity": result.perplexity,
    }


def _print_table(
    results: "list[tuple[Path, Checkpoint, Evaluation]]", split: Split, data: list[str] | None
) -> None:
    from minigpt_cli.cli.console import out, print_note
    from minigpt_cli.cli.render import count, grid, raw
    from minigpt_cli.runs.folder import CHECKPOINT

    corpora = dict.fromkeys(loaded.metadata.corpus for _, loaded, _ in results)
    text = ", ".join(data or corpora)
    table = grid(
        "checkpoint", "kind", "step", "tokens", "loss", "perplexity", "bits/byte", "accuracy",
        text_columns=2,
        title=raw(f"{text}, {'whole text' if split == 'all' else f'{split} split'}"),
    )  # fmt: skip
    for path, loaded, result in results:
        table.add_row(
            raw(str(path.parent if path.name == CHECKPOINT else path)),
            loaded.tokenizer.kind,
            count(loaded.metadata.step),
            count(result.tokens),
            f"{result.loss:.4f}",
            f"{result.perplexity:.3f}",
            f"{result.bits_per_byte:.4f}",
            f"{result.accuracy:.1%}",
        )
    out.print(table)
    if not data and len(corpora) > 1:
        print_note("Each model was measured on its own text: the figures do not compare.")
    for path, _, result in results:
        if result.unknown_tokens:
            share = result.unknown_tokens / result.tokens
            print_note(f"{path}: {share:.1%} of the tokens are <unk>; their bytes are not counted.")
