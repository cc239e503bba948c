"""A folder of Hugging Face's `transformers` as a checkpoint of ours, read without that library.

Nothing in the folder is executed: settings are JSON, weights are safetensors, and both are checked
against each other before memory is set aside.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt_cli import __version__
from minigpt_cli.config.schema import DataConfig, ModelConfig
from minigpt_cli.errors import InteropError, about, reraise_as
from minigpt_cli.interop.hf_folder import CONFIG, INDEX, PICKLES, WEIGHTS, is_pickle
from minigpt_cli.interop.hf_format import GPT2, model_config, names_of
from minigpt_cli.interop.hf_tokenizer import from_hf
from minigpt_cli.interop.parts import parsed, parts_of, weights
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint, filled_model, model_tensors, read_tensor
from minigpt_cli.runs.checkpoint_header import (
    CheckpointMetadata,
    TensorEntry,
    open_tensors,
    read_header,
)
from minigpt_cli.tokenizer.base import Tokenizer

_LARGEST_JSON = 100_000_000
_COMPUTED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""What old files hold besides weights: masks and frequencies, which are computed."""


def read_hf(
    folder: Path, device: torch.device | str = "cpu", block_size: int | None = None
) -> Checkpoint:
    """Reads a model and its tokenizer.

    Args:
        folder: with `config.json`, `tokenizer.json` and safetensors.
        device: where the model goes.
        block_size: the window to use; by default the model's own, up to `LONGEST_WINDOW`.

    Raises:
        InteropError: a file is missing, damaged, or says something minigpt's models cannot be.
        CheckpointError: a safetensors file is damaged.
    """
    raw = _json(folder / CONFIG)
    try:
        config = model_config(raw, block_size)
    except InteropError as error:
        raise InteropError(about(folder / CONFIG, str(error))) from None
    tokenizer = _tokenizer(folder, raw)
    tensors = _tensors(folder, config, raw.get("vocab_size"))
    rows = tensors["token_embedding.weight"].size(0)
    if tokenizer.vocab_size > rows:
        raise InteropError(
            _(
                "{folder}: the tokenizer has {vocab_size} tokens but the weights only "
                "{rows}; use the tokenizer.json that belongs to the model"
            ).format(folder=folder, vocab_size=tokenizer.vocab_size, rows=rows)
        )
    for name in tensors.keys() & {"token_embedding.weight", "head.weight"}:
        tensors[name] = tensors[name][: tokenizer.vocab_size]  # the others only fill up
    model = filled_model(config, tokenizer.vocab_size, tensors, folder)
    metadata = CheckpointMetadata(
        version=__version__, model=config, vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.to_json(),
        data=DataConfig(corpus=(folder.resolve().name,), tokenizer=tokenizer.kind),
        corpus="unknown", fingerprint="", step=0, train_loss=None, val_loss=None,
        bits_per_byte=None,
    )  # fmt: skip
    return Checkpoint(model.to(device).eval(), tokenizer, metadata)


def _json(path: Path) -> dict[str, Any]:
    with reraise_as(InteropError, path, "read", missing=_("no such file")), path.open("rb") as file:
        data = file.read(_LARGEST_JSON + 1)
    try:
        if len(data) > _LARGEST_JSON:
            raise ValueError(_("it is too large"))
        value = read_json(data.decode())
        if not isinstance(value, dict):
            raise ValueError(_("it is not an object"))
    except ValueError as error:
        raise InteropError(
            _("{path}: not valid JSON ({error})").format(path=path, error=error)
        ) from None
    return value


def _tokenizer(folder: Path, raw: dict[str, Any]) -> Tokenizer:
    path = folder / "tokenizer.json"
    missing = _(
        'no such file; make it with: python -c "from transformers import AutoTokenizer; '
        "AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER')\""
    )
    with reraise_as(InteropError, path, "read", missing=missing):
        text = path.read_bytes().decode("utf-8", "replace")
    generation = folder / "generation_config.json"
    said = {**raw, **(_json(generation) if generation.is_file() else {})}
    end = said.get("eos_token_id")
    ends = [id_ for id_ in (end if isinstance(end, list) else [end]) if type(id_) is int]
    start = said.get("bos_token_id")
    try:
        return from_hf(text, start if type(start) is int else next(iter(ends), None), ends)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InteropError(about(path, str(error))) from None


def _shards(folder: Path) -> list[Path]:
    """The files that hold the weights."""
    if (folder / INDEX).is_file():
        placed = _json(folder / INDEX).get("weight_map")
        names = sorted({*placed.values()}) if isinstance(placed, dict) else []
        if not names or not all(
            isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name
            for name in names
        ):
            raise InteropError(
                _("{folder}: does not name files of this folder").format(folder=folder / INDEX)
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickled = sorted(path for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise is_pickle(pickled[0])
    raise InteropError(
        _("{folder}: no {weights}; the weights are missing").format(folder=folder, weights=WEIGHTS)
    )


def _tensors(folder: Path, config: ModelConfig, vocab_size: Any) -> dict[str, Tensor]:
    """The weights by our names, in fp32; names and shapes are checked before anything is read."""
    shards = _shards(folder)
    entries = [entry for path in shards for entry in read_header(path).tensors]
    shapes = {entry.shape for entry in entries}
    # Every layer has tensors, so these two checks bound what a false claim can make us build.
    if config.n_layer > len(entries) or (vocab_size, config.n_embd) not in shapes:
        raise InteropError(
            _(
                "{folder}: claims {n_layer} layers and {vocab_size} tokens of width "
                "{n_embd}, which does not fit the {number} tensors"
            ).format(
                folder=folder / CONFIG,
                n_layer=config.n_layer,
                vocab_size=vocab_size,
                n_embd=config.n_embd,
                number=len(entries),
            )
        )
    with torch.device("meta"):  # sizes without memory
        model = GPT(config, vocab_size)
    plan = _Plan(model, prefix=not any(entry.name.startswith("transformer.") for entry in entries))
    plan.check(folder, entries)
    found = {}
    for path in shards:
        with open_tensors(path) as (header, file):
            for entry in header.tensors:
                tensor = read_tensor(path, entry, file)
                name = plan.ours(entry.name)
                if name is not None:
                    found[name] = (tensor.T if plan.names.is_transposed(name) else tensor).float()
    return {name: _whole(name, found) for name in model_tensors(model)}


class _Plan:
    """Which tensor of the files is which of ours.

    Args:
        model: without memory.
        prefix: whether GPT-2's names lack the usual prefix, as in its first files.
    """

    def __init__(self, model: GPT, prefix: bool) -> None:
        self.names = names_of(model.config)
        self._prefix = "transformer." if prefix and self.names is GPT2 else ""
        self._tied = model.config.tie_embeddings
        self._shapes, self._ours = {}, {}
        for name, tensor in weights(model, self.names).items():
            theirs = self.names.theirs(name)
            self._ours[theirs] = name
            self._shapes[theirs] = [*(tensor.T if self.names.is_transposed(name) else tensor).shape]

    def ours(self, name: str) -> str | None:
        """Our name; None for what is computed, or the same as another."""
        return self._ours.get(self._theirs(name))

    def _theirs(self, name: str) -> str:
        return name if name.startswith("lm_head") else self._prefix + name

    def check(self, folder: Path, entries: list[TensorEntry]) -> None:
        """Raises unless these are the model's tensors.

        Raises:
            InteropError: one is missing, unexpected or of another shape or type.
        """
        missing = dict(self._shapes)
        for entry in entries:
            theirs = self._theirs(entry.name)
            if theirs.endswith(_COMPUTED) or (self._tied and theirs == "lm_head.weight"):
                continue
            where = _("{folder}: the tensor {name:.80}").format(folder=folder, name=entry.name)
            if missing.pop(theirs, None) is None:
                raise InteropError(
                    _("{where} is unexpected; the model may have parts not known here").format(
                        where=where
                    )
                )
            if [*entry.shape] != self._shapes[theirs]:
                raise InteropError(
                    _("{where} is {shape} but {config} says {expected}").format(
                        where=where,
                        shape=[*entry.shape],
                        config=CONFIG,
                        expected=self._shapes[theirs],
                    )
                )
            if entry.dtype not in ("F32", "F16", "BF16"):
                raise InteropError(
                    _("{where} is {dtype}, not a float of 16 or 32 bits").format(
                        where=where, dtype=entry.dtype
                    )
                )
        if missing:
            raise InteropError(
                _("{folder}: the tensor {missing} is missing").format(
                    folder=folder, missing=next(iter(missing))
                )
            )


def _whole(name: str, parts: dict[str, Tensor]) -> Tensor:
    """A tensor of ours, stacked from its parts where the format keeps them apart."""
    if name in parts:
        return parts[name].contiguous()
    _, layer, kind = parsed(name)
    before = name.removesuffix(f"{layer}.{kind}")
    return torch.cat([parts[f"{before}{part}.{kind}"] for part in parts_of(layer)])
