"""Attention against the guide's formula, softmax(q kᵀ / √D) v, written out in double precision."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from minigpt_cli.model import fused
from minigpt_cli.model.attention import causal_attention

# fp64 and fp32 use PyTorch's kernel; bf16 on a CPU works in blocks of 128 queries: lengths below,
# at, above and far beyond that; whole vectors of 16 keys in C, where there is a compiler.
LENGTHS = [1, 5, 16, 127, 128, 129, 144, 256, 300]
HEADS = [(4, 4), (4, 2), (3, 1)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head at a time over the whole square of scores, in fp64; (B, T, H, D)."""
    B, H, T, D = q.shape
    past = torch.arange(T)[:, None] >= torch.arange(T)[None, :]
    heads = []
    for head in range(H):
        kv = head * k.shape[1] // H
        scores = torch.einsum("bid,bjd->bij", q[:, head], k[:, kv]) / math.sqrt(D)
        weights = scores.exp() * past  # small enough scores need no shift
        heads.append(torch.einsum("bij,bjd->bid", weights / weights.sum(2, keepdim=True), v[:, kv]))
    out = torch.stack(heads, dim=2)
    assert out.shape == (B, T, H, D)
    return out


def inputs(
    length: int, heads: tuple[int, int], dtype: torch.dtype, batch: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v laid out as in the model: the heads of a token are adjacent in memory."""
    generator = torch.Generator().manual_seed(seed)
    H, K = heads
    q, k, v = (
        torch.randn(batch, length, n, 16, generator=generator).to(dtype).transpose(1, 2)
        for n in (H, K, K)
    )
    return q, k, v


def largest_error(ours: Tensor, exact: Tensor) -> float:
    """The relative error of the worst position: one wrong row must not hide among good ones."""
    difference = (ours.double() - exact).flatten(2).norm(dim=2)
    return float((difference / exact.flatten(2).norm(dim=2).clamp(min=0.1)).detach().max())


@every_dtype
@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("heads", HEADS, ids=lambda heads: f"{heads[0]}q{heads[1]}kv")
@pytest.mark.parametrize("length", LENGTHS)
def test_attention_and_its_gradients_equal_the_formula(
    length: int, heads: tuple[int, int], dtype: torch.dtype
) -> None:
    ours, exact = inputs(length, heads, dtype), inputs(length, heads, dtype)
    exact = (exact[0].double(), exact[1].double(), exact[2].double())
    for x in (*ours, *exact):
        x.requires_grad_()
    out, expected = causal_attention(*ours), written_out(*exact)
    assert out.dtype == dtype
    assert out.shape == expected.shape
    assert largest_error(out, expected) < TOLERANCE[dtype]
    with torch.no_grad():
        assert largest_error(causal_attention(*ours), expected) < TOLERANCE[dtype]

    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    torch.autograd.backward(out, upstream)
    torch.autograd.backward(expected, upstream.double())
    for name, x, y in zip("qkv", ours, exact, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        error = (x.grad.double() - y.grad).norm() / y.grad.norm().clamp(min=1.0)
        assert error < TOLERANCE[dtype], f"gradient of {name}: {error}"


@every_dtype
@pytest.mark.usefixtures("implementation")
def test_attention_scales_scores_by_the_root_of_the_head_size(dtype: torch.dtype) -> None:
    # Two keys; the second query scores them 0 and √16 · ln 3, so it weighs them 1 : 3.
    q, k, v = (torch.zeros(1, 1, 2, 16, dtype=dtype) for _ in range(3))
    q[..., 1, 0] = 4.0
    k[..., 1, 0] = math.log(3)
    v[..., 0, :], v[..., 1, :] = 1.0, 5.0
    out = causal_attention(q, k, v)[0, :, 0]
    assert out[0].tolist() == [1.0] * 16
    assert out[1].tolist() == pytest.approx([(1 * 1 + 3 * 5) / 4] * 16, rel=0.01)


@every_dtype
@pytest.mark.usefixtures("implementation")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.sampled_from([2, 48, 128, 131, 260, 272]), data=st.data())
def test_a_later_key_or_value_changes_no_bit_of_an_earlier_output(
    dtype: torch.dtype, length: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, length - 1), label="place")
    q, k, v = inputs(length, (4, 2), dtype, batch=1)
    before = causal_attention(q, k, v)
    k, v = k.clone(), v.clone()
    k[:, :, place] += 1
    v[:, :, place] -= 1
    after = causal_attention(q, k, v)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.equal(before[:, place], after[:, place])


@every_dtype
@pytest.mark.usefixtures("implementation")
def test_scores_too_large_to_exponentiate_stay_finite(dtype: torch.dtype) -> None:
    q, k, v = inputs(140, (2, 2), dtype)
    out = causal_attention(300 * q, 300 * k, v)
    assert out.isfinite().all()
    assert out.abs().max() <= v.abs().max()


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("start", [0, 16, 37])
def test_softmax_and_its_gradient_in_c_equal_the_formula(start: int, group: int) -> None:
    if not fused.computes(torch.float32, 64):
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    keys, scale = 64, 0.3
    scores = torch.randn(3, (keys - start) * group, keys)
    query = start + torch.arange(scores.size(1)) // group
    past = torch.arange(keys)[None, :] <= query[:, None]
    exact = scores.double().requires_grad_()
    expected = (scale * exact).masked_fill(~past, -torch.inf).softmax(-1)
    weights = scores.clone()
    fused.causal_softmax_(weights, start, group, scale)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-7)
    assert not weights[:, ~past].any()

    grad = torch.randn_like(scores)
    torch.autograd.backward(expected, grad.double())
    fused.causal_softmax_backward_(grad, weights, start, group)
    assert exact.grad is not None
    torch.testing.assert_close(scale * grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("implementation")
def test_a_key_that_is_not_a_number_is_not_hidden() -> None:
    q, k, v = inputs(144, (2, 2), torch.bfloat16)
    k[:, :, 70, 3] = float("nan")
    out = causal_attention(q, k, v)
    assert out[:, 70:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_dropout_drops_and_keeps_the_mean(dtype: torch.dtype) -> None:
    q, k, v = inputs(6, (2, 2), dtype, batch=1)
    expected = written_out(q.double(), k.double(), v.double())
    torch.manual_seed(0)
    draws = torch.stack([causal_attention(q, k, v, dropout=0.5).double() for _ in range(2000)])
    assert draws.std(0).min() > 0.01
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() < 5 * standard_error + TOLERANCE[dtype]).all()
    # The first query has one key, which half the time is dropped and else counts double.
    dropped = (draws[:, 0, 0] == 0).all(-1).double().mean(0)
    assert dropped.tolist() == pytest.approx([0.5, 0.5], abs=0.06)


@every_dtype
def test_without_dropout_attention_draws_no_random_number(dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    x = inputs(140, (2, 1), dtype)
    assert torch.equal(causal_attention(*x), causal_attention(*x))
    assert torch.equal(torch.get_rng_state(), state)
