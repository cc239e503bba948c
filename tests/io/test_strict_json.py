"""JSON that has more than one meaning, or none, is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.io.strict_json import read_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)  # fmt: skip


@given(values)
def test_what_the_standard_allows_is_read_as_python_reads_it(value: Any) -> None:
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 1}', "^duplicate key 'a'$"),
        ('[{"b": {"a": 1, "c": 2, "\\u0061": 3}}]', "^duplicate key 'a'$"),
        ('{"' + "x" * 999 + '": 1, "' + "x" * 999 + '": 2}', "^duplicate key 'x{79}$"),
        ("[NaN]", "^contains NaN$"),
        ('{"a": -Infinity}', "^contains -Infinity$"),
        ("[" * 10**5 + "]" * 10**5, "^nested too deeply$"),
        ("{} {}", "Extra data"),
        ("", "Expecting value"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_ambiguous_or_invalid_json_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_json(text)
