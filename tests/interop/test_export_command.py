"""`minigpt export --to hf` and `--to gguf`, as a user calls them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from minigpt_cli.cli.app import app


def export(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.chdir(home)
    return CliRunner().invoke(app, ["export", *arguments], catch_exceptions=False)


def test_a_run_becomes_a_folder_with_its_settings_in_the_card(
    trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    result = export(trained_home, monkeypatch, "runs/tiny", "--to", "hf", str(out))
    assert result.exit_code == 0, result.output
    assert f"Wrote {out}" in " ".join(result.stderr.split())
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "minigpt train --preset run.toml" in card
    assert "max_iters = 20" in card
    assert "| Training text | story |" in card
    assert "| Validation loss |" in card

    again = export(trained_home, monkeypatch, "--to", "hf", str(out))
    assert again.exit_code == 1
    assert "already exists; replace it with --force" in " ".join(again.stderr.split())
    forced = export(trained_home, monkeypatch, "--to", "hf", str(out), "--force", "--dtype", "bf16")
    assert forced.exit_code == 0


def test_a_run_becomes_a_gguf_file_and_what_differs_is_said(
    trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="needs gguf: pip install 'minigpt-cli[interop]'")
    out = tmp_path / "model.gguf"
    result = export(trained_home, monkeypatch, "--to", "gguf", str(out), "--dtype", "q8_0")
    assert result.exit_code == 0, result.output
    assert out.read_bytes()[:4] == b"GGUF"
    said = " ".join(result.stderr.split())
    assert "llama-completion" in said
    assert "stops at the context window, 32 tokens" in said
    assert "drops characters" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gguf", "model.bin"], "must end in .gguf"),
        (["--to", "gguf", "model.gguf", "--dtype", "int8"], "use fp32 or bf16 or fp16 or q8_0"),
        (["--to", "hf", "model", "--dtype", "q8_0"], "use fp32 or bf16"),
    ],
)
def test_what_a_format_cannot_be_is_a_usage_error(
    arguments: list[str], message: str, trained_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = export(trained_home, monkeypatch, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (trained_home / "model").exists()
