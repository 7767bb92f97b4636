"""Which file of results in a folder counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tubelet.formats.results_files import FRAME_LINES, PREDICTIONS, results_in


@pytest.mark.parametrize(("older", "newer"), [(PREDICTIONS, FRAME_LINES), (FRAME_LINES, PREDICTIONS)])
def test_of_both_files_the_one_that_was_written_last_counts(tmp_path: Path, older: str, newer: str) -> None:
    """A run that was killed before it removed the other form, or before it ended, leaves both."""
    for second, name in enumerate((older, newer), start=1):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (second, second))
    assert results_in(tmp_path) == tmp_path / newer


@pytest.mark.parametrize("name", [PREDICTIONS, FRAME_LINES])
def test_the_only_file_counts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert results_in(tmp_path) == tmp_path / name
