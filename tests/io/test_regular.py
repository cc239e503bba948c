"""Regular files are opened; whatever would wait or never end is refused at once."""

import os
import socket
from contextlib import chdir
from pathlib import Path

import pytest

from minigpt_cli.io.permissions import enterable, restrict
from minigpt_cli.io.regular import NotRegularError, open_regular, read_bounded

posix = pytest.mark.skipif(os.name != "posix", reason="needs special files and permissions")


def test_a_file_and_a_link_to_one_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


@posix
def test_special_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with chdir(tmp_path), socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    (tmp_path / "link").symlink_to("fifo")
    for path in (tmp_path / "fifo", tmp_path / "socket", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(NotRegularError, match="not a regular file"):
            open_regular(path)


@posix
def test_a_pipe_that_takes_a_files_place_at_the_last_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    real = os.open

    def exchanged(name: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return real(name, flags)

    monkeypatch.setattr(os, "open", exchanged)
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(NotRegularError):
        open_regular(path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_missing_files_and_folders_are_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_reading_is_bounded_and_a_huge_file_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_bounded(path, 4)
    with path.open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_bounded(path, 100)


@posix
@pytest.mark.parametrize(
    ("before", "most", "after"),
    [
        (0o644, 0o600, 0o600), (0o644, 0o640, 0o640), (0o600, 0o644, 0o600),
        (0o755, 0o700, 0o700), (0o666, 0o000, 0o600), (0o640, 0o604, 0o600),
    ],
)  # fmt: skip
def test_permissions_are_only_taken_and_never_the_owners(
    tmp_path: Path, before: int, most: int, after: int
) -> None:
    path = tmp_path / "a"
    path.touch()
    path.chmod(before)
    restrict(path, most)
    assert path.stat().st_mode & 0o777 == after


@posix
def test_a_link_does_not_carry_the_change_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch(0o644)
    (tmp_path / "link").symlink_to("theirs")
    mode = (tmp_path / "theirs").stat().st_mode
    restrict(tmp_path / "link", 0)
    assert (tmp_path / "theirs").stat().st_mode == mode


def test_a_folder_is_entered_by_those_who_may_read() -> None:
    assert enterable(0o640) == 0o750
    assert enterable(0o600) == 0o700
    assert enterable(0o604) == 0o705
