"""The list of jobs where the disk is full, and where its file is not one of ours."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tubelet.apps import cli
from tubelet.apps.web.jobs.joblist import JobList
from tubelet.apps.web.jobs.store import Film, Job, Store, new_id
from tubelet.core.errors import InputError

LINE = "a line for the user " * 100
LONG = "x" * 2_000_000  # more than is in reserve


def filled(path: Path) -> JobList:
    """A list with one video."""
    jobs = JobList(path)
    jobs.add("INSERT INTO videos VALUES ('a', 'old', 0, 1, 1, 1, 1, 1.0, 1, 0, 1.0, '')")
    return jobs


def name_in(jobs: JobList) -> str:
    return jobs.read("SELECT name FROM videos")[0]["name"]


def full(jobs: JobList) -> Callable[[], None]:
    """Let the file grow no more, as on a full disk; gives what ends it."""
    (pages,) = jobs._file.execute("PRAGMA page_count").fetchone()
    jobs._file.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: jobs._file.execute("PRAGMA max_page_count = 1000000") and None


def test_a_full_disk_refuses_no_change_of_usual_size(tmp_path: Path) -> None:
    jobs = JobList(tmp_path / "jobs.sqlite")
    for n in range(30):
        jobs.add(f"INSERT INTO videos VALUES ('{n}', 'old', 0, 1, 1, 1, 1, 1.0, 1, 0, 1.0, '')")
    full(jobs)
    for n in range(30):
        jobs.change("UPDATE videos SET name = ? WHERE id = ?", LINE, str(n))
        assert jobs.catch_up()
    jobs.close()
    jobs = JobList(tmp_path / "jobs.sqlite")
    assert {row["name"] for row in jobs.read("SELECT name FROM videos")} == {LINE}
    jobs.close()


def test_a_change_that_the_disk_refuses_counts_at_once_and_is_written_when_there_is_space(tmp_path: Path) -> None:
    jobs = filled(tmp_path / "jobs.sqlite")
    relieve = full(jobs)
    jobs.change("UPDATE videos SET name = ?", LONG)
    jobs.change("UPDATE videos SET bytes = 7")
    assert name_in(jobs) == LONG
    assert not jobs.catch_up()
    with pytest.raises(sqlite3.OperationalError, match="full"):  # a promise that would not survive a restart
        jobs.add("INSERT INTO videos VALUES ('b', 'new', 0, 1, 1, 1, 1, 1.0, 1, 0, 1.0, '')")
    relieve()
    assert jobs.catch_up()
    jobs.close()
    jobs = JobList(tmp_path / "jobs.sqlite")
    assert [tuple(row) for row in jobs.read("SELECT name, bytes FROM videos")] == [(LONG, 7)]
    jobs.close()


def test_ending_on_a_full_disk_is_no_error(tmp_path: Path) -> None:
    jobs = filled(tmp_path / "jobs.sqlite")
    full(jobs)
    jobs.change("UPDATE videos SET name = ?", LONG)
    jobs.close()
    jobs = JobList(tmp_path / "jobs.sqlite")
    assert name_in(jobs) == "old"
    jobs.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(root)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


def fill(root: Path) -> None:
    with (root / "filler").open("wb", buffering=0) as file:
        for size in (100_000, 1000, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def test_on_a_disk_without_a_free_byte_jobs_start_and_end_and_go(small_disk: Path) -> None:
    store = Store(small_disk / "data")
    film = Film(
        id=new_id(), name="a.mp4", example=False, bytes=3, width=64, height=48, frames=6, seconds=0.6, playable=True,
        webm=False, created=1.0,
    )  # fmt: skip
    with store.scratch() as folder:
        (folder / "source").write_bytes(b"abc")
        store.add_video(film, folder)
    jobs = [store.add_job(film.id, "toy", None, None) for _ in range(30)]
    for job in jobs[1:]:
        store.start(job.id)
    fill(small_disk)
    assert shutil.disk_usage(small_disk).free == 0
    store.start(jobs[0].id)
    store.finish(jobs[1].id, 3, 1.5)
    store.put_back(jobs[2].id)
    store.remove_job(jobs[3].id)
    for job in jobs[4:]:
        store.fail(job.id, LINE)
    left = store.jobs()
    assert store.catch_up()  # written, on a disk that is still full
    store._list._file.close()  # as if the process were gone
    written = sqlite3.connect(small_disk / "data" / "jobs.sqlite")
    states = written.execute("SELECT id, state, error FROM jobs ORDER BY created, rowid").fetchall()
    assert states == [(job.id, job.state, job.error) for job in left]
    written.close()


def folder(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def junk(path: Path) -> None:
    path.write_bytes(b"junk" * 1000)


def cut(path: Path) -> None:
    jobs = filled(path)
    jobs.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_program(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    database.close()


def other_jobs(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE jobs (id INTEGER, wages REAL)")
    database.close()


def other_ids(path: Path) -> None:
    jobs = JobList(path)
    jobs.add("INSERT INTO videos VALUES ('../../other', 'x', 0, 1, 1, 1, 1, 1.0, 1, 0, 1.0, '')")
    jobs.close()


def other_texts(path: Path) -> None:
    jobs = JobList(path)
    jobs.add("INSERT INTO videos VALUES (CAST(x'ff' AS TEXT), 'x', 0, 1, 1, 1, 1, 1.0, 1, 0, 1.0, '')")
    jobs.close()


def orphan(path: Path) -> None:
    jobs = filled(path)
    jobs._file.execute("PRAGMA foreign_keys = OFF")
    jobs._file.execute("INSERT INTO jobs VALUES ('a', 'none', 'toy', 1, 1, 'queued', NULL, 0, 0, 0, 1, NULL)")
    jobs.close()


@pytest.mark.parametrize(
    "make",
    [folder, junk, cut, other_program, other_jobs, other_ids, other_texts, orphan, fifo],
    ids=lambda m: m.__name__,
)
def test_a_list_that_is_not_ours_or_broken_is_one_line_and_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    path = tmp_path / "data" / "jobs.sqlite"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    assert cli.call(["serve", "--data", str(path.parent), "--port", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be opened" in line
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("where", ["data", "data/videos"])
def test_a_file_where_a_folder_is_needed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_bytes(b"")
    assert cli.call(["serve", "--data", str(tmp_path / "data"), "--port", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected a folder" in line


def test_a_list_of_an_earlier_version_is_taken_on(tmp_path: Path) -> None:
    jobs = filled(tmp_path / "jobs.sqlite")
    jobs.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        database.execute("DROP TABLE reserve")
        database.execute("ALTER TABLE jobs DROP COLUMN classes")
    database.close()
    jobs = JobList(tmp_path / "jobs.sqlite")
    assert name_in(jobs) == "old"
    assert "classes" in {row["name"] for row in jobs.read("SELECT name FROM pragma_table_info('jobs')")}
    jobs.close()


BEFORE_USERS = """
CREATE TABLE videos (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, example INTEGER NOT NULL, bytes INTEGER NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, frames INTEGER NOT NULL, seconds REAL NOT NULL, playable INTEGER NOT NULL,
    webm INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE trainings (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, model TEXT NOT NULL, videos TEXT NOT NULL, threshold REAL NOT NULL,
    steps INTEGER NOT NULL, state TEXT NOT NULL, error TEXT, attempts INTEGER NOT NULL, summary TEXT,
    created REAL NOT NULL);
CREATE TABLE models (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL, created REAL NOT NULL);
INSERT INTO videos VALUES ('000000000000000a', 'goats.mp4', 0, 1, 1, 1, 1, 1.0, 1, 0, 1.0);
INSERT INTO trainings VALUES ('000000000000000b', 'goats', 'default', '[]', 0.5, 9, 'stopped', NULL, 0, NULL, 2.0);
INSERT INTO models VALUES ('000000000000000c', 'goats', 3, 3.0);
"""


def test_a_list_from_before_there_were_users_is_taken_on_and_its_things_belong_to_no_user(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        database.executescript(BEFORE_USERS)
    database.close()
    (tmp_path / "videos" / "000000000000000a").mkdir(parents=True)
    (tmp_path / "videos" / "000000000000000a" / "source").write_bytes(b"film")
    (tmp_path / "trainings" / "000000000000000b").mkdir(parents=True)
    (tmp_path / "models" / "000000000000000c").mkdir(parents=True)
    (tmp_path / "models" / "000000000000000c" / "model.safetensors").write_bytes(b"abc")

    for _ in range(2):  # and so it is the next time
        store = Store(tmp_path)
        rows = (store.videos(), store.trainings.all(), store.models.all())
        store.close()
        assert [[(row.name, row.owner) for row in table] for table in rows] == [
            [("goats.mp4", "")], [("goats", "")], [("goats", "")],
        ]  # fmt: skip


def test_a_refused_list_leaves_the_folder_free(tmp_path: Path) -> None:
    other_program(tmp_path / "jobs.sqlite")
    with pytest.raises(InputError):
        Store(tmp_path)
    (tmp_path / "jobs.sqlite").unlink()
    store = Store(tmp_path)
    assert store.jobs() == list[Job]()
    store.close()
