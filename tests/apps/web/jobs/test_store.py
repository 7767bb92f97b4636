"""What survives a restart, and what does not stay behind."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from tubelet.apps.web.jobs.store import MAX_ATTEMPTS, Film, Job, Store, new_id
from tubelet.core.errors import InputError


def film(store: Store, name: str = "a.mp4") -> Film:
    made = Film(
        id=new_id(), name=name, example=False, bytes=3, width=64, height=48, frames=6, seconds=0.6, playable=True,
        webm=False, created=time.time(),
    )  # fmt: skip
    with store.scratch() as folder:
        (folder / "source").write_bytes(b"abc")
        store.add_video(made, folder)
    return made


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.parent != root}


def finished(store: Store, video: Film) -> Job:
    job = store.add_job(video.id, "toy", None, None)
    store.start(job.id)
    store.job_folder(job.id).mkdir()
    (store.job_folder(job.id) / "result.json.gz").write_bytes(b"")
    store.finish(job.id, 2, 1.5)
    return job


def reopened(store: Store) -> Store:
    store.close()
    return Store(store.root)


def test_videos_and_jobs_survive_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    video = film(store, "dög\u202e.mp4")
    done, waiting = finished(store, video), store.add_job(video.id, "toy", 8, 4)
    store = reopened(store)
    assert store.videos() == [video]
    assert [(job.id, job.state, job.length) for job in store.jobs()] == [
        (done.id, "done", None),
        (waiting.id, "queued", 8),
    ]


def test_a_job_that_ran_when_the_server_died_is_queued_again_but_not_for_ever(tmp_path: Path) -> None:
    store = Store(tmp_path)
    video = film(store)
    job = store.add_job(video.id, "toy", None, None)
    for _ in range(MAX_ATTEMPTS - 1):
        store.start(job.id)
        store = reopened(store)
        assert [j.state for j in store.jobs()] == ["queued"]
    store.start(job.id)
    store = reopened(store)
    assert [(j.state, "twice" in (j.error or "")) for j in store.jobs()] == [("failed", True)]
    assert files(tmp_path) == {f"videos/{video.id}/source"}


def test_a_job_that_is_put_back_is_tried_as_often_as_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = store.add_job(film(store).id, "toy", None, None)
    for _ in range(MAX_ATTEMPTS + 1):
        store.start(job.id)
        store.put_back(job.id)
        store = reopened(store)
        assert [(j.state, j.attempts) for j in store.jobs()] == [("queued", 0)]


def test_files_that_nobody_lists_go_at_the_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    video = film(store)
    for name in ("videos/stray/source", "jobs/stray/result.json.gz", "scratch/half/source"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    store = reopened(store)
    assert files(tmp_path) == {f"videos/{video.id}/source"}


def test_a_removed_job_leaves_nothing_and_its_video_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    video = film(store)
    first, second = finished(store, video), finished(store, video)
    store.remove_job(first.id)
    assert files(tmp_path) == {f"videos/{video.id}/source", f"jobs/{second.id}/result.json.gz"}
    store.remove_job(second.id)
    assert (store.videos(), store.jobs()) == ([video], [])
    store = reopened(store)
    assert (files(tmp_path), store.videos()) == ({f"videos/{video.id}/source"}, [video])
    store.remove_video(video.id)
    assert (files(tmp_path), store.videos()) == (set(), [])


def test_a_video_whose_file_is_gone_is_forgotten_at_the_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_job(film(store).id, "toy", None, None)
    (tmp_path / "videos" / store.videos()[0].id / "source").unlink()
    store = reopened(store)
    assert (files(tmp_path), store.videos(), store.jobs()) == (set(), [], [])


def test_a_failed_job_keeps_its_line_and_its_video(tmp_path: Path) -> None:
    store = Store(tmp_path)
    video = film(store)
    job = store.add_job(video.id, "toy", None, None)
    store.start(job.id)
    store.fail(job.id, "no")
    assert [(j.state, j.error) for j in store.jobs()] == [("failed", "no")]
    assert files(tmp_path) == {f"videos/{video.id}/source"}


def test_a_broken_upload_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with contextlib.suppress(ConnectionError), store.scratch() as folder:
        (folder / "source").write_bytes(b"half")
        raise ConnectionError
    assert files(tmp_path) == set()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_second_server_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(InputError, match="is another server using it"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_a_list_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(InputError, match="cannot be opened"):
        Store(tmp_path)


def test_the_same_run_is_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    video = film(store)
    job = finished(store, video)
    assert store.find(video.id, "toy", None, None) == store.job(job.id)
    assert store.find(video.id, "toy", 8, 4) is None
    assert store.find(video.id, "other", None, None) is None


def test_a_list_of_before_there_were_edits_is_opened(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = finished(store, film(store))
    for table in ("steps", "seen"):
        store._list._file.execute(f"DROP TABLE {table}")
    store = reopened(store)
    assert (store.steps(job.id), store.seen(job.id)) == ([], [])
    store.add_step(job.id, 0, '"undo"')
    store.set_seen(job.id, [(0, 2), (5, 5)])
    store = reopened(store)
    assert (store.steps(job.id), store.seen(job.id)) == (['"undo"'], [(0, 2), (5, 5)])


def test_two_steps_of_one_number_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = finished(store, film(store))
    store.add_step(job.id, 0, '"undo"')
    with pytest.raises(sqlite3.IntegrityError):
        store.add_step(job.id, 0, '"redo"')
    assert store.steps(job.id) == ['"undo"']
