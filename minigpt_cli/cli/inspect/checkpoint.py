"""The overview of a file: what a checkpoint is, from its header alone."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.render import (
    count,
    grid,
    key_value_table,
    losses,
    model_size,
    raw,
    shortened,
    size,
)
from minigpt_cli.inspection.files import Inspection, inspect_file
from minigpt_cli.language import _
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata, metadata_adapter

MOST_TENSORS = 1000
"""Rows of a table; laying out more takes minutes."""


def show_file(path: Path, tensors: bool, output: Output) -> None:
    """Shows what the header of a safetensors file says: its components, or every tensor."""
    inspection = inspect_file(path)
    by_component = inspection.components and not tensors
    table = _component_table(inspection) if by_component else _tensor_table(inspection)
    tables: list[Table | Text] = [_summary(inspection), Text(), table]
    if not by_component and len(inspection.tensors) > MOST_TENSORS:
        more = len(inspection.tensors) - MOST_TENSORS
        tables.append(
            Text(_("and {more} more tensors; --json lists all").format(more=count(more)), "dim")
        )
    output.show(_json(inspection), tables)


def _summary(inspection: Inspection) -> Table:
    table = key_value_table()
    table.add_row(_("file"), raw(str(inspection.path)))
    table.add_row(_("size on disk"), size(inspection.file_bytes))
    if inspection.checkpoint is None:
        made_by = _("minigpt: the state of a run") if inspection.is_state else _("another program")
        table.add_row(_("made by"), made_by)
        for key, value in inspection.metadata.items():
            table.add_row(raw(shortened(key, 30)), raw(shortened(value, 200)))
    else:
        for key, text in _described(inspection.checkpoint):
            table.add_row(key, raw(text))
        assert inspection.flops_per_token is not None
        table.add_row(
            _("FLOPs per token"),
            _("{flops_per_token} forward, full window").format(
                flops_per_token=count(inspection.flops_per_token)
            ),
        )
    table.add_row(_("parameters"), count(inspection.parameters))
    return table


def _described(metadata: CheckpointMetadata) -> list[tuple[str, str]]:
    """The metadata of a minigpt checkpoint, as names and texts."""
    model = metadata.model
    bits = metadata.bits_per_byte
    also = "" if bits is None else _(", {bits:.3f} bits per byte").format(bits=bits)
    rows = [
        (_("family"), model.family),
        (
            _("size"),
            _("{sizes}, block {block_size}").format(
                sizes=model_size(model), block_size=count(model.block_size)
            ),
        ),
        (
            _("tokenizer"),
            _("{tokenizer}, vocabulary {vocab_size}").format(
                tokenizer=metadata.data.tokenizer, vocab_size=count(metadata.vocab_size)
            ),
        ),
        (
            _("corpus"),
            _("{corpus} (fingerprint {fingerprint})").format(
                corpus=metadata.corpus, fingerprint=metadata.fingerprint
            ),
        ),
        (_("text files"), ", ".join(metadata.data.corpus)),
        (
            _("adapters"),
            ""
            if metadata.lora is None
            else _("rank {rank}, merged").format(rank=metadata.lora.rank),
        ),
        (_("step"), count(metadata.step)),
        (_("loss"), losses(metadata.train_loss, metadata.val_loss) + also),
        (_("written by"), f"minigpt {metadata.version}"),
    ]
    return [(key, text) for key, text in rows if text]


def _component_table(inspection: Inspection) -> Table:
    assert inspection.components is not None
    table = grid(
        _("component"),
        _("shapes"),
        _("dtype"),
        _("parameters"),
        _("share"),
        _("bytes"),
        text_columns=3,
        prose=[1],
    )
    for component in inspection.components:
        shapes: dict[str, int] = {}
        for tensor in component.tensors:
            shape = "x".join(str(n) for n in tensor.shape)
            shapes[shape] = shapes.get(shape, 0) + 1
        table.add_row(
            _(component.name, "component"),
            ", ".join(
                _("{n} of {shape}").format(n=n, shape=shape) if n > 1 else shape
                for shape, n in shapes.items()
            ),
            ", ".join(sorted({tensor.dtype for tensor in component.tensors})),
            count(component.parameters),
            f"{component.parameters / max(1, inspection.parameters):.1%}",
            size(sum(tensor.bytes for tensor in component.tensors)),
        )
    return table


def _tensor_table(inspection: Inspection) -> Table:
    table = grid(_("tensor"), _("shape"), _("dtype"), _("parameters"), _("share"), text_columns=3)
    for tensor in inspection.tensors[:MOST_TENSORS]:
        table.add_row(
            raw(tensor.name),
            "x".join(str(n) for n in tensor.shape) or _("scalar"),
            tensor.dtype,
            count(tensor.elements),
            f"{tensor.elements / max(1, inspection.parameters):.1%}",
        )
    return table


def _json(inspection: Inspection) -> dict[str, Any]:
    metadata = inspection.checkpoint
    described = None
    if metadata is not None:
        described = metadata_adapter().dump_python(metadata, mode="json")
        del described["tokenizer"]  # long, and named in data
    return {
        "path": str(inspection.path),
        "file_bytes": inspection.file_bytes,
        "parameters": inspection.parameters,
        "flops_per_token": inspection.flops_per_token,
        "checkpoint": described,
        "metadata": inspection.metadata if metadata is None else None,
        "components": [
            {"name": c.name, "parameters": c.parameters} for c in inspection.components or ()
        ],
        "tensors": [{**asdict(t), "bytes": t.bytes} for t in inspection.tensors],
    }
