from __future__ import annotations

import pytest

from tubelet.core.errors import InputError
from tubelet.data.atomic import new_folder, replacing


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "set") as folder:
        (folder / str(1 / 0)).mkdir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set").mkdir()
    with new_folder(tmp_path / "set") as folder:
        (folder / "a").mkdir()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a"]
    with pytest.raises(InputError, match="there is something already"), new_folder(tmp_path / "set"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="there is something already"), new_folder(tmp_path / "file"):
        pass


def test_replacing_writes_whole_or_not_at_all(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text(str(1 / 0) if temporary.write_text("half") else "")
    assert target.read_text() == "old"
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
