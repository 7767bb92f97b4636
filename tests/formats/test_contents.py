"""A digest of a data set changes with its annotations, and not with its place."""

from __future__ import annotations

import shutil
from pathlib import Path

from patch_sets import write_patch_set
from tubelet.formats.contents import digest


def test_a_document_and_its_folder_are_one_set_wherever_they_are(tmp_path: Path) -> None:
    document = write_patch_set(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert digest(document) == digest(tmp_path / "one") == digest(tmp_path / "two")
    (tmp_path / "two" / "instances.json").write_text("{}")
    assert digest(tmp_path / "two") != digest(document)


def test_an_archive_changes_with_its_members(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"1")
    before = digest(Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "set")))
    (tmp_path / "set" / "a.png").write_bytes(b"2")
    assert digest(Path(shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "set"))) != before
