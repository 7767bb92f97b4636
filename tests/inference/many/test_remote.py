"""Results at an address: whole or not finished, whatever ends the process that sends them; never computed twice."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from toy import Seen, Toy, moving_patches
from tubelet.apps.batch import command
from tubelet.apps.batch.inputs import find_jobs
from tubelet.apps.cli import call
from tubelet.core.errors import InputError
from tubelet.core.types import Clip, Tracks
from tubelet.inference.many import batch
from tubelet.inference.many.batch import MARKER, Settings, VideoJob, VideoOutcome
from tubelet.inference.many.remote import RemoteResults
from tubelet.video.writer import VideoWriter

SIZE = (48, 64)
SETTINGS = Settings(model="toy")


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


class Breaking(MemoryFileSystem):
    """A store in which one change after `changes_left` others ends the process in the middle, or fails."""

    protocol = "breaking"
    changes_left: int | None = None
    error: BaseException = Killed()

    def _change(self) -> None:
        cls = type(self)
        if cls.changes_left is not None:
            cls.changes_left -= 1
            if cls.changes_left < 0:
                raise cls.error

    def put_file(self, lpath: str, rpath: str, **kwargs: object) -> None:
        self._change()
        super().put_file(lpath, rpath, **kwargs)

    def rm_file(self, path: str) -> None:
        self._change()
        super().rm_file(path)


class Counting(Toy):
    """Counts the frames that it has seen."""

    seen = 0

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        Counting.seen += 1
        return super().step(state, clip)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Breaking]]:
    """An empty store at breaking://, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    Breaking.store.clear()
    Breaking.pseudo_dirs[:] = [""]
    Breaking.changes_left = None
    Breaking.error = Killed()
    yield Breaking
    Breaking.changes_left = None


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for name, colours in (("a", ("red", "blue")), ("b", ("green",))):
        (tmp_path / "films").mkdir(exist_ok=True)
        with VideoWriter(tmp_path / "films" / f"{name}.mp4", SIZE, 10) as writer:
            for image in moving_patches(3, SIZE, colours):
                writer.write(image)
    return tmp_path / "films"


def sent(address: str) -> dict[str, bytes]:
    """All files at an address."""
    system, root = fsspec.core.url_to_fs(address)
    system.invalidate_cache()
    return {path.removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root)}


def segment_all(remote: RemoteResults, jobs: Sequence[VideoJob], settings: Settings = SETTINGS) -> list[VideoOutcome]:
    return [remote.segment(Counting(), job, remote.staging, settings) for job in jobs]


def in_a_folder(jobs: Sequence[VideoJob], folder: Path) -> dict[str, bytes]:
    """The files of a batch on this machine."""
    for job in jobs:
        batch.segment(Toy(), job, folder, SETTINGS)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def work(inputs: list[str], address: str, monkeypatch: pytest.MonkeyPatch, settings: Settings = SETTINGS) -> int:
    """The command's work, in this process."""

    def here(jobs: Sequence[VideoJob], *given: object) -> Iterator[VideoOutcome]:
        *_, segment = given
        yield from (segment(Toy(), job, folder, settings) for job in jobs)  # type: ignore[operator]

    monkeypatch.setattr(command, "outcomes_of", here)
    folder, remote = command.destination(address)
    return command.work(inputs, (), folder, lambda device: Toy(), settings, ["cpu"], remote=remote)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_batch_at_an_address_has_the_bytes_of_one_in_a_folder(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    address = f"{kind}://{tmp_path}/there/results/"
    assert work([str(films)], address, monkeypatch) == 0
    files = sent(address)
    assert {name for name in files if "/" not in name} >= {"summary.csv"}
    expected = in_a_folder(find_jobs([str(films)], (), tmp_path / "here"), tmp_path / "here")
    assert {name: data for name, data in files.items() if "/" in name} == expected
    assert not list((tmp_path / "cache" / "tubelet" / "batch").iterdir()), "nothing is left on this machine"

    assert work([str(films)], address, monkeypatch) == 0
    assert f"{address}summary.csv" in capsys.readouterr().out
    assert b"skipped" in sent(address)["summary.csv"]
    assert b"done" not in sent(address)["summary.csv"]


def test_videos_are_read_at_an_address_and_done_again_when_they_change(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = f"file://{films}/*.mp4"
    address = f"file://{films}/results"
    assert work([videos], address, monkeypatch) == 0
    assert [name for name in sent(address) if name.endswith(MARKER)] == [f"a/{MARKER}", f"b/{MARKER}"]
    (films / "a.mp4").write_bytes((films / "b.mp4").read_bytes())
    assert work([f"file://{films}"], address, monkeypatch) == 0, "results are no inputs"
    assert "1 video done before is done again: the video has changed" in capsys.readouterr().err
    assert [job.source for job in find_jobs([videos], (), address)] == [f"file://{films}/{name}.mp4" for name in "ab"]


def test_a_process_that_ends_anywhere_while_it_sends_leaves_nothing_that_looks_finished(
    films: Path, tmp_path: Path, store: type[Breaking]
) -> None:
    remote = RemoteResults("breaking://bucket/results")
    (job, _) = find_jobs([str(films)], (), tmp_path / "out")
    expected = in_a_folder([job], tmp_path / "here")
    for ends_after in range(len(expected)):
        store.store.clear()
        store.changes_left = ends_after
        with pytest.raises(Killed):
            segment_all(remote, [job])
        there = sent(remote.address)
        assert f"a/{MARKER}" not in there
        assert len(there) == ends_after

        store.changes_left = None
        Counting.seen = 0
        assert [outcome.status for outcome in segment_all(remote, [job])] == ["done"]
        assert Counting.seen == 0, "what was finished here is sent, not computed again"
        assert sent(remote.address) == expected
        assert not (remote.staging / "a").exists()


def test_results_of_other_settings_lose_their_marker_first(films: Path, tmp_path: Path, store: type[Breaking]) -> None:
    remote = RemoteResults("breaking://bucket/results")
    (job, _) = find_jobs([str(films)], (), tmp_path / "out")
    segment_all(remote, [job])
    before = sent(remote.address)
    quiet = SETTINGS.but(video=False)
    store.changes_left = 1
    with pytest.raises(Killed):
        segment_all(remote, [job], quiet)
    assert sent(remote.address) == {name: data for name, data in before.items() if name != f"a/{MARKER}"}

    store.changes_left = None
    segment_all(remote, [job], quiet)
    assert before.keys() - sent(remote.address).keys() == {"a/overlay.mp4"}, "what they do not ask for does not stay"


def test_a_store_that_refuses_costs_its_video_alone_and_nothing_is_computed_again(
    films: Path, tmp_path: Path, store: type[Breaking]
) -> None:
    remote = RemoteResults("breaking://user:secret@bucket/results")
    jobs = find_jobs([str(films)], (), tmp_path / "out")
    store.error = RuntimeError("SlowDown:\nreduce your rate")
    store.changes_left = 0
    failed = segment_all(remote, jobs)[0]
    assert failed.status == "failed"
    assert failed.note.startswith("breaking://bucket/results/a/")
    assert failed.note.endswith("cannot be written (SlowDown: reduce your rate)")
    store.changes_left = None
    Counting.seen = 0
    assert [outcome.status for outcome in segment_all(remote, jobs)] == ["done", "done"]
    assert Counting.seen == 0


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nosuch://bucket/results", "nosuch://bucket/results: Protocol not known: nosuch"),
        ("https://example.org/results", "found a web address"),
        ("file:///dev/null/results", "file:///dev/null/results: cannot be written (not a directory)"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line(
    films: Path, capsys: pytest.CaptureFixture[str], address: str, message: str
) -> None:
    assert call(["batch", str(films), "--out", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.lower() in line.lower()


def test_an_input_at_an_address_without_a_video_is_refused(films: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    for address, message in (("texts", "no video there"), ("gone/*.mp4", "no such file or folder")):
        with pytest.raises(InputError, match=message):
            find_jobs([f"file://{tmp_path}/{address}"], (), tmp_path / "out")
    listed = tmp_path / "list.txt"
    listed.write_text(f"file://{films}\nfile://{tmp_path}/gone.mp4\n")
    assert [job.name for job in find_jobs((), [listed], tmp_path / "out")] == ["a", "b", "gone"]


def test_other_processes_can_be_given_an_address() -> None:
    remote = RemoteResults("s3://bucket/results")
    assert pickle.loads(pickle.dumps(remote.segment)).__self__ == remote


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server that speaks S3, on this machine."""
    pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
    server_of = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[s3,server]'")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    yield "s3://bucket"
    server.stop()


def test_videos_and_results_are_in_s3(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3: str
) -> None:
    system = fsspec.filesystem("s3")
    for path in films.iterdir():
        system.put_file(str(path), f"bucket/films/{path.name}")
    address = f"{s3}/results"
    for status in (b"done", b"skipped"):
        assert work([f"{s3}/films/*.mp4"], address, monkeypatch) == 0
        lines = sent(address)["summary.csv"].splitlines()[1:]
        assert [status in line for line in lines] == [True, True]
    expected = in_a_folder(find_jobs([str(films)], (), tmp_path / "here"), tmp_path / "here")
    files = sent(address)
    assert {name: files[name] for name in files if "/" in name and MARKER not in name} == {
        name: data for name, data in expected.items() if MARKER not in name
    }
    with pytest.raises(InputError, match=r"s3://typing-error/results: cannot be written"):
        command.destination("s3://typing-error/results")
    assert system.ls("", detail=False) == ["bucket"]
    assert os.environ["AWS_ENDPOINT_URL"] not in capsys.readouterr().out
