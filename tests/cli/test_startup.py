"""What happens around PyTorch's import, which every command that computes waits for."""

import json
import os
import subprocess
import sys

import pytest

SHOW = """
import gc, json, os, sys
from minigpt_cli.cli.startup import import_torch
if {disabled}: gc.disable()
import_torch()
frozen = gc.get_freeze_count()
import_torch()
print(json.dumps({{
    "torch": "torch" in sys.modules, "enabled": gc.isenabled(), "frozen": frozen,
    "again": gc.get_freeze_count() == frozen,
    "searches": sum(generation["collections"] for generation in gc.get_stats()),
    "blas": os.environ.get("OPENBLAS_NUM_THREADS"),
}}))
"""


@pytest.mark.parametrize(("disabled", "blas"), [(False, None), (True, "2")])
def test_the_import_is_not_searched_for_garbage_and_leaves_settings_alone(
    disabled: bool, blas: str | None
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    env |= {} if blas is None else {"OPENBLAS_NUM_THREADS": blas}
    program = SHOW.format(disabled=disabled)
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True)
    seen = json.loads(done.stdout)
    assert seen["torch"]
    assert seen["again"]
    assert seen["frozen"] > 100_000
    assert seen["searches"] < 150  # before it; the plain statement makes 350 more
    assert seen["enabled"] is not disabled
    assert seen["blas"] == blas
