"""The model against Hugging Face's, against the formulas written out, and against itself."""

import importlib
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.model.gpt import GPT
from tests.helpers import dense_gpt
from tests.helpers.dense_gpt import random_gpt

SIZES: dict[str, Any] = {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 40}
CLASSIC: list[ModelConfig] = [
    ClassicConfig(**SIZES),
    ClassicConfig(**SIZES, activation="relu", qkv_bias=False),
    ClassicConfig(**SIZES, activation="relu", bias=False, tie_embeddings=True),
    ClassicConfig(**SIZES, bias=False),
    ClassicConfig(**SIZES, tie_embeddings=True),
]
MODERN: list[ModelConfig] = [
    ModernConfig(**SIZES),
    ModernConfig(**SIZES, tie_embeddings=True, rope_theta=1_000_000.0),
    ModernConfig(**SIZES, n_kv_head=2, n_hidden=48),
    ModernConfig(**SIZES, n_kv_head=1, tie_embeddings=True),
]
TINY: dict[str, Any] = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 4}
# Below, at, above and between multiples of the blocks that attention may work in.
LENGTHS = [2, 40, 128, 129, 300]
FAMILIES: list[ModelConfig] = [ClassicConfig(**SIZES), ModernConfig(**SIZES, n_kv_head=2)]


def tokens(length: int, vocab_size: int = 50, batch: int = 1, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch, length), generator=generator)


def name_of(config: ModelConfig) -> str:
    given = config.model_dump(exclude_defaults=True).items()
    return ",".join([config.family, *(f"{k}={v}" for k, v in given if k not in SIZES)])


# --- Hugging Face's models, which share no line with this package ---------------------------


def hugging_face(config: ModelConfig, vocab_size: int, band: int | None = None) -> Any:
    """An untrained model of the same sizes in evaluation mode, made without any download."""
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "attn_implementation": "eager",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations
        transformers: Any = importlib.import_module("transformers")
        if isinstance(config, ClassicConfig):
            return transformers.GPT2LMHeadModel(
                transformers.GPT2Config(
                    **common,
                    n_positions=config.block_size,
                    n_embd=config.n_embd,
                    n_layer=config.n_layer,
                    n_head=config.n_head,
                    activation_function=config.activation,
                )
            ).eval()
        return transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(
                **common,
                hidden_size=config.n_embd,
                num_hidden_layers=config.n_layer,
                num_attention_heads=config.n_head,
                num_key_value_heads=config.kv_heads,
                head_dim=config.head_dim,
                intermediate_size=config.hidden,
                max_position_embeddings=config.block_size,
                rope_theta=config.rope_theta,
                use_sliding_window=band is not None,
                sliding_window=band,
                max_window_layers=0,
            )
        ).eval()


def gpt2_weights(model: GPT) -> dict[str, Tensor]:
    """Under GPT-2's names; its `Conv1D` holds the transpose of a linear layer's weight."""
    ours = dict(model.state_dict())
    C = model.config.n_embd

    def take(name: str) -> Tensor:
        weight: Tensor = ours.pop(name)
        return weight

    theirs = {
        "transformer.wte.weight": take("token_embedding.weight"),
        "transformer.wpe.weight": take("position_embedding.weight"),
        "lm_head.weight": take("head.weight"),
        "transformer.ln_f.weight": take("norm.weight"),
        "transformer.ln_f.bias": ours.pop("norm.bias", torch.zeros(C)),
    }
    for layer in range(model.config.n_layer):
        for name, there, outputs in (
            ("norm1", "ln_1", 0),
            ("norm2", "ln_2", 0),
            ("attention.qkv", "attn.c_attn", 3 * C),
            ("attention.proj", "attn.c_proj", C),
            ("up", "mlp.c_fc", 4 * C),
            ("down", "mlp.c_proj", C),
        ):
            here, there = f"blocks.{layer}.{name}", f"transformer.h.{layer}.{there}"
            weight = take(f"{here}.weight")
            theirs[f"{there}.weight"] = weight.mT if weight.dim() == 2 else weight
            theirs[f"{there}.bias"] = ours.pop(f"{here}.bias", torch.zeros(outputs or C))
    assert not ours
    return theirs


def qwen3_weights(model: GPT) -> dict[str, Tensor]:
    """Under Qwen3's names; it keeps query, key and value apart, and gate and up."""
    ours, config = dict(model.state_dict()), model.config
    assert isinstance(config, ModernConfig)
    kv = config.kv_heads * config.head_dim
    theirs = {
        "model.embed_tokens.weight": ours.pop("token_embedding.weight"),
        "model.norm.weight": ours.pop("norm.weight"),
        "lm_head.weight": ours.pop("head.weight"),
    }
    for layer in range(config.n_layer):
        here, there = f"blocks.{layer}", f"model.layers.{layer}"
        qkv = ours.pop(f"{here}.attention.qkv.weight").split([config.n_embd, kv, kv])
        gate, up = ours.pop(f"{here}.gate_up.weight").chunk(2)
        theirs |= {
            f"{there}.self_attn.q_proj.weight": qkv[0],
            f"{there}.self_attn.k_proj.weight": qkv[1],
            f"{there}.self_attn.v_proj.weight": qkv[2],
            f"{there}.mlp.gate_proj.weight": gate,
            f"{there}.mlp.up_proj.weight": up,
        }
        for name, other in (
            ("norm1", "input_layernorm"),
            ("norm2", "post_attention_layernorm"),
            ("attention.q_norm", "self_attn.q_norm"),
            ("attention.k_norm", "self_attn.k_norm"),
            ("attention.proj", "self_attn.o_proj"),
            ("down", "mlp.down_proj"),
        ):
            theirs[f"{there}.{other}.weight"] = ours.pop(f"{here}.{name}.weight")
    assert not ours
    return theirs


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("config", CLASSIC + MODERN, ids=name_of)
def test_random_weights_give_the_same_logits_in_hugging_face_models(config: ModelConfig) -> None:
    model = random_gpt(config, 61)
    other = hugging_face(config, 61)
    weights = gpt2_weights(model) if isinstance(config, ClassicConfig) else qwen3_weights(model)
    other.load_state_dict(weights, strict=True)
    idx = tokens(config.block_size, 61, batch=2)
    with torch.no_grad():
        theirs = other(idx).logits
        ours = model(idx)
    assert ours.std() > 0.5  # something to compare
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(idx), theirs, rtol=0, atol=1e-5)  # where gradients are kept


@pytest.mark.filterwarnings("default")
def test_the_written_out_reference_agrees_with_a_sliding_window_of_hugging_face() -> None:
    # The generation tests lean on this reference beyond the window.
    config = ModernConfig(**SIZES, n_kv_head=2)
    model = random_gpt(config)
    other = hugging_face(config.model_copy(update={"block_size": 120}), 50, band=40)
    other.load_state_dict(qwen3_weights(model), strict=True)
    idx = tokens(120)
    with torch.no_grad():
        theirs = other(idx).logits[0].double()
    torch.testing.assert_close(
        dense_gpt.logits(model, idx[0].tolist(), 40), theirs, rtol=0, atol=1e-5
    )
    assert (dense_gpt.logits(model, idx[0].tolist()) - theirs)[41:].abs().max() > 0.01


def test_gpt2_has_its_published_number_of_parameters() -> None:
    config = ClassicConfig(n_layer=12, n_head=12, n_embd=768, block_size=1024, tie_embeddings=True)
    with torch.device("meta"):
        model = GPT(config, 50_257)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


# --- The formulas written out -----------------------------------------------------------------


@pytest.mark.parametrize("config", CLASSIC + MODERN, ids=name_of)
def test_logits_and_gradients_equal_the_formulas_written_out(config: ModelConfig) -> None:
    model = random_gpt(config)
    idx, targets = tokens(33), tokens(33, seed=2)
    weights = dense_gpt.weights_of(model)
    expected = dense_gpt.forward(config, weights, idx[0])
    torch.testing.assert_close(model(idx)[0].double(), expected, rtol=0, atol=1e-5)
    picked = expected[torch.arange(33), targets[0]]
    loss = (expected.exp().sum(1).log() - picked).mean()
    torch.autograd.backward(loss)
    ours = model(idx, targets)
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        gradient = weights[name].grad
        assert gradient is not None
        assert gradient.norm() > 0, name
        error = (parameter.grad.double() - gradient).norm() / gradient.norm()
        assert error < 1e-4, f"{name}: {error}"


@pytest.mark.parametrize("config", FAMILIES, ids=name_of)
@pytest.mark.parametrize("length", [40, 300])
def test_bf16_changes_loss_and_gradients_by_rounding_only(config: ModelConfig, length: int) -> None:
    config = config.model_copy(update={"block_size": 300})
    model = random_gpt(config)
    idx, targets = tokens(length), tokens(length, seed=2)
    weights = dense_gpt.weights_of(model)
    expected = dense_gpt.forward(config, weights, idx[0])
    loss = -expected.log_softmax(1)[torch.arange(length), targets[0]].mean()
    torch.autograd.backward(loss)
    model.compute_dtype = torch.bfloat16
    logits = model(idx)
    assert logits.dtype == torch.float32
    assert (logits[0].double() - expected).norm() < 0.03 * expected.norm()
    assert not torch.equal(logits, logits_in_fp32(model, idx))
    ours = model(idx, targets)
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), rel=0.005)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        gradient = weights[name].grad
        assert gradient is not None
        error = (parameter.grad.double() - gradient).norm() / gradient.norm()
        assert error < 0.2, f"{name}: {error}"


def logits_in_fp32(model: GPT, idx: Tensor) -> Tensor:
    dtype, model.compute_dtype = model.compute_dtype, torch.float32
    try:
        out: Tensor = model(idx)
    finally:
        model.compute_dtype = dtype
    return out


def test_texts_in_a_batch_do_not_affect_each_other() -> None:
    for config in FAMILIES:
        model, idx = random_gpt(config), tokens(20, batch=3)
        together = model(idx)
        for row in range(3):
            alone = model(idx[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


# --- No position sees the future --------------------------------------------------------------


@pytest.mark.parametrize("config", FAMILIES, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_changed_token_leaves_every_earlier_logit_bit_identical(
    config: ModelConfig, dtype: torch.dtype, gradients: bool, length: int
) -> None:
    config = config.model_copy(update={"n_layer": 2, "block_size": 300})
    model = random_gpt(config)
    model.compute_dtype = dtype
    idx = tokens(length)
    with torch.set_grad_enabled(gradients):
        before = model(idx)
        for place in sorted(
            {0, 1, length // 2, length - 2, length - 1} | {127, 128} & set(range(length))
        ):
            changed = idx.clone()
            changed[0, place] = (idx[0, place] + 1) % 50
            after = model(changed)
            assert torch.equal(before[:, :place], after[:, :place])
            assert (before[:, place] != after[:, place]).any()
            assert (before[:, -1] != after[:, -1]).any()  # and the past is seen to the end


@pytest.mark.parametrize("config", FAMILIES, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_no_gradient_flows_from_a_prediction_to_a_later_token(
    config: ModelConfig, dtype: torch.dtype
) -> None:
    config = config.model_copy(update={"block_size": 150})
    model = random_gpt(config, 150)
    model.compute_dtype = dtype
    idx = torch.arange(150)[None]  # each token once, so that its embedding's gradient is its own
    model(idx)[0, 70].square().sum().backward()
    gradient = model.token_embedding.weight.grad
    assert gradient is not None
    reached = gradient.abs().sum(1) > 0
    assert reached[:71].all()
    assert not reached[71:].any()


# --- Loss, start, dropout ---------------------------------------------------------------------


@pytest.mark.parametrize("config", FAMILIES, ids=name_of)
def test_an_untrained_model_finds_every_token_about_equally_likely(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = GPT(config, 65).initialize().eval()
    loss = model(tokens(40, 65, batch=8), tokens(40, 65, batch=8, seed=2))
    assert loss.item() == pytest.approx(math.log(65), rel=0.01)


@pytest.mark.parametrize("config", FAMILIES, ids=name_of)
def test_building_a_model_draws_no_random_number(config: ModelConfig) -> None:
    state = torch.get_rng_state()
    GPT(config, 65)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ClassicConfig(**TINY), [-0.022722, 0.017023, -0.022203]),
        (ModernConfig(**TINY), [1.487948, 0.468432, 0.000703]),
    ],
    ids=["classic", "modern"],
)
def test_a_seed_makes_the_model_that_it_made_in_version_0_1_0(
    config: ModelConfig, expected: list[float]
) -> None:
    torch.manual_seed(7)
    model = GPT(config, 5).initialize()
    qkv = model.get_parameter("blocks.0.attention.qkv.weight")
    drawn = [model.token_embedding.weight[0, 0], qkv[0, 0], model.head.weight[-1, -1]]
    assert [x.item() for x in drawn] == pytest.approx(expected, abs=1e-5)


def test_settings_decide_which_layers_have_biases() -> None:
    def biases(**settings: Any) -> set[str]:
        model = GPT(ClassicConfig(**SIZES | {"n_layer": 1}, **settings), 65)
        return {name for name, _ in model.named_parameters() if name.endswith("bias")}

    everywhere = biases()
    assert everywhere - biases(qkv_bias=False) == {"blocks.0.attention.qkv.bias"}
    assert biases(bias=False) == set()
    # Two norms, q/k/v, projection, up and down in the block, and the last norm.
    assert len(everywhere) == 7


def test_tied_embeddings_are_one_parameter() -> None:
    for config in FAMILIES:
        tied = GPT(config.model_copy(update={"tie_embeddings": True}), 65)
        untied = GPT(config, 65)
        assert tied.head.weight is tied.token_embedding.weight
        count = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
        assert count[1] - count[0] == 65 * config.n_embd


@pytest.mark.parametrize("config", FAMILIES, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_dropout_acts_in_training_only(config: ModelConfig, dtype: torch.dtype) -> None:
    plain = random_gpt(config)
    model = random_gpt(config.model_copy(update={"dropout": 0.3}))
    plain.compute_dtype = model.compute_dtype = dtype
    idx = tokens(40)
    with torch.no_grad():
        assert torch.equal(model(idx), plain(idx))
        model.train()
        first, second = model(idx), model(idx)
        assert not torch.equal(first, second)
        assert not torch.equal(first, plain(idx))
        model.eval()
        assert torch.equal(model(idx), plain(idx))
        plain.train()
        assert torch.equal(plain(idx), model(idx))


@pytest.mark.parametrize("config", FAMILIES, ids=name_of)
def test_with_dropout_no_position_depends_on_a_later_token(config: ModelConfig) -> None:
    model = random_gpt(config.model_copy(update={"dropout": 0.3})).train()
    idx = tokens(40)
    changed = idx.clone()
    changed[0, 25] = (idx[0, 25] + 1) % 50
    outs = []
    for text in (idx, changed):
        torch.manual_seed(3)
        outs.append(model(text))
    assert torch.equal(outs[0][:, :25], outs[1][:, :25])
    assert not torch.equal(outs[0][:, 25:], outs[1][:, 25:])
