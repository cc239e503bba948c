"""The map of one head on a terminal: every row and column can be told from the others."""

import numpy as np
import pytest
from rich.cells import cell_len

from minigpt_cli.cli.console import out
from minigpt_cli.cli.inspect import attention
from minigpt_cli.inspection.attention import Attention, Head
from minigpt_cli.inspection.tokens import Window


def map_of(tokens: list[str], width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(out, "_width", width)
    monkeypatch.setattr(attention, "in_unicode", lambda: True)
    head = Head(0, 0, np.eye(len(tokens), dtype=np.float32), 0.0, 0.0, 0.0, 1.0, 0.0)
    maps = Attention(Window(tuple(range(len(tokens))), tuple(tokens), 0), (head,))
    return [line.plain for line in attention._map(maps)]


def test_names_that_fit_their_cells_stand_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    above, *rows, _ = map_of(list("abc"), 80, monkeypatch)
    assert above == "  a b c "
    assert rows == ["a ██", "b   ██", "c     ██"]


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("name", ["word", "你好", r"\xe4"])
def test_wider_names_stand_at_the_rows_and_numbers_above(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = map_of([name] * 12, width, monkeypatch)
    tens, ones, *rows, legend = lines
    assert "downwards" in legend
    assert [row.split()[:2] for row in rows] == [[str(i), name] for i in range(12)]
    for i, row in enumerate(rows):
        column = cell_len(row[: row.index("█")])  # where the token looks at itself
        assert (tens[column] + ones[column]).strip() == str(i)
    assert all(cell_len(line) <= width for line in lines[:-1])


def test_last_tokens_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    note, *above, _ = map_of(["word"] * 120, 40, monkeypatch)
    rows = above[3:]
    assert note.startswith(f"The last {len(rows)} of 120 tokens")
    assert [int(row.split()[0]) for row in rows] == list(range(120 - len(rows), 120))
    digits = "".join(line[-1] for line in above[:3])
    assert digits == "119"
    assert all(len(line) <= 40 for line in above)
