"""The decoder in C, where there is a compiler: one call for a token instead of two hundred.

It computes what `decoder.Decoder` does, from the same weights. `native/step.c` explains how;
`tests/generation/test_decoder.py` holds both to the same reference.

Shapes: B texts side by side, C n_embd, H heads, K key/value heads, D head_dim, V vocab.
"""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor, nn

from minigpt_cli.generation.decoder import Decoder
from minigpt_cli.model.block import Block
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.kernels import EPSILON, swiglu
from minigpt_cli.model.kv_cache import KVCache
from minigpt_cli.model.layers import LayerNorm, Linear, RMSNorm
from minigpt_cli.model.positions import LearnedPositions
from minigpt_cli.native.library import LANES, library

_FP32, _BF16, _INT8 = range(3)
_SWIGLU, _RELU, _GELU, _GELU_TANH = range(4)


class _Matrix(Structure):
    _fields_ = (
        ("weights", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("inputs", c_int32),
        ("panels", c_int32),
    )


class _Norm(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("eps", c_float))


class _Layer(Structure):
    _fields_ = (
        ("norm1", _Norm),
        ("norm2", _Norm),
        ("qkv", _Matrix),
        ("proj", _Matrix),
        ("expand", _Matrix),
        ("down", _Matrix),
        ("gain", c_void_p),
    )


class _Model(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("precision", "norm_kind", "activation")),
        *((name, c_int32) for name in ("n_layer", "width", "n_head", "n_kv_head", "head_dim")),
        *((name, c_int32) for name in ("hidden", "vocab")),
        ("head_eps", c_float),
        ("layers", POINTER(_Layer)),
        ("norm", _Norm),
        ("head", _Matrix),
        ("embedding", c_void_p),
        ("positions", c_void_p),
    )


class _Work(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("x", "qkv", "expanded", "logits")),
        *((name, c_void_p) for name in ("attended", "activated", "normed", "own")),
        *((name, c_void_p) for name in ("keys", "values")),
        *((name, c_int32) for name in ("batch", "window", "threads")),
    )


_NORMS: dict[type[nn.Module], int] = {RMSNorm: 0, LayerNorm: 1}


def decoder_for(model: GPT) -> "Decoder | CompiledDecoder":
    """The faster decoder of those that this machine and this model can use."""
    loaded = library()
    if loaded is None or not CompiledDecoder.suits(model):
        return Decoder(model)
    return CompiledDecoder(model, loaded)


class CompiledDecoder:
    """Scores the token that follows one more token of each text, as `Decoder` does.

    In bf16 too, logits depend neither on the texts beside a text nor on the number of threads.

    Args:
        model: one that `suits`; its matrices are copied, so create a new decoder after more
            training.
        loaded: from `native.library`.
    """

    def __init__(self, model: GPT, loaded: ctypes.CDLL) -> None:
        self._model = model
        self._precision = _precision(model)
        self._step, self._adjacent = loaded.minigpt_step, 1
        self._step.restype = c_int32
        self._step.argtypes = (*(c_void_p,) * 3, c_int64, *(c_void_p,) * 2)
        if self._precision == _BF16:
            self._adjacent = loaded.minigpt_adjacent_inputs()
        self._kept: list[Tensor] = []
        """What the structures point to."""
        self._c = self._described(model)
        self._cache: KVCache | None = None
        self._work, self._scratch = _Work(), torch.empty(0)

    @staticmethod
    def suits(model: GPT) -> bool:
        """Whether the library computes this kind of model."""
        linears = [module for module in model.modules() if isinstance(module, Linear)]
        kinds = {linear.int8 is None for linear in linears}
        block = model.blocks[0]
        assert isinstance(block, Block)
        return (
            all(weight.device.type == "cpu" for weight in model.parameters())
            and model.compute_dtype in (torch.float32, torch.bfloat16)
            and len(kinds) == 1  # all quantized, or none
            and all(linear.in_features % 2 == 0 for linear in linears)
            and type(model.norm) in _NORMS
            and _activation(block) is not None
        )

    def new_cache(self, batch: int, most: int | None = None) -> KVCache:
        """As from `GPT.new_cache`, but in the precision that the model computes in."""
        dtype = torch.float32 if self._precision == _FP32 else torch.bfloat16
        return self._model.new_cache(batch, most, dtype)

    def read(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Reads one token of each text.

        Args:
            tokens: ids, (B,).
            cache: from `new_cache`; the tokens read before. These are added.

        Returns:
            Logits, (B, V).

        Raises:
            IndexError: a token is not in the vocabulary.
        """
        work, threads = self._work, torch.get_num_threads()
        if cache is not self._cache or work.threads != threads:
            self._set_up(cache, threads)
        position, tokens = cache.length, tokens.contiguous()
        assert tokens.shape == (work.batch,)
        assert tokens.dtype == torch.int64
        assert position < cache.window or self._model.has_relative_positions
        logits = torch.empty(len(tokens), self._c.head.panels * LANES)
        work.logits = logits.data_ptr()
        rotary = self._model.position_embedding.rotary(position, 1, torch.float32, tokens.device)
        cos, sin = (None, None) if rotary is None else (each.data_ptr() for each in rotary)
        if self._step(byref(self._c), byref(work), tokens.data_ptr(), position, cos, sin):
            raise IndexError(tokens.tolist())
        cache.length += 1
        return logits[:, : self._model.vocab_size]

    def _set_up(self, cache: KVCache, threads: int) -> None:
        """Allocates what a step writes to, for one cache."""
        c, layer = self._c, self._c.layers[0]
        B, window = cache.keys.size(1), cache.window
        sizes = {
            "x": B * -(-c.width // LANES) * LANES,
            "qkv": B * layer.qkv.panels * LANES,
            "expanded": B * layer.expand.panels * LANES,
            "attended": B * c.n_head * c.head_dim,
            "activated": B * c.hidden,
            "normed": threads * B * c.width,
            "own": threads * (window + LANES + c.head_dim + c.width),
        }
        self._scratch = torch.zeros(sum(sizes.values()))
        parts = torch.split(self._scratch, [*sizes.values()])
        for name, part in zip(sizes, parts, strict=True):
            setattr(self._work, name, part.data_ptr())
        self._work.keys, self._work.values = cache.keys.data_ptr(), cache.values.data_ptr()
        self._work.batch, self._work.window, self._work.threads = B, window, threads
        self._cache = cache

    def _described(self, model: GPT) -> _Model:
        blocks = [block for block in model.blocks if isinstance(block, Block)]
        attention, positions = blocks[0].attention, model.position_embedding
        return _Model(
            precision=self._precision,
            norm_kind=_NORMS[type(model.norm)],
            activation=_activation(blocks[0]),
            n_layer=len(blocks),
            width=model.config.n_embd,
            n_head=attention.n_head,
            n_kv_head=attention.n_kv_head,
            head_dim=attention.head_dim,
            hidden=blocks[0].down.in_features,
            vocab=model.vocab_size,
            head_eps=EPSILON if attention.q_norm is None else attention.q_norm.eps,
            layers=(_Layer * len(blocks))(*map(self._layer, blocks)),
            norm=self._norm(model.norm),
            head=self._matrix(model.head),
            embedding=self._pointer(model.token_embedding.weight),
            positions=self._pointer(
                positions.weight if isinstance(positions, LearnedPositions) else None
            ),
        )

    def _layer(self, block: Block) -> _Layer:
        attention, gain = block.attention, None
        if attention.q_norm is not None and attention.k_norm is not None:
            q, k = attention.q_norm.weight, attention.k_norm.weight
            gain = torch.cat((q.repeat(attention.n_head), k.repeat(attention.n_kv_head)))
        expand = block.expand
        return _Layer(
            norm1=self._norm(block.norm1),
            norm2=self._norm(block.norm2),
            qkv=self._matrix(attention.qkv),
            proj=self._matrix(attention.proj),
            # A thread needs gate and up of the same units, so each begins with a panel of its own.
            expand=self._matrix(expand, expand.rows),
            down=self._matrix(block.down),
            gain=self._pointer(gain),
        )

    def _norm(self, norm: nn.Module) -> _Norm:
        assert isinstance(norm, RMSNorm | LayerNorm)
        bias = norm.bias if isinstance(norm, LayerNorm) else None
        return _Norm(self._pointer(norm.weight), self._pointer(bias), norm.eps)

    def _matrix(self, linear: Linear, parts: Sequence[int] = ()) -> _Matrix:
        """Packs a layer; `parts` are rows that each begin with a panel of their own."""
        parts = parts or (linear.out_features,)
        scale = None
        if linear.int8 is not None:
            weight, scale = linear.int8[0], _padded(linear.int8[1].float(), parts)
        else:
            weight = linear.weight.detach().to(self._model.compute_dtype)
        rows = _padded(weight, parts)
        panels = rows.size(0) // LANES
        # Inputs that are adjacent move as one number, which is eight times as fast.
        groups = rows.view(torch.int32) if self._adjacent == 2 else rows
        columns = groups.view(panels, LANES, -1).mT
        bias = None if linear.bias is None else _padded(linear.bias.detach(), parts)
        return _Matrix(
            self._pointer(columns), self._pointer(scale), self._pointer(bias), rows.size(1), panels
        )

    def _pointer(self, tensor: Tensor | None) -> int | None:
        """The address of a tensor's values, which are kept from now on."""
        if tensor is None:
            return None
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()


def _padded(rows: Tensor, parts: Sequence[int]) -> Tensor:
    """Fills each part up with zeros to whole panels."""
    if not any(size % LANES for size in parts):
        return rows
    return torch.cat(
        [
            torch.cat((part, part.new_zeros(-len(part) % LANES, *part.shape[1:])))
            for part in torch.split(rows, [*parts])
        ]
    )


def _precision(model: GPT) -> int:
    if model.head.int8 is not None:
        return _INT8
    return _BF16 if model.compute_dtype == torch.bfloat16 else _FP32


def _activation(block: Block) -> int | None:
    activation = block.activation
    if activation is swiglu:
        return _SWIGLU
    if isinstance(activation, nn.GELU):
        return _GELU_TANH if activation.approximate == "tanh" else _GELU
    return _RELU if isinstance(activation, nn.ReLU) else None
