"""The map of the house names every module, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minigpt_cli"


def test_rooms_of_the_page_are_the_folders_and_their_modules() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \| .* \| (`.*`) \|$", page, flags=re.MULTILINE)
    named = {room.removeprefix("minigpt_cli"): re.findall(r"`(\w+)`", cell) for room, cell in rows}
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if not path.stem.startswith("__"):
            room = path.parent.relative_to(PACKAGE).as_posix()
            found.setdefault("" if room == "." else room, []).append(path.stem)
    assert {room: sorted(modules) for room, modules in named.items()} == {
        room: sorted(modules) for room, modules in found.items()
    }


def test_layers_of_the_page_are_those_of_the_contract() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = re.search(r"^layers = \[\n(.*?)^\]", project, flags=re.MULTILINE | re.DOTALL)
    assert contract is not None
    layers = re.findall(r'"(.+)"', contract[1])
    shown = "\n".join("    " + layer.replace("|", "│") for layer in layers)
    assert shown in page
