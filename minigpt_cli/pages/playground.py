"""The model as a page: one HTML file that writes, and shows how, without a network or a server.

The page holds the model's own weights, rounded to bf16 or to 8 bits a row, and an engine in plain
JavaScript (`engine.js`, `tokenizer.js`) that computes with them what `GPT` and the tokenizer do.
"""

import base64
import json
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import torch
from markupsafe import Markup
from torch import Tensor

from minigpt_cli import __version__
from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.presets import preset_names
from minigpt_cli.config.schema import ModernConfig, RunConfig, differences, toml_value
from minigpt_cli.errors import ConfigError
from minigpt_cli.io.text import printable
from minigpt_cli.language import _
from minigpt_cli.pages.render import render
from minigpt_cli.pages.scripts import PAGE, WORKER, joined, page_script_hash, sha256
from minigpt_cli.runs.checkpoint import Checkpoint, model_tensors
from minigpt_cli.training.continuation import CHANGEABLE

PageDtype = Literal["bf16", "int8"]

LARGEST_PAGE = 64_000_000
"""Bytes: beyond this, a phone may run out of memory before the page has opened."""
MOST_IN_BF16 = 4_000_000
"""Parameters: a larger model is rounded to 8 bits unless asked otherwise."""
_NOT_THE_MODEL = ("data.corpus", "train.device", "train.threads", "train.precision")
"""Settings that the command leaves out: it names the text, and runs on another machine."""
_STYLE = re.compile("<style>(.*?)</style>", re.DOTALL)
_STYLE_HASH = "sha256-of-the-style"


def playground_page(
    checkpoint: Checkpoint,
    dtype: PageDtype | None = None,
    title: str | None = None,
    prompt: str = "",
    inspect: bool = True,
) -> str:
    """Makes the page.

    Args:
        checkpoint: the model, its tokenizer, and what is known of both.
        dtype: how weights are stored; None chooses by size.
        title: of the page; None makes one from the name of the text.
        prompt: what the text begins with when the page opens.
        inspect: whether the page shows probabilities, branches and attention.

    Raises:
        ConfigError: the page's engine does not have a part of the model.
    """
    _check_engine(checkpoint)
    parameters, dtype = _parameters(checkpoint), dtype or usual_dtype(checkpoint)
    entries, weights = stored_weights(checkpoint, dtype)
    description = {
        "title": title,
        "prompt": prompt,
        "inspect": inspect,
        "parameters": parameters,
        "dtype": dtype,
        **_description(checkpoint),
        "tensors": entries,
        "tokenizer": json.loads(checkpoint.tokenizer.to_json()),
    }
    page = render(
        "playground.html.jinja",
        name=title or f"A small GPT trained on {description['corpus']}",
        inspect=inspect,
        description=_json(description),
        weights=Markup(base64.b64encode(weights).decode()),  # noqa: S704 - its alphabet has no <
        worker=Markup(joined(WORKER)),  # noqa: S704 - our own
        script=Markup(joined(PAGE)),  # noqa: S704 - our own
        script_hash=page_script_hash(),
        style_hash=_STYLE_HASH,
        version=__version__,
    )
    style = _STYLE.search(page)
    assert style is not None
    return page.replace(_STYLE_HASH, sha256(style[1]), 1)


def _check_engine(checkpoint: Checkpoint) -> None:
    """Raises unless the page can compute the model: those from elsewhere may have other parts."""
    config = checkpoint.model.config
    usual = type(config)().model_dump()
    names = ["norm_eps"]
    if isinstance(config, ModernConfig):
        names += ["head_size", "qk_norm", "qkv_bias"]
    found = config.model_dump()
    unknown = [f"model.{name} = {found[name]}" for name in names if found[name] != usual[name]]
    if found.get("activation") == "gelu_tanh":
        unknown.append("model.activation = gelu_tanh")
    if checkpoint.tokenizer.kind == "pretrained":
        unknown.append(_("a tokenizer that came with the model"))
    elif checkpoint.tokenizer.end_of_text is not None:
        unknown.append(_("a vocabulary with an end-of-text token"))
    if unknown:
        raise ConfigError(
            _("a page cannot run {unknown}; export to hf instead").format(
                unknown=", ".join(unknown)
            )
        )


def usual_dtype(checkpoint: Checkpoint) -> PageDtype:
    """How the weights of a model of this size are stored unless asked otherwise."""
    return "bf16" if _parameters(checkpoint) <= MOST_IN_BF16 else "int8"


def page_bytes(checkpoint: Checkpoint, dtype: PageDtype) -> int:
    """About how large the page will be: its weights in base64."""
    return _parameters(checkpoint) * {"bf16": 2, "int8": 1}[dtype] * 4 // 3


def stored_weights(checkpoint: Checkpoint, dtype: PageDtype) -> tuple[list[dict[str, Any]], bytes]:
    """Where each tensor is, and the bytes of all.

    Vectors stay fp32. A matrix is bf16, or a scale for each row, fp32, and then the rows as whole
    numbers from -127 to 127. Every tensor begins at a multiple of four.
    """
    entries, data = [], bytearray()
    for name, weight in model_tensors(checkpoint.model).items():
        tensor = weight.detach().float().cpu()
        kind = "fp32" if tensor.dim() == 1 else dtype
        entries.append(
            {"name": name, "dtype": kind, "shape": list(tensor.shape), "offset": len(data)}
        )
        if kind == "fp32":
            data += _bytes(tensor)
        elif kind == "bf16":
            data += _bytes(tensor.bfloat16().view(torch.int16))
        else:
            scale, numbers = _int8_rows(tensor)
            data += _bytes(scale) + _bytes(numbers)
        data += bytes(-len(data) % 4)
    return entries, bytes(data)


def rounded(tensor: Tensor, dtype: PageDtype) -> Tensor:
    """What the page computes with, in fp32."""
    if tensor.dim() == 1:
        return tensor.float()
    if dtype == "bf16":
        return tensor.bfloat16().float()
    scale, numbers = _int8_rows(tensor)
    return numbers.float() * scale[:, None]


def _parameters(checkpoint: Checkpoint) -> int:
    return sum(tensor.numel() for tensor in model_tensors(checkpoint.model).values())


def _int8_rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A scale for each row and whole numbers, as in `quantize_int8`."""
    scale = tensor.abs().amax(1).clamp(min=1e-12) / 127  # (rows,)
    numbers = (tensor / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return scale, numbers


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _description(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the page tells of its model; of a text's path only the name."""
    metadata = checkpoint.metadata
    return {
        "model": metadata.model.model_dump(mode="json"),
        "vocab_size": metadata.vocab_size,
        "corpus": printable(", ".join(Path(name).stem for name in metadata.data.corpus)),
        "step": metadata.step,
        "val_loss": metadata.val_loss,
        "bits_per_byte": metadata.bits_per_byte,
        "command": _command(checkpoint),
        "version": __version__,
    }


def _command(checkpoint: Checkpoint) -> str:
    """The command that trains such a model: the nearest preset, and what differs from it."""
    metadata = checkpoint.metadata
    is_new = metadata.data.tokenizer_sha256 is None

    def settings(preset: RunConfig) -> dict[str, object]:
        config = metadata.config or preset.model_copy(
            update={"model": metadata.model, "data": metadata.data}
        )
        changed = differences(preset, config).items()
        found = {name: value for name, (_, value) in changed if value is not None}
        return {
            name: value for name, value in found.items()
            if name not in _NOT_THE_MODEL and (is_new or not _comes_with_the_base(name))
        }  # fmt: skip

    presets = {name: load_run_config(name) for name in preset_names()}
    nearest = min(
        (
            (name, settings(preset)) for name, preset in presets.items()
            if (preset.lora is None) == (metadata.lora is None)
        ),
        key=lambda preset: len(preset[1]),
    )  # fmt: skip
    words = ["minigpt", "train", "--preset", nearest[0]]
    words += [] if is_new else ["--init-from", "BASE"]
    for name in metadata.data.corpus:
        words += ["--data", Path(name).name]
    for name, value in nearest[1].items():
        words += ["--set", f"{name}={value if isinstance(value, str) else toml_value(value)}"]
    return printable(" ".join(shlex.quote(word) for word in words))


def _comes_with_the_base(setting: str) -> bool:
    """Whether a run that began from another model has this setting from there."""
    tokenizer = setting.startswith("data.tokenizer") or setting == "data.vocab_size"
    return tokenizer or (setting.startswith("model.") and setting not in CHANGEABLE)


def _json(value: Any) -> Markup:
    """JSON that may lie in an HTML script: there is no `<` in it."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704
