"""How failed file operations become messages, and which exceptions stay bugs."""

import errno
import os
from pathlib import Path

import pytest

from minigpt_cli.errors import CheckpointError, ConfigError, CorpusError, reraise_as


def test_failure_names_the_file_the_reason_and_the_fix() -> None:
    with (
        pytest.raises(CorpusError) as caught,
        reraise_as(
            CorpusError, Path("a.txt"), "written", hint="free some space", settings=("data_dir",)
        ),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value) == (
        f"a.txt: cannot be written ({os.strerror(errno.ENOSPC)}); free some space"
    )
    assert caught.value.settings == ("data_dir",)


def test_missing_file_has_a_message_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with (
        pytest.raises(ConfigError, match=r"none: no such file; make one$"),
        reraise_as(ConfigError, path, "read", missing="no such file; make one"),
    ):
        path.read_bytes()


def test_error_without_a_reason_of_the_system_gives_its_own_text() -> None:
    with (
        pytest.raises(CheckpointError, match=r"^x: cannot be read \(timed out\)$"),
        reraise_as(CheckpointError, "x", "read"),
    ):
        raise OSError("timed out")


def test_error_of_a_library_is_covered_when_named() -> None:
    with (
        pytest.raises(CheckpointError, match=r"^x: cannot be written \(header too large\)$"),
        reraise_as(CheckpointError, "x", "written", also=(LookupError,)),
    ):
        raise LookupError("header too large")


@pytest.mark.parametrize("name", ["zero\0byte", "half\ud800character"])
def test_path_that_cannot_name_a_file_is_a_user_error(name: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"cannot be created \("),
        reraise_as(ConfigError, name, "created"),
    ):
        Path(name).touch()


@pytest.mark.parametrize("bug", [ValueError("shapes differ"), KeyError("step")])
def test_other_exceptions_stay_bugs(bug: Exception) -> None:
    with pytest.raises(type(bug)) as caught, reraise_as(ConfigError, "x", "read"):
        raise bug
    assert caught.value is bug
