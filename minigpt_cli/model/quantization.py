"""Weight matrices in 8 bits: a quarter of fp32's memory to read for every token.

Each output row of a matrix becomes integers from -127 to 127 and one scale (Jacob et al. 2018,
symmetric, per channel). Activations are bf16.
"""

import torch

from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear


@torch.no_grad()
def quantize_int8(model: GPT) -> None:
    """Quantizes every weight matrix of a model, in place.

    The fp32 weights are rounded to the quantized values and the compute dtype becomes bf16, so that
    evaluation scores the same model that a `Decoder` uses. Embeddings are looked up, not
    multiplied, and keep their precision.

    Raises:
        ConfigError: the model is not on a CPU, the only device supported here.
    """
    if model.head.weight.device.type != "cpu":
        raise ConfigError(
            _("int8 quantization works on a CPU only"), settings=("train.device=cpu",)
        )
    model.compute_dtype = torch.bfloat16
    if model.head.weight is model.token_embedding.weight:
        model.head.weight = torch.nn.Parameter(model.head.weight.clone())
    for module in model.modules():
        if isinstance(module, Linear):
            weight = module.weight
            scale = (weight.abs().amax(1).clamp(min=1e-12) / 127).bfloat16()  # (out,)
            rows = scale.float()[:, None]
            numbers = (weight / rows).round().clamp(-127, 127)
            weight.copy_(numbers * rows)
            module.int8 = (numbers.to(torch.int8), scale)
