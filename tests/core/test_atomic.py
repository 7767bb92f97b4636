"""Files that appear whole, groups that appear together, and what killed processes leave."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tubelet.core import atomic
from tubelet.core.atomic import (
    check_file,
    check_folder,
    check_new_folder,
    discard,
    new_folder,
    replacing,
    replacing_folder,
    scratch_name,
    sweep,
    together,
)
from tubelet.core.errors import InputError, WriteError

LONG_AGO = time.time() - 8 * 24 * 3600


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("")


def killed(work: Callable[[], object]) -> None:
    """Run something in a process of its own that ends in the middle of it, as a kill does."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def scratch_of_another_machine(path: Path) -> Path:
    name = scratch_name(path)
    return name.with_name(name.name.replace(atomic._machine(), "0123456789ab"))


# one file, one folder


def test_replacing_writes_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text(str(1 / 0) if temporary.write_text("half") else "")
    assert target.read_text() == "old"
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert listing(tmp_path) == ["file.txt"]


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "deep" / "set") as folder:
        (folder / str(1 / 0)).mkdir()
    assert listing(tmp_path) == []
    (tmp_path / "set").mkdir()
    with new_folder(tmp_path / "set") as folder:
        (folder / "a").mkdir()
    assert listing(tmp_path) == ["set", "set/a"]
    (tmp_path / "file").write_text("x")
    for taken in ("set", "file"):
        with pytest.raises(InputError, match="there is something already"), new_folder(tmp_path / taken):
            pass


def test_a_folder_takes_the_place_of_another(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old").write_text("")
    with replacing_folder(tmp_path / "set", durable=True) as folder:
        (folder / "new").write_text("")
    assert listing(tmp_path) == ["set", "set/new"]
    discard(tmp_path / "set")
    assert listing(tmp_path) == []


def test_a_file_may_be_read_by_whom_its_neighbours_may_be_read(tmp_path: Path):
    (tmp_path / "neighbour").write_text("")
    with replacing(tmp_path / "file") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT, 0o600))  # as safetensors does
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "neighbour").stat().st_mode


def test_a_scratch_name_keeps_the_ending_and_fits_the_disk(tmp_path: Path):
    for name in ("film.mp4", "é" * 120 + ".mp4", "x" * 251 + ".mp4"):
        with replacing(tmp_path / name) as temporary:
            assert temporary.suffix == ".mp4"
        assert listing(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path):
    target = tmp_path / "deep" / "file.txt"
    with pytest.raises(WriteError) as refused, replacing(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(refused.value) == f"{target}: cannot be written (no space left on device)"
    assert refused.value.code == errno.ENOSPC
    assert listing(tmp_path) == []


def test_no_error_names_the_scratch_file(tmp_path: Path):
    missing = tmp_path / "set" / "a" / "b"
    with pytest.raises(InputError, match=f"^{missing}: cannot be"), new_folder(tmp_path / "set") as folder:
        (folder / "a" / "b").write_text("")
    with pytest.raises(InputError, match=rf"^{tmp_path / 'set'}: odd"), new_folder(tmp_path / "set") as folder:
        raise InputError(f"{folder}: odd")


def test_a_file_that_cannot_be_read_is_not_called_unwritable(tmp_path: Path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()


# groups


def test_a_group_appears_together_or_not_at_all(tmp_path: Path):
    for folder in (tmp_path / "new" / "folder", tmp_path):
        with pytest.raises(ZeroDivisionError), together(folder) as scratch:
            write_files(scratch, *("a" if n else str(1 / 0) for n in (1, 0)))
        assert listing(tmp_path) == []
    with together(tmp_path / "new") as scratch:
        (scratch / "a").write_text("1")
        (scratch / "b").write_text("1")
    with together(tmp_path / "new") as scratch:
        (scratch / "b").write_text("2")
        (scratch / "maps").mkdir()
    assert listing(tmp_path / "new") == ["a", "b", "maps"]
    assert (tmp_path / "new" / "b").read_text() == "2"


def test_a_group_replaces_a_folder_of_the_same_name(tmp_path: Path):
    for name in ("old", "new"):
        with together(tmp_path) as scratch:
            (scratch / "maps").mkdir()
            (scratch / "maps" / name).write_text("")
    assert listing(tmp_path) == ["maps", "maps/new"]


def test_a_group_meets_a_folder_that_someone_has_made_meanwhile(tmp_path: Path):
    with together(tmp_path / "out") as scratch:
        (scratch / "a").write_text("")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes").write_text("")
    assert listing(tmp_path) == ["out", "out/a", "out/notes"]


def test_nothing_of_a_group_moves_where_one_of_it_cannot(tmp_path: Path):
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="b: a folder is in the way"), together(tmp_path) as scratch:
        write_files(scratch, "a", "b")
    assert listing(tmp_path) == ["b"]


@pytest.mark.parametrize("kill_at", range(1, 7))
def test_a_group_killed_at_any_move_is_whole_after_the_next_start(tmp_path: Path, kill_at: int):
    def write(text: str) -> None:
        with together(tmp_path) as scratch:
            (scratch / "maps").mkdir()
            for name in ("a", "b", "maps/c"):
                (scratch / name).write_text(text)

    def write_and_die() -> None:
        moves = 0

        def counted(real: Callable[..., None]) -> Callable[..., None]:
            def move(*arguments: object) -> None:
                nonlocal moves
                moves += 1
                if moves == kill_at:
                    die()
                real(*arguments)

            return move

        os.rename, os.replace = counted(os.rename), counted(os.replace)
        write("new")
        die()

    write("old")
    killed(write_and_die)
    sweep(tmp_path)
    held = {path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert held == {"old" if kill_at == 1 else "new"}
    assert listing(tmp_path) == ["a", "b", "maps", "maps/c"]


# what killed processes leave


def test_what_a_killed_process_left_is_swept_at_the_next_start(tmp_path: Path):
    def begin() -> None:
        with new_folder(tmp_path / "set") as folder, replacing(tmp_path / "file"):
            (folder / "half").write_text("")
            die()

    killed(begin)
    assert len(listing(tmp_path)) == 3
    check_new_folder(tmp_path / "set")
    assert listing(tmp_path) == []


def test_what_a_living_process_is_at_stays(tmp_path: Path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tubelet.core.atomic import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as folder:\n    (folder / 'half').write_text('')\n"
        "    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "set")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = listing(tmp_path)
        sweep(tmp_path)
        assert listing(tmp_path) == before
        other.communicate()
    assert listing(tmp_path) == ["set", "set/half"]


def test_a_number_that_a_later_process_has_got_is_not_the_process(tmp_path: Path):
    mine = scratch_name(tmp_path / "file")
    start = atomic._start_of(os.getpid())
    mine.write_text("")
    mine.with_name(mine.name.replace(f"-{start}-", f"-{start + 1}-")).write_text("")
    sweep(tmp_path)
    assert listing(tmp_path) == [mine.name]


def test_another_machines_scratch_is_swept_only_when_it_is_old(tmp_path: Path):
    fresh, old = (scratch_of_another_machine(tmp_path / name) for name in ("fresh", "old"))
    for folder in (fresh, old):
        folder.mkdir()
        (folder / "half").write_text("")
    for path in (old / "half", old):
        os.utime(path, (LONG_AGO, LONG_AGO))
    (tmp_path / ".partial-notes").write_text("of the user")
    sweep(tmp_path)
    assert listing(tmp_path) == sorted([".partial-notes", fresh.name, f"{fresh.name}/half"])


# whether it can be written


def test_whether_results_can_be_written_is_found_out_before_the_work(tmp_path: Path):
    check_folder(tmp_path / "new" / "folder")
    check_file(tmp_path / "new" / "file.json")
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "file/inside", "gone/inside"):
        with pytest.raises(InputError, match="expected a folder to write to, found a file"):
            check_folder(tmp_path / name)
    for check, name, reason in (
        (check_file, "", "expected a file to write, found a folder"),
        (check_file, "pipe", "found a device or a pipe"),
        (check_file, "x" * 300, "file name too long"),
        (check_folder, "a\0b", r"a\\x00b: no name for a file"),
        (check_folder, "\ud800", "no name for a file"),
    ):
        with pytest.raises(InputError, match=reason):
            check(tmp_path / name)
    assert listing(tmp_path) == ["file", "gone", "pipe"]


def test_a_folder_that_takes_nothing_is_found_by_trying():
    with pytest.raises(WriteError, match=r"^/proc: cannot be written"):  # not even by root
        check_folder("/proc/results")


@pytest.mark.parametrize("address", ["s3://bucket/out", "gs://bucket", "file:///out", "https://example.org/out.json"])
@pytest.mark.parametrize("write", [replacing, replacing_folder, new_folder, together, check_file, check_folder])
def test_an_address_becomes_no_folder(
    write: Callable[[str], object], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        enter(write(address))
    scheme, _, rest = address.partition("://")
    assert str(caught.value) == f"{scheme}://{rest.lstrip('/')}: expected a path to write to, found an address"
    assert listing(tmp_path) == []


def enter(block: object) -> None:
    if isinstance(block, AbstractContextManager):
        with block:
            pass


def test_a_folder_may_be_named_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    with replacing(Path("s3:", "a.txt")) as partial:
        partial.touch()
    assert listing(tmp_path) == ["s3:", "s3:/a.txt"]
