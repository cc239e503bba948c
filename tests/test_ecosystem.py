"""Every command in docs/ecosystem.md does what the page says."""

import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from minigpt_cli.cli.app import app

PAGE = (Path(__file__).parents[1] / "docs" / "ecosystem.md").read_text(encoding="utf-8")
NAMES = {"runs/small": "runs/tiny", "my-text.txt": "story.txt"}
"""The page's, and those of the tests' own run."""
NEEDS = {"gguf": "gguf", "wandb": "wandb"}


def commands() -> list[str]:
    """The indented lines, in order."""
    found = [line.strip() for line in PAGE.splitlines() if line.startswith("    minigpt ")]
    for name, own in NAMES.items():
        found = [line.replace(name, own) for line in found]
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_command_of_the_page_works(
    trained_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(trained_home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ran = 0
    for line in commands():
        words = shlex.split(line)[1:]
        needed = [package for word, package in NEEDS.items() if word in words]
        if any(find_spec(package) is None for package in needed):
            continue
        small = ["--set", "train.sample_tokens=4"] if words[0] == "train" else []
        result = CliRunner().invoke(app, [*words, *small], catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
        ran += 1
    assert ran >= 11
    assert Path("my-model/config.json").is_file()
    assert Path("runs/story/checkpoint.safetensors").is_file()
    assert [*Path("runs/curves/tensorboard").iterdir()]
    assert Path("my-adapter/adapter_config.json").is_file()
    if find_spec("transformers") is None:
        return
    with_transformers, with_peft = (part.split("```")[0] for part in PAGE.split("```python\n")[1:])
    exec(with_transformers, {})
    assert len(capsys.readouterr().out) > 20
    if find_spec("peft") is not None:
        space: dict[str, Any] = {}
        exec(with_peft, space)
        assert type(space["model"]).__name__ == "Qwen3ForCausalLM"
