"""Runs a test with every implementation of the passes between the products."""

import pytest

from minigpt_cli.model import fused
from minigpt_cli.native.library import library


@pytest.fixture(params=["PyTorch", "C"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the passes written in PyTorch, and with those in C where there are any."""
    kind: str = request.param
    if kind == "PyTorch":
        monkeypatch.setattr(fused, "computes", lambda *_: False)
    elif library() is None:
        pytest.skip("needs a C compiler")
    return kind
