"""`README.md` of an exported folder: what the model is, how to use it, how it was made."""

import re
from pathlib import PurePath

from minigpt_cli.config.schema import ClassicConfig, RunConfig
from minigpt_cli.interop.hf_format import modern_kind
from minigpt_cli.io.text import printable
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata

_TEMPLATE = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- minigpt
---

# {name}

A small GPT {made} with minigpt {version}. No remote code is needed to load it.

| | |
|---|---|
{rows}

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/of/this/folder")
inputs = tokenizer({prompt}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))
```

It has no end-of-text and no padding token: it writes until `max_new_tokens`, and reads one text at
a time unless you choose a padding token yourself. {window}
"""
_RECIPE = """
## Training

With these settings saved as `run.toml`, `{command}` repeats the run{base}:

{fence}toml
{toml}{fence}
"""


def model_card(checkpoint: Checkpoint, name: str) -> str:
    """The card's text; `name` is its title."""
    metadata, config = checkpoint.metadata, checkpoint.model.config
    classic = isinstance(config, ClassicConfig)
    architecture = "GPT-2" if isinstance(config, ClassicConfig) else modern_kind(config)[1]
    parameters = sum(p.numel() for p in checkpoint.model.parameters())
    rows: list[tuple[str, str]] = [
        ("Architecture", f"{architecture} (`{config.family}` in minigpt)"),
        ("Parameters", f"{parameters:,}"),
        ("Layers, heads, width", f"{config.n_layer}, {config.n_head}, {config.n_embd}"),
        ("Context window", f"{config.block_size:,} tokens"),
        ("Tokenizer", f"{checkpoint.tokenizer.kind}, {metadata.vocab_size:,} tokens"),
        ("Training text", _markdown(metadata.corpus)),
        ("Steps", f"{metadata.step:,}"),
    ]  # fmt: skip
    measured = (
        ("Training loss", metadata.train_loss, "nats per token"),
        ("Validation loss", metadata.val_loss, "nats per token"),
        ("Validation bits per byte", metadata.bits_per_byte, ""),
    )
    rows += [(what, f"{n:.4f} {unit}".strip()) for what, n, unit in measured if n is not None]
    text = _TEMPLATE.format(
        name=_markdown(name),
        made=_made(metadata),
        version=metadata.version,
        rows="\n".join(f"| {what} | {value} |" for what, value in rows),
        prompt=repr(checkpoint.tokenizer.decode(checkpoint.tokenizer.start_ids)),
        window=f"It cannot read beyond {config.block_size:,} tokens." if classic else
               f"Past {config.block_size:,} tokens the window slides.",
    )  # fmt: skip
    run = metadata.config
    return text if run is None else text + _recipe(run)


def _recipe(run: RunConfig) -> str:
    # A card is made to be published: where the text was on the disk is nobody's business.
    names = tuple(PurePath(name).name or name for name in run.data.corpus)
    data = run.data.model_copy(update={"corpus": names})
    toml = printable(run.model_copy(update={"data": data}).to_toml())
    began = run.data.tokenizer_sha256 is not None
    longest = max((len(ticks) for ticks in re.findall("`+", toml)), default=0)
    return _RECIPE.format(
        fence="`" * max(3, longest + 1),
        toml=toml,
        command="minigpt train --preset run.toml" + (" --init-from BASE" if began else ""),
        base=" from the same base model" if began else "",
    )


def _made(metadata: CheckpointMetadata) -> str:
    """How the weights came about."""
    if not metadata.fingerprint:  # read from another program's files
        return "converted"
    if metadata.data.tokenizer_sha256 is None:
        return "trained from scratch"
    return "finetuned" if metadata.lora is None else "finetuned by low-rank adapters, merged,"


def _markdown(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    line = printable(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", line)
