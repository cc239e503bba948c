"""The hand-written passes against the plain formulas."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minigpt_cli.model import fused
from minigpt_cli.model.block import Attention
from minigpt_cli.model.kernels import EPSILON, apply_rotary, dropout, rms_norm, swiglu
from minigpt_cli.native.library import library


def plain_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight


def plain_swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


ANGLE = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.1, 0.01, 0.001]))  # (T, D/2)


def rotated(x: Tensor) -> Tensor:
    cos, sin = ANGLE.cos().to(x.dtype), ANGLE.sin().to(x.dtype)
    return apply_rotary(x, (torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)))


def plain_rotated(x: Tensor) -> Tensor:
    """As the product of complex numbers."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = ANGLE.cos(), ANGLE.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)


def outcome(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The output and every gradient, for the same upstream gradient."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype)
    torch.autograd.backward(out, upstream)
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


CASES = [
    (rms_norm, plain_rms_norm, [(3, 5, 16), (16,)]),
    (rms_norm, plain_rms_norm, [(2, 3, 4, 8), (8,)]),
    (rms_norm, plain_rms_norm, [(7, 11, 48), (48,)]),
    (swiglu, plain_swiglu, [(3, 5, 24)]),
    (swiglu, plain_swiglu, [(2, 37, 96)]),
    (rotated, plain_rotated, [(2, 3, 5, 8)]),
]


@pytest.mark.parametrize(("by_hand", "plain", "shapes"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.usefixtures("implementation")
def test_hand_written_passes_equal_the_plain_formula(
    by_hand: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape).to(dtype) for shape in shapes]
    expected = outcome(plain, *(x.double() for x in inputs))
    for got, wanted in zip(outcome(by_hand, *inputs), expected, strict=True):
        assert got.dtype == dtype
        error = (got.double() - wanted).norm() / wanted.norm()
        assert error < tolerance


@pytest.mark.parametrize(("by_hand", "plain", "shapes"), CASES)
def test_the_result_is_the_same_without_gradients(
    by_hand: Callable[..., Tensor], plain: Callable[..., Tensor], shapes: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape) for shape in shapes]
    with torch.no_grad():
        torch.testing.assert_close(by_hand(*inputs), plain(*inputs))


def test_a_view_of_a_larger_tensor_is_normalized_like_its_copy() -> None:
    torch.manual_seed(0)
    wide = torch.randn(2, 3, 6, 8)
    view, weight = wide[:, :, 1:4], torch.randn(8)
    for got, wanted in zip(
        outcome(rms_norm, view, weight), outcome(rms_norm, view.contiguous(), weight), strict=True
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.998])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(700, 1000, requires_grad=True)
    dropped = dropout(x, p)
    torch.autograd.backward(dropped.sum())
    out = dropped.detach()
    share = round(256 * p) / 256
    spread = (share * (1 - share) / x.numel()) ** 0.5
    assert float((out == 0).float().mean()) == pytest.approx(min(share, 255 / 256), abs=5 * spread)
    kept = out[out > 0]
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert float(out.mean()) == pytest.approx(1, abs=5 * spread / (1 - min(share, 255 / 256)))
    assert x.grad is not None
    assert torch.equal(x.grad, out)  # dropped entries get no gradient
    # Neighbors, which share a random number, are dropped independently.
    both = (out[:, 1:] == 0) & (out[:, :-1] == 0)
    assert float(both.float().mean()) == pytest.approx(min(share, 255 / 256) ** 2, abs=0.005)


def test_dropout_follows_the_seed() -> None:
    x = torch.ones(3, 5, 7, requires_grad=True)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def heads_and_gradients(attention: Attention, x: Tensor, rotates: bool) -> list[Tensor]:
    """Queries, keys and values of a projection, (B, T, (H+2K) D), and all gradients."""
    x = x.clone().requires_grad_()
    T, D = x.size(1), attention.head_dim
    angle = torch.outer(torch.arange(T), torch.linspace(1, 0, D // 2))
    cos, sin = angle.cos(), angle.sin()
    turns = torch.cat((cos, cos), -1).to(x.dtype), torch.cat((-sin, sin), -1).to(x.dtype)
    attention.qkv = torch.nn.Identity()  # type: ignore[assignment]
    out = attention.heads(x, turns if rotates else None)
    for i, each in enumerate(out):
        upstream = torch.linspace(-1, 1 + i, each.numel()).view(each.shape).to(each.dtype)
        each.backward(upstream, retain_graph=True)  # type: ignore[no-untyped-call]
    norms = [norm.weight for norm in (attention.q_norm, attention.k_norm) if norm is not None]
    return [*out, *(leaf.grad for leaf in (x, *norms) if leaf.grad is not None)]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("rotates", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_heads_in_one_pass_equal_those_in_many(
    kv_heads: int,
    qk_norm: bool,
    rotates: bool,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if library() is None:
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    attention = Attention(128, 4, kv_heads, qk_norm=qk_norm)
    for norm in (attention.q_norm, attention.k_norm):
        if norm is not None:
            norm.weight.data.normal_()
    x = torch.randn(3, 21, (4 + 2 * kv_heads) * 32).to(dtype)
    found = []
    for in_one in (True, False):
        if not in_one:
            monkeypatch.setattr(fused, "computes", lambda *_: False)
        attention.zero_grad()
        found.append(heads_and_gradients(attention, x, rotates))
    assert len(found[0]) == len(found[1]) == (6 if qk_norm else 4)
    for one, many in zip(*found, strict=True):
        assert one.dtype == many.dtype
        error = (one.double() - many.double()).norm() / many.double().norm()
        assert error < tolerance


def test_sums_in_c_do_not_depend_on_the_number_of_threads() -> None:
    if library() is None:
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    x, weight = torch.randn(5, 77, 64), torch.randn(64)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(outcome(rms_norm, x, weight))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.equal(one, two)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_not_a_number_stays_one(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 32).to(dtype)
    x[1, 2, 5] = float("nan")
    for got in outcome(rms_norm, x, torch.ones(32, dtype=dtype)) + outcome(swiglu, x):
        assert got.isnan().any()
