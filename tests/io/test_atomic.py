"""A file is replaced whole or stays as it was, and nothing is left beside it."""

import os
from pathlib import Path

import pytest

from minigpt_cli.io.atomic import is_temporary, replacing, sweep


def test_new_content_takes_the_files_place_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_mode_is_kept_and_a_new_file_has_the_usual_one(tmp_path: Path) -> None:
    kept, new, usual = tmp_path / "kept", tmp_path / "new", tmp_path / "usual"
    kept.write_text("old")
    kept.chmod(0o640)
    usual.write_text("as any program writes it")
    for path in (kept, new):
        with replacing(path) as temporary:
            temporary.write_text("new")
    assert kept.stat().st_mode & 0o777 == 0o640
    assert new.stat().st_mode == usual.stat().st_mode


def test_sweep_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as temporary:
        left = temporary.parent.name
        temporary.write_text("new")
    (tmp_path / left).mkdir()
    (tmp_path / left / "file").write_text("half")
    others = [tmp_path / name for name in ("file", f"{left}x", left.replace("file", "other"))]
    for other in others[1:]:
        other.mkdir()
    assert is_temporary(tmp_path / left, "file")
    sweep(tmp_path, "file")
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_link_with_the_name_of_a_temporary_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    link = tmp_path / ".file.12345678.part"
    link.symlink_to(precious)
    assert not is_temporary(link, "file")
    sweep(tmp_path, "file")
    assert precious.is_dir()
