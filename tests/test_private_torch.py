"""Each private operator of PyTorch against a public formula.

If one fails after an upgrade of PyTorch, see `minigpt_cli/private_torch.py`.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt_cli import private_torch

CHECKED_WITH = "2.13.0"
"""The version of PyTorch."""


def agrees(ours: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    hint = f"checked with PyTorch {CHECKED_WITH}; this is {torch.__version__}"
    assert (ours.float() - expected.float()).norm() <= tolerance * expected.float().norm(), hint


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[True, False], ids=["operator", "missing"])
def available(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the operators, and as if PyTorch had dropped them."""
    if not request.param:
        monkeypatch.setattr(torch.ops, "aten", object())


@pytest.mark.usefixtures("available")
def test_softmax_backward_is_autograds() -> None:
    scores = torch.randn(3, 4, 5, requires_grad=True)
    weights, grad = scores.softmax(-1), torch.randn(3, 4, 5)
    (expected,) = torch.autograd.grad(weights, scores, grad)
    agrees(private_torch.softmax_backward(grad, weights.detach()), expected)


def test_silu_backward_writes_autograds_gradient_into_a_view() -> None:
    x, grad, out = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4), torch.zeros(3, 8)
    (expected,) = torch.autograd.grad(F.silu(x), x, grad)
    private_torch.silu_backward_into(grad, x.detach(), out[:, 4:])
    agrees(out, torch.cat((torch.zeros(3, 4), expected), 1))


@pytest.mark.usefixtures("available")
def test_the_int8_product_is_that_with_the_scaled_matrix() -> None:
    x, scale = torch.randn(2, 32).bfloat16(), torch.rand(48).bfloat16()
    numbers = torch.randint(-127, 128, (48, 32), dtype=torch.int8)
    expected = x.float() @ (numbers.float() * scale.float()[:, None]).T
    ours = private_torch.int8_product(x, numbers, scale)
    assert ours.dtype == torch.bfloat16
    agrees(ours, expected, 0.01)


def test_a_packed_matrix_multiplies_like_the_plain_one() -> None:
    x, weight = torch.randn(2, 24).bfloat16(), torch.randn(40, 24).bfloat16()
    multiply = private_torch.packed_linear(weight)
    if multiply is None:
        pytest.skip("oneDNN cannot pack bf16 matrices on this machine")
    agrees(multiply(x), x.float() @ weight.float().T, 0.01)


def test_add_each_adds_a_number() -> None:
    tensors = [torch.ones(2), torch.ones(3, 4)]
    private_torch.add_each_(tensors, 1.5)
    agrees(tensors[0], torch.full((2,), 2.5))
    agrees(tensors[1], torch.full((3, 4), 2.5))


def test_lerp_each_moves_each_tensor_a_share_of_the_way() -> None:
    tensors, ends = [torch.ones(2), torch.zeros(3, 4)], [torch.full((2,), 3.0), torch.ones(3, 4)]
    private_torch.lerp_each_(tensors, ends, 0.25)
    agrees(tensors[0], torch.full((2,), 1.5))
    agrees(tensors[1], torch.full((3, 4), 0.25))


def test_fused_adamw_is_the_public_optimizers() -> None:
    weight, grad = torch.randn(4, 3), torch.randn(4, 3)
    public = nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([public], lr=0.1, betas=(0.8, 0.9), weight_decay=0.3)
    mean, square = torch.zeros(4, 3), torch.zeros(4, 3)
    for step in (1.0, 2.0):
        public.grad = grad.clone()
        optimizer.step()
        private_torch.fused_adamw_(
            [weight], [grad], [mean], [square], [torch.tensor(step)],
            lr=0.1, betas=(0.8, 0.9), weight_decay=0.3,
        )  # fmt: skip
    agrees(weight, public.detach())


def test_an_uncompiled_module_runs_its_own_forward() -> None:
    module = nn.Linear(2, 2)
    module.compile(backend=lambda graph, inputs: pytest.fail("compiled"))
    private_torch.uncompile(module)
    agrees(module(torch.ones(1, 2)).detach(), (module.weight.sum(1) + module.bias).detach())


def test_the_cpu_is_asked_for_bf16_instructions() -> None:
    assert isinstance(private_torch.cpu_has_bf16_instructions(), bool)
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported"), f"checked with {CHECKED_WITH}"
