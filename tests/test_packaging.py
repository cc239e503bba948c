"""A built wheel works by itself, from any folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import tomli

from minigpt_cli.config.presets import preset_names

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.network  # the wheel's builder comes from a package index


def call(*command: str | Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    result = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    builder = [*pip, "download", "--no-deps", "--dest", str(folder / "builder"), "hatchling"]
    if subprocess.run(builder, capture_output=True, cwd=folder).returncode:
        pytest.skip("needs pip and a package index that has hatchling")
    call(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel in it; its dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name == "posix")
    scripts = folder / ("bin" if os.name == "posix" else "Scripts")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    call(*pip, "--python", scripts / "python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.rglob("site-packages")
    # Behind its own packages; the links that an editable install left there are not followed.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return scripts


def test_wheel_holds_presets_cards_and_pages_and_nothing_foreign(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for page in (
            p for kind in ("jinja", "js") for p in ROOT.glob(f"minigpt_cli/pages/*.{kind}")
        ):
            assert archive.read(page.relative_to(ROOT).as_posix()) == page.read_bytes()
        sources = [*ROOT.glob("minigpt_cli/native/*.[ch]")]
        assert {path.suffix for path in sources} == {".c", ".h"}
        for source in sources:
            assert archive.read(source.relative_to(ROOT).as_posix()) == source.read_bytes()
        for shipped in [*ROOT.glob("configs/*.toml"), *ROOT.glob("data/*.toml")]:
            inside = f"minigpt_cli/shipped/{shipped.relative_to(ROOT).as_posix()}"
            assert archive.read(inside) == shipped.read_bytes()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "minigpt_cli"
    }  # and minigpt_cli-x.y.z.dist-info
    data = {name for name in names if name.startswith("minigpt_cli/shipped/data/")}
    assert data == {f"minigpt_cli/shipped/data/{card.name}" for card in ROOT.glob("data/*.toml")}
    catalogs = {
        f"minigpt_cli/languages/{path.name}"
        for path in (ROOT / "minigpt_cli" / "languages").iterdir()
    }
    assert "minigpt_cli/languages/zh_CN.po" in catalogs
    assert names >= {"minigpt_cli/py.typed", *catalogs}


def test_installed_package_lists_its_own_presets_from_anywhere(environment: Path) -> None:
    program = (
        "import json, minigpt_cli; from minigpt_cli.config.presets import shipped_folder; "
        "print(json.dumps([minigpt_cli.__file__, *map(str, map(shipped_folder, "
        "['configs', 'data']))]))"
    )
    file, configs, data = map(Path, json.loads(call(environment / "python", "-c", program)))
    package = file.parent
    assert package.is_relative_to(environment.parent)
    assert (configs, data) == (package / "shipped" / "configs", package / "shipped" / "data")
    assert (data / "shakespeare.toml").is_file()
    listed = json.loads(call(environment / "minigpt", "train", "--list-presets", "--json"))
    assert [*listed] == preset_names()


def test_installed_program_and_module_are_the_same(environment: Path) -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    by_script = call(environment / "minigpt", "--version")
    by_module = call(environment / "python", "-m", "minigpt_cli", "--version")
    assert by_script == by_module == f"minigpt {project['version']}\n"
