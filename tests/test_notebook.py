"""`docs/notebook.ipynb`: its cells run in order, and no output of anybody's machine is in it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
BOOK: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in BOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs() -> None:
    assert (BOOK["nbformat"], BOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in BOOK["cells"]}) == len(BOOK["cells"])
    for cell in BOOK["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert NOTEBOOK.read_text(encoding="utf-8") == (
        json.dumps(BOOK, indent=1, ensure_ascii=False) + "\n"  # as Jupyter writes it
    )


@pytest.mark.slow
def test_the_cells_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    # Each cell is compiled by itself, in one namespace, as a kernel does.
    program = tmp_path / "cells.py"
    program.write_text(
        f"import json\nspace = {{'__name__': '__main__'}}\nfor code in {CODE!r}:\n"
        "    exec(compile(code, '<cell>', 'exec'), space)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, program], capture_output=True, encoding="utf-8", env=environment,
        timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "step 300: validation loss" in result.stdout
    assert "largest difference of any logit" in result.stdout
    assert "tokenizer_config.json" in result.stdout
