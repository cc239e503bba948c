"""Reading a safetensors header by hand agrees with the library, and survives anything."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs.checkpoint_header import Header, TensorEntry, read_header


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_header_agrees_with_the_library(tmp_path: Path) -> None:
    dtypes = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool,
              torch.float64, torch.int16, torch.float8_e4m3fn]  # fmt: skip
    tensors = {f"t{i}": torch.ones(i, 3).to(dtype) for i, dtype in enumerate(dtypes)}
    tensors["scalar"] = torch.tensor(1.0)
    path = tmp_path / "mixed.safetensors"
    save_file(tensors, path, {"by": "us"})
    header = read_header(path)
    assert header.file_bytes == path.stat().st_size
    assert header.metadata == {"by": "us"}
    with safe_open(path, "pt") as library:
        assert {tensor.name for tensor in header.tensors} == {*library.keys()}
        for tensor in header.tensors:
            assert tensor.shape == tuple(library.get_slice(tensor.name).get_shape())
            assert tensor.dtype == library.get_slice(tensor.name).get_dtype()
            there = tensors[tensor.name]
            assert (tensor.elements, tensor.bytes) == (there.numel(), there.nbytes)


def test_tensors_come_in_file_order(tmp_path: Path) -> None:
    header = {"b": entry(offsets=(0, 8)), "a": entry(offsets=(8, 16)), "none": entry("F4", (0,))}
    header["none"]["data_offsets"] = (8, 8)
    path = written(tmp_path / "f", header, bytes(16))
    assert [tensor.name for tensor in read_header(path).tensors] == ["b", "none", "a"]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{", b""),
        (b"[]", b""),
        (b"3", b""),
        (b'"text"', b""),
        (b"\xff\xfe", b""),
        (b"[" * 100_000, b""),
        ({"__metadata__": {"key": 3}}, b""),
        ({"__metadata__": ["text"]}, b""),
        ({"t": 3}, b""),
        ({"t": {}}, b""),
        ({"t": entry(offsets=None)}, bytes(8)),
        ({"t": entry(offsets=(0,))}, bytes(8)),
        ({"t": entry(offsets=("a", "b"))}, bytes(8)),
        ({"t": entry(shape="ab")}, bytes(8)),
        ({"t": entry(shape=(-2,))}, bytes(8)),
        ({"t": entry(shape=(2.0,))}, bytes(8)),
        ({"t": entry(shape=(True, 2))}, bytes(8)),
        ({"t": entry("F31")}, bytes(8)),
        ({"t": entry(dtype=[])}, bytes(8)),  # type: ignore[arg-type]
        ({"t": entry(offsets=(0, 4))}, bytes(4)),
        ({"t": entry(offsets=(4, 12))}, bytes(12)),
        ({"t": entry(), "u": entry()}, bytes(8)),  # on top of each other
        ({"t": entry()}, bytes(7)),
        ({"t": entry()}, bytes(9)),
        ({"t": entry(shape=(10**30,))}, bytes(8)),
    ],
)
def test_damaged_header_is_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    path = written(tmp_path / "damaged", header, data)
    with pytest.raises(CheckpointError, match="not a safetensors file") as error:
        read_header(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 8, (100).to_bytes(8, "little")])
def test_short_file_says_how_short(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "short"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"truncated \({len(content)} bytes"):
        read_header(path)


@given(st.binary(max_size=60))
def test_any_bytes_are_only_ever_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_header(path)


leaves = st.none() | st.booleans() | st.integers(-2, 20) | st.floats() | st.text(max_size=3)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F4"]) | anything,
        "shape": st.lists(st.integers(0, 3), max_size=2) | anything,
        "data_offsets": st.lists(st.integers(0, 8), min_size=2, max_size=2) | anything,
    }
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), entries | anything) | anything,
    st.binary(max_size=8),
)
def test_any_json_is_a_header_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, header: Any, data: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any", header, data)
    try:
        found = read_header(path)
    except CheckpointError:
        return
    assert sum(tensor.bytes for tensor in found.tensors) == len(data)


metadata = st.dictionaries(st.sampled_from(["format", "minigpt"]), st.text(max_size=9))


@given(metadata | st.builds(lambda value: {"minigpt": json.dumps(value)}, anything))
def test_any_description_is_only_ever_a_checkpoint_error(metadata: dict[str, str]) -> None:
    header = Header(Path("f"), 0, {"format": "minigpt-checkpoint", **metadata}, ())
    with pytest.raises(CheckpointError):
        header.checkpoint_metadata()


def test_half_byte_dtypes_are_counted_in_bits() -> None:
    assert TensorEntry("t", "F4", (3, 2)).bytes == 3
    assert TensorEntry("t", "BF16", (3, 2)).bytes == 12


def test_reading_a_header_does_not_import_torch(tmp_path: Path) -> None:
    path = written(tmp_path / "f", {"t": entry()}, bytes(8))
    program = (
        "import sys; from pathlib import Path; "
        "from minigpt_cli.inspection.files import inspect_file; "
        f"print(inspect_file(Path({str(path)!r})).parameters, 'torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "2 False\n"
