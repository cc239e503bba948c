"""Parameter groups, and Muon and AdamW against PyTorch's own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig, OptimizerConfig
from minigpt_cli.model.gpt import GPT
from minigpt_cli.native.library import library
from minigpt_cli.training.optimizers import fused
from minigpt_cli.training.optimizers.fused import move_, nesterov
from minigpt_cli.training.optimizers.muon import Muon
from minigpt_cli.training.optimizers.optimizer import Optimizer
from minigpt_cli.training.optimizers.orthogonalization import newton_schulz
from tests.helpers.dense_gpt import random_gpt

CLASSIC = ClassicConfig(n_layer=2, n_head=4, n_embd=32, block_size=16)
MODERN = ModernConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=16)
MODELS = [
    CLASSIC,
    MODERN,
    CLASSIC.model_copy(update={"tie_embeddings": True}),
    MODERN.model_copy(update={"tie_embeddings": True}),
]
every_model = pytest.mark.parametrize(
    "model_config", MODELS, ids=["classic", "modern", "classic-tied", "modern-tied"]
)
both_names = pytest.mark.parametrize("name", ["adamw", "muon"])


def settings(**values: Any) -> OptimizerConfig:
    return OptimizerConfig.model_validate(values)


def set_gradients(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def copies(model: GPT) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def in_blocks(name: str, parameter: Tensor) -> bool:
    return name.startswith("blocks.") and parameter.dim() == 2


# --- Which optimizer updates what ------------------------------------------------------------


@every_model
@both_names
def test_every_parameter_belongs_to_exactly_one_optimizer(
    model_config: ModelConfig, name: str
) -> None:
    model = random_gpt(model_config)
    optimizer = Optimizer(model, settings(name=name))
    before = copies(model)
    set_gradients(model, 0)
    optimizer.step()
    owners: dict[str, list[str]] = {parameter: [] for parameter in before}
    for key in optimizer.state_tensors():
        parameter, _, state = key.rpartition(".")
        if state in ("exp_avg", "momentum_buffer"):
            owners[parameter].append({"exp_avg": "adamw", "momentum_buffer": "muon"}[state])
    for parameter, weight in model.named_parameters():
        muon = name == "muon" and in_blocks(parameter, weight)
        assert owners[parameter] == ["muon" if muon else "adamw"], parameter
        assert not torch.equal(weight, before[parameter]), parameter


@every_model
def test_without_a_gradient_adamw_decays_matrices_and_nothing_else(
    model_config: ModelConfig,
) -> None:
    model = random_gpt(model_config)
    before = copies(model)
    optimizer = Optimizer(model, settings(name="adamw", learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, weight in model.named_parameters():
        expected = before[name] * (0.95 if weight.dim() == 2 else 1.0)
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=0, msg=name)


@every_model
def test_without_a_gradient_muon_decays_its_matrices_and_nothing_else(
    model_config: ModelConfig,
) -> None:
    model = random_gpt(model_config)
    before = copies(model)
    optimizer = Optimizer(model, settings(name="muon", learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, weight in model.named_parameters():
        expected = before[name] * (0.95 if in_blocks(name, weight) else 1.0)
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=0, msg=name)


def test_adamw_equals_pytorchs_on_each_parameter_alone() -> None:
    config = settings(name="adamw", learning_rate=0.02, weight_decay=0.3, betas=(0.8, 0.95))
    model = random_gpt(CLASSIC)
    optimizer = Optimizer(model, config)
    alone = copies(model)
    others = {
        name: torch.optim.AdamW(
            [weight], lr=0.02, betas=(0.8, 0.95), weight_decay=0.3 if weight.dim() == 2 else 0.0
        )
        for name, weight in alone.items()
    }
    for step in range(4):
        set_gradients(model, step)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            alone[name].grad = parameter.grad.clone()
            others[name].step()
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), alone[name], rtol=1e-5, atol=1e-6, msg=name)


def test_training_does_not_import_the_compiler() -> None:
    # It takes a second, and making any `torch.optim.Optimizer` would import it.
    program = """
import sys, torch
from minigpt_cli.config.schema import ModernConfig, OptimizerConfig
from minigpt_cli.model.gpt import GPT
from minigpt_cli.training.optimizers.optimizer import Optimizer
model = GPT(ModernConfig(n_layer=1, n_head=2, n_embd=8, block_size=4), 5).initialize()
optimizer = Optimizer(model, OptimizerConfig.model_validate({}))
x = torch.zeros(1, 4, dtype=torch.int64)
model(x, x).backward()
optimizer.step()
optimizer.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@both_names
def test_the_learning_rate_of_every_group_follows_the_scale(name: str) -> None:
    # A first step of AdamW moves each number by lr; one of Muon moves a matrix in proportion to lr.
    moves = []
    for scale in (1.0, 0.25):
        model = random_gpt(MODERN)
        before = copies(model)
        config = settings(
            name=name, learning_rate=0.02, adamw_learning_rate=0.004, weight_decay=0.0
        )
        optimizer = Optimizer(model, config)
        optimizer.set_lr(0.5)  # a rate set before leaves no trace
        optimizer.set_lr(scale)
        set_gradients(model, 0)
        optimizer.step()
        moves.append({n: (p.detach() - before[n]) for n, p in model.named_parameters()})
    for parameter, weight in model.named_parameters():
        full, quarter = (move[parameter] for move in moves)
        torch.testing.assert_close(quarter, full / 4, rtol=1e-3, atol=1e-6, msg=parameter)
        if not (name == "muon" and in_blocks(parameter, weight)):
            rate = 0.004 if name == "muon" else 0.02
            torch.testing.assert_close(
                full.abs(), torch.full_like(full, rate), rtol=1e-3, atol=1e-6
            )


@every_model
def test_embedding_and_head_have_rates_of_their_own(model_config: ModelConfig) -> None:
    model = random_gpt(model_config)
    before = copies(model)
    rates = {"adamw_learning_rate": 0.004, "embedding_learning_rate": 0.03}
    optimizer = Optimizer(model, settings(head_learning_rate=0.001, **rates))
    set_gradients(model, 0)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if in_blocks(name, parameter):
            continue
        rate = {"token_embedding.weight": 0.03, "head.weight": 0.001}.get(name, 0.004)
        moved = (parameter.detach() - before[name]).abs()  # a first step of AdamW moves by its rate
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=1e-6)


def test_clearing_gradients_reaches_every_parameter() -> None:
    for name in ("adamw", "muon"):
        model = random_gpt(MODERN)
        set_gradients(model, 0)
        Optimizer(model, settings(name=name)).zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())


# --- Muon -----------------------------------------------------------------------------------


def gradient(rows: int, columns: int, seed: int, scale: float = 1.0) -> Tensor:
    """Random singular vectors, and singular values within a factor of five of each other.

    Directions with hardly any gradient are amplified together with the rounding of bf16, and two
    right implementations then differ.
    """
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    values = 0.2 + 0.8 * torch.rand(min(rows, columns), generator=generator)
    out: Tensor = scale * (u * values) @ v
    return out


def step_all(
    ours: Muon,
    weight: Tensor,
    theirs: torch.optim.Optimizer,
    pieces: list[Tensor],
    steps: int,
) -> None:
    """Gives both the same gradients, differing from step to step, in direction and in size."""
    for step in range(steps):
        parts = [
            gradient(piece.size(0), piece.size(1), seed=10 * step + i, scale=10.0 ** (step % 3))
            for i, piece in enumerate(pieces)
        ]
        weight.grad = torch.cat(parts)
        for piece, part in zip(pieces, parts, strict=True):
            piece.grad = part
        ours.step()
        theirs.step()


def assert_same_way(ours: Tensor, theirs: Tensor, start: Tensor) -> None:
    error = (ours - theirs).norm() / (theirs - start).norm()
    assert error < 0.03, f"{error:.4f} of the way apart"


@pytest.fixture
def exactly_orthogonal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has PyTorch's Muon take the orthogonal matrix itself that the iterations approach."""

    def nearest(matrix: Tensor, *_: object) -> Tensor:
        u, _s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
        out: Tensor = (u @ v).float()
        return out

    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", nearest)


@pytest.mark.usefixtures("exactly_orthogonal")
@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48), (1, 16), (16, 1)])
def test_muon_equals_pytorchs(shape: tuple[int, int]) -> None:
    start = gradient(*shape, seed=99)
    ours, theirs = start.clone(), start.clone()
    # A rate and a decay this large make it matter what is decayed, when, and by which rate.
    step_all(
        Muon([(ours, (shape[0],))], lr=0.1, momentum=0.9, weight_decay=2.0),
        ours,
        torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=2.0, adjust_lr_fn="original"),
        [theirs],
        steps=6,
    )
    assert_same_way(ours, theirs, start)


@pytest.mark.usefixtures("exactly_orthogonal")
@pytest.mark.parametrize("rows", [(24, 24, 24), (24, 8, 8), (8, 24, 8), (40, 40)])
def test_muon_treats_each_matrix_stacked_in_a_weight_by_itself(rows: tuple[int, ...]) -> None:
    start = torch.cat([gradient(n, 24, seed=90 + i) for i, n in enumerate(rows)])
    ours = start.clone()
    pieces = [piece.clone() for piece in torch.split(start, list(rows))]
    step_all(
        Muon([(ours, rows)], lr=0.1, momentum=0.9, weight_decay=2.0),
        ours,
        torch.optim.Muon(pieces, lr=0.1, momentum=0.9, weight_decay=2.0, adjust_lr_fn="original"),
        pieces,
        steps=4,
    )
    for mine, piece, first in zip(
        *(torch.split(x, list(rows)) for x in (ours, torch.cat(pieces), start)), strict=True
    ):
        assert_same_way(mine, piece, first)


@pytest.mark.usefixtures("exactly_orthogonal")
def test_the_models_own_stacked_weights_move_as_heads_apart() -> None:
    model = random_gpt(MODERN)
    config = settings(name="muon", learning_rate=0.1, weight_decay=2.0, momentum=0.9)
    optimizer = Optimizer(model, config)
    weight = model.get_parameter("blocks.0.attention.qkv.weight")
    rows = (8,) * 8  # four heads of queries, two of keys, two of values
    start = weight.detach().clone()
    pieces = [piece.clone() for piece in torch.split(start, list(rows))]
    theirs = torch.optim.Muon(pieces, lr=0.1, momentum=0.9, weight_decay=2.0)
    set_gradients(model, 0)
    weight.grad = torch.cat([gradient(n, 32, seed=i) for i, n in enumerate(rows)])
    for piece, part in zip(pieces, torch.split(weight.grad, list(rows)), strict=True):
        piece.grad = part.clone()
    optimizer.step()
    theirs.step()  # type: ignore[no-untyped-call]
    assert_same_way(weight.detach(), torch.cat(pieces), start)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_orthogonalizing_keeps_directions_and_evens_out_sizes(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    matrices = torch.stack([gradient(rows, columns, seed + i, scale) for i in range(2)])
    out = newton_schulz(matrices).double()
    assert out.shape == matrices.shape
    for matrix, direction in zip(matrices.double(), out, strict=True):
        values = torch.linalg.svdvals(direction)
        assert values.min() > 0.95
        assert values.max() < 1.03
        # In the matrix's own singular vectors the result is a diagonal, of these very values.
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.mT @ direction @ v.mT
        off_diagonal = inner - inner.diagonal().diag()
        assert off_diagonal.norm() < 0.05 * inner.norm()
        assert inner.diagonal().min() > 0.94


def test_orthogonalizing_forgets_only_directions_with_hardly_any_gradient() -> None:
    # The spectrum of momentum falls off: here by e⁴, to a sixtieth and less of the largest.
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(64, 256, generator=generator), full_matrices=False)
    values = torch.exp(-4 * torch.arange(64) / 64)
    values = values / values[0]
    found = torch.linalg.svdvals(newton_schulz(((u * values) @ v)[None])[0].float())
    assert found.min() > 0.9
    assert found.max() < 1.03
    tiny = torch.linalg.svdvals(newton_schulz(((u * values**3) @ v)[None])[0].float())
    assert tiny.max() < 1.03
    assert 0 < tiny.min() < 0.5


@pytest.mark.parametrize("shape", [(32, 128), (64, 384), (384, 384)])
def test_a_hundredth_of_the_largest_direction_is_not_forgotten(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(*shape, generator=generator), full_matrices=False)
    matrix = (u * torch.logspace(0, -2, shape[0])) @ v
    found = torch.linalg.svdvals(newton_schulz(matrix[None])[0].float())
    assert found.min() > 0.5
    assert found.max() < 1.1


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert not newton_schulz(torch.zeros(2, 5, 3)).any()


def test_muon_does_not_change_weights_without_a_gradient() -> None:
    moved, still = gradient(8, 8, 0), gradient(8, 8, 1)
    optimizer = Muon([(moved, (8,)), (still, (8,))], lr=0.1, momentum=0.9, weight_decay=1.0)
    moved.grad = gradient(8, 8, 2)
    optimizer.step()
    assert torch.equal(still, gradient(8, 8, 1))
    assert not torch.equal(moved, gradient(8, 8, 0))


@pytest.mark.parametrize("shape", [(1, 5), (3, 16), (7, 33), (200, 301)])
def test_passes_in_c_equal_those_in_pytorch(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if library() is None:
        pytest.skip("needs a C compiler")
    found = []
    for in_c in (True, False):
        if not in_c:
            monkeypatch.setattr(fused, "library", lambda: None)
        momentum, weight = gradient(*shape, seed=1), gradient(*shape, seed=2)
        assert (fused._library(momentum, weight) is not None) == in_c
        update = nesterov(gradient(*shape, seed=3), momentum, 0.9)
        move_(weight, update, 0.99, 0.1)
        found.append((momentum, update.float(), weight))
    for one, other, tolerance in zip(*found, (1e-6, 0.01, 2e-3), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# --- State ----------------------------------------------------------------------------------


@every_model
@both_names
def test_an_optimizer_restored_from_its_state_continues_identically(
    model_config: ModelConfig, name: str
) -> None:
    config = settings(name=name, weight_decay=0.3)
    model = random_gpt(model_config)
    optimizer = Optimizer(model, config)
    for step in range(3):
        set_gradients(model, step)
        optimizer.step()
    saved = {key: value.clone() for key, value in optimizer.state_tensors().items()}
    other = random_gpt(model_config, seed=5)
    other.load_state_dict(model.state_dict())
    restored = Optimizer(other, config)
    restored.load_state_tensors(saved, Path("state"))
    assert restored.state_tensors().keys() == saved.keys()
    for step in range(3, 6):
        set_gradients(model, step)
        set_gradients(other, step)
        optimizer.set_lr(0.5)
        restored.set_lr(0.5)
        optimizer.step()
        restored.step()
    for (parameter, weight), again in zip(
        model.named_parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(weight, again), parameter
    for key, value in optimizer.state_tensors().items():
        assert torch.equal(value, restored.state_tensors()[key]), key
