"""Many videos: names, restarts, broken videos, killed workers, and the same bytes whoever does the work."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batch_models
from toy import Toy, moving_patches
from tubelet.apps.batch import cluster, command
from tubelet.apps.batch.inputs import find_jobs, named
from tubelet.apps.cli import call
from tubelet.core.atomic import scratch_name
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.types import Clip, Tracks
from tubelet.inference.many import batch, workers
from tubelet.inference.many.batch import MARKER, MOST_TRIES, TRIES, OpenModel, Settings, VideoJob, VideoOutcome
from tubelet.inference.many.workers import share
from tubelet.video.reader import open_video
from tubelet.video.writer import ImageWriter, VideoWriter

SIZE = (48, 64)
SETTINGS = Settings(model="toy")
BUNDLED = Path(batch.__file__).parents[2] / "apps" / "demo.mp4"


def film(path: Path, colours: Sequence[str] = ("red", "blue"), length: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, SIZE, 10) as writer:
        for image in moving_patches(length, SIZE, colours):
            writer.write(image)
    return path


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Five videos, one of them two folders down, one a folder of images, one broken."""
    film(tmp_path / "films" / "a.mp4")
    film(tmp_path / "films" / "b.mp4", ("green",), 3)
    film(tmp_path / "films" / "deep" / "er" / "c.mkv", ("yellow", "red"))
    with ImageWriter(tmp_path / "films" / "stills") as writer:
        for image in moving_patches(2, SIZE):
            writer.write(image)
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "films"


def tree(folder: Path) -> dict[str, bytes]:
    """All files of the videos' folders."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open(newline="") as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


# names and inputs


def test_folders_are_searched_and_results_are_no_inputs(films: Path) -> None:
    out = films / "out"
    film(out / "a" / "overlay.mp4")
    jobs = find_jobs([str(films)], (), out)
    assert [job.name for job in jobs] == ["a", "b", "broken", "c", "stills"]
    assert jobs == find_jobs([f"{films}/**", f"{films}/*.mp4", str(films / "a.mp4")], (), out)


def test_a_list_names_videos_globs_and_what_is_missing(films: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.txt"
    wanted.write_text(f"# mine\n{films}/a.mp4\n\n{films}/deep/**/*.mkv\n{films}/gone.mp4\n")
    for jobs in (find_jobs([f"@{wanted}"], (), tmp_path / "out"), find_jobs((), [wanted], tmp_path / "out")):
        assert [job.name for job in jobs] == ["a", "c", "gone"]


@pytest.mark.parametrize("given", ["gone.mp4", "nothing/*.mp4", "empty"])
def test_an_input_that_leads_nowhere_is_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=given.split("/")[0]):
        find_jobs([str(tmp_path / given)], (), tmp_path / "out")


PATHS = st.lists(
    st.tuples(
        st.sampled_from(["/x", "/y", "/x/z"]), st.sampled_from(["a.mp4", "A.mp4", "a.mkv", "b c.mp4", "..mp4", "é.mp4"])
    ),
    min_size=1,
    unique=True,
)


@given(PATHS, st.integers())
def test_names_are_safe_unique_and_the_same_in_any_order(paths: list[tuple[str, str]], seed: int) -> None:
    sources = [Path(folder, name) for folder, name in paths]
    jobs = named(sources)
    assert len({job.name.casefold() for job in jobs}) == len(sources)
    assert all(job.name not in ("", ".", "..") and not set(job.name) & set("/\\. ") for job in jobs)
    shuffled = sources.copy()
    random.Random(seed).shuffle(shuffled)
    assert named(shuffled) == jobs


def test_a_name_that_looks_like_anothers_hash_is_kept_apart() -> None:
    twins = [Path("/x/a.mp4"), Path("/y/a.mp4")]
    hashed = [job.name for job in named(twins)]
    jobs = named([*twins, Path(f"/z/{hashed[0]}.mp4")])
    assert len({job.name for job in jobs}) == 3
    assert set(hashed) < {job.name for job in jobs}


# one machine


def test_one_process_or_two_of_which_one_is_killed_write_the_same_bytes(films: Path, tmp_path: Path) -> None:
    fuses = tmp_path / "fuses"
    fuses.mkdir()
    (fuses / "1").touch()
    open_model = partial(batch_models.open_fatal, str(fuses))
    assert command.work([str(films)], (), tmp_path / "two", open_model, SETTINGS, ["cpu"] * 2) == 1
    assert not list(fuses.iterdir()), "a worker was killed in mid-video"
    segment_all(find_jobs([str(films)], (), tmp_path / "one"), tmp_path / "one", SETTINGS)
    one = tree(tmp_path / "one")
    assert one == tree(tmp_path / "two")
    assert {name.split("/")[0] for name in one} == {"a", "b", "c", "stills"}
    assert {Path(name).name for name in one} == {MARKER, "predictions.json", "overlay.mp4", "contact_sheet.png"}
    told = rows(tmp_path / "two")
    assert {name: (row["status"], row["objects"], row["frames"]) for name, row in told.items()} == {
        "a": ("done", "2", "4"),
        "b": ("done", "1", "3"),
        "broken": ("failed", "0", "0"),
        "c": ("done", "2", "4"),
        "stills": ("done", "2", "2"),
    }
    assert "broken.mp4" in told["broken"]["note"]


def test_a_model_that_cannot_be_opened_ends_the_batch(films: Path, tmp_path: Path) -> None:
    jobs = find_jobs([str(films)], (), tmp_path / "out")
    with pytest.raises(InputError, match="no such model"):
        list(share(jobs, batch_models.open_nothing, tmp_path / "out", SETTINGS, ["cpu"]))


def test_workers_that_never_get_ready_end_the_batch(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "MOST_BAD_STARTS", 1)
    jobs = find_jobs([str(films)], (), tmp_path / "out")
    with pytest.raises(InputError, match=r"before they are ready \(exit code -9\)"):
        list(share(jobs, batch_models.end_at_once, tmp_path / "out", SETTINGS, ["cpu"]))


def test_a_file_name_that_is_not_utf_8_is_segmented_as_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"bad\xff.mp4")
    try:
        film(tmp_path / "films" / "plain.mp4").rename(tmp_path / "films" / name)
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (tmp_path / "films" / f"no{name}").write_bytes(b"no video")
    out = tmp_path / os.fsdecode(b"out\xff")
    assert command.work([str(tmp_path / "films")], (), out, batch_models.open_toy, SETTINGS, ["cpu"]) == 1
    assert {row["status"] for row in rows(out).values()} == {"done", "failed"}
    assert (out / "bad_" / "predictions.json").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count(r"nobad\xff.mp4") == 1, "the name is said once"
    (job,) = find_jobs([str(tmp_path / "films" / name)], (), out)
    assert batch.earlier(job, out, SETTINGS).outcome is not None


def test_a_video_that_ends_its_workers_before_it_is_begun_is_given_up(films: Path, tmp_path: Path) -> None:
    jobs = find_jobs([str(films / "a.mp4")], (), tmp_path / "out")
    (outcome,) = share(jobs, batch_models.open_ending, tmp_path / "out", SETTINGS, ["cpu"])
    assert outcome == batch.gave_up(jobs[0])


@pytest.mark.parametrize(
    ("open_model", "message"),
    [
        (batch_models.open_unsendable, "TypeError: this outcome cannot be sent"),
        (batch_models.open_broken, "RuntimeError: no memory left on the device"),
    ],
)
def test_any_error_of_a_worker_ends_the_batch_with_one_line(
    films: Path, tmp_path: Path, open_model: OpenModel, message: str
) -> None:
    jobs = find_jobs([str(films / "a.mp4")], (), tmp_path / "out")
    with pytest.raises(InputError, match=f"^{message}$"):
        list(share(jobs, open_model, tmp_path / "out", SETTINGS, ["cpu"]))


def test_an_error_while_outcomes_are_printed_ends_the_workers(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(line: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(command, "say", fail)
    films_and_more = [str(films / "broken.mp4"), str(films / "a.mp4")]
    with pytest.raises(BrokenPipeError) as error:  # which keeps the frames of the failed call alive
        command.work(films_and_more, (), tmp_path / "out", batch_models.open_slow, SETTINGS, ["cpu"] * 2)
    assert error.value is not None
    assert not multiprocessing.active_children()


def test_leaving_early_ends_the_workers_and_leaves_nothing_half_written(films: Path, tmp_path: Path) -> None:
    jobs = find_jobs([str(films / "a.mp4"), str(films / "b.mp4")], (), tmp_path / "out")
    outcomes = share(jobs, batch_models.open_slow, tmp_path / "out", SETTINGS, ["cpu"])
    first = next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert {Path(name).parts[0] for name in tree(tmp_path / "out")} == {first.folder} == {"a"}


# one process: tries


class Counting(Toy):
    """Sees how many tries are on record while it works."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.seen = folder, 0

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        self.seen = (self.folder / TRIES).stat().st_size
        return super().step(state, clip)


@pytest.mark.parametrize("killed", range(MOST_TRIES + 1))
def test_a_video_that_always_ends_its_worker_is_given_up(films: Path, tmp_path: Path, killed: int) -> None:
    (job,) = find_jobs([str(films / "a.mp4")], (), tmp_path)
    model = Counting(tmp_path / "a")
    model.folder.mkdir()
    (model.folder / TRIES).write_bytes(b"." * killed)  # what processes that were killed leave behind
    outcome = batch.segment(model, job, tmp_path, SETTINGS)
    assert not (model.folder / TRIES).exists()
    if killed < MOST_TRIES:
        assert (outcome.status, model.seen) == ("done", killed + 1)
    else:
        assert (outcome.status, model.seen) == ("failed", 0)
        assert outcome.note == f"its worker ended {MOST_TRIES} times in the middle of it"
        assert not model.folder.exists()


# one process: restarts


def segment_all(jobs: Sequence[VideoJob], out: Path, settings: Settings) -> list[VideoOutcome]:
    model = Toy()
    return [batch.segment(model, job, out, settings) for job in jobs]


def test_finished_videos_are_skipped(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = find_jobs([str(films)], (), tmp_path / "out")
    segment_all(jobs, tmp_path / "out", SETTINGS)
    before = tree(tmp_path / "out")
    found = {job.name: batch.earlier(job, tmp_path / "out", SETTINGS) for job in jobs}
    assert {name for name, one in found.items() if one.outcome is None} == {"broken"}
    assert all(one.reason == "" for one in found.values())
    skipped = found["a"].outcome
    assert skipped is not None
    assert (skipped.status, skipped.objects, skipped.frames) == ("skipped", 2, 4)
    segment_all(jobs, tmp_path / "out", SETTINGS)
    assert tree(tmp_path / "out") == before


def test_a_count_of_tries_that_a_killed_process_left_behind_results_goes(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (job,) = find_jobs([str(films / "a.mp4")], (), out)
    segment_all([job], out, SETTINGS)
    whole = tree(out)
    for again in (
        lambda: segment_all([job], out, SETTINGS),  # another worker of the same run
        lambda: command.work([str(films / "a.mp4")], (), out, batch_models.open_toy, SETTINGS, ["cpu"]),
    ):
        (out / "a" / TRIES).write_bytes(b".")
        again()
        assert tree(out) == whole


def test_other_settings_or_another_video_are_done_again_and_why_is_said(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (job,) = find_jobs([str(films / "a.mp4")], (), out)
    segment_all([job], out, SETTINGS)
    quiet = SETTINGS.but(video=False)
    assert batch.earlier(job, out, quiet).reason == "made with video=true, now false"
    assert command.sort([job], out, quiet) == ([], [job])
    assert "1 video done before is done again: made with video=true, now false" in capsys.readouterr().err
    segment_all([job], out, quiet)
    assert not (out / "a" / "overlay.mp4").exists(), "what the settings do not ask for does not stay"
    film(films / "a.mp4", ("green",), 7)
    assert batch.earlier(job, out, quiet).reason == "the video has changed"


def test_a_folder_without_its_marker_is_not_finished(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (job,) = find_jobs([str(films / "a.mp4")], (), out)
    segment_all([job], out, SETTINGS)
    whole = tree(out)
    (out / "a" / MARKER).write_text((out / "a" / MARKER).read_text()[:40])
    mine = scratch_name(out / "a" / "results")
    left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-99999999-"))  # no process has such a number
    left.mkdir()
    (left / "overlay.mp4").write_bytes(b"half")
    (out / "a" / "notes.txt").write_text("mine")
    assert batch.earlier(job, out, SETTINGS).outcome is None
    segment_all([job], out, SETTINGS)
    assert tree(out) == whole | {"a/notes.txt": b"mine"}


def test_wrong_settings_are_a_fault_of_all(films: Path, tmp_path: Path) -> None:
    (job,) = find_jobs([str(films / "a.mp4")], (), tmp_path / "out")
    with pytest.raises(ConfigError, match="views"):
        batch.segment(Toy(), job, tmp_path / "out", SETTINGS.but(views=4))
    assert not (tmp_path / "out" / "a").exists()


# the command


def test_the_summary_is_a_table_in_parquet_too(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    outcomes = [
        VideoOutcome(video="/b.mp4", folder="b", status="failed", note='a, "b"\nc'),
        VideoOutcome(video="/a.mp4", folder="a", status="done", objects=3, frames=9, seconds=1.23456),
    ]
    command.write_summary(tmp_path, outcomes)
    told = parquet.read_table(tmp_path / "summary.parquet").to_pylist()
    assert [row["folder"] for row in told] == ["a", "b"]
    assert told[0] | {"seconds": 1.235} == told[0]
    assert {name: {k: str(v) for k, v in row.items()} for name, row in zip("ab", told, strict=True)} == rows(tmp_path)


def test_bad_arguments_are_2_and_failed_videos_are_1(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert call(["batch", str(tmp_path / "gone.mp4"), "--out", out]) == 2
    assert call(["batch", str(films / "a.mp4"), "--out", out, "--workers", "0"]) == 2
    assert call(["batch", str(films / "a.mp4"), "--out", out, "--model", "no-such"]) == 2
    assert call(["batch", str(films / "a.mp4"), "--out", str(films / "a.mp4")]) == 2
    assert not (tmp_path / "out").exists()
    assert "no such file" in capsys.readouterr().err
    monkeypatch.setattr(command, "work", lambda *args, **kwargs: 1)
    assert call(["batch", str(films / "a.mp4"), "--out", out]) == 1


def test_the_bundled_model_does_a_batch_and_skips_it_the_second_time(
    tmp_path: Path,
) -> None:
    frames = np.stack([open_video(BUNDLED).frames[t].permute(1, 2, 0).numpy()[::2, ::2] for t in (0, 8, 16)])
    for name in ("first", "second"):
        with VideoWriter(tmp_path / "films" / f"{name}.mp4", frames.shape[1:3], 10) as writer:
            for image in frames:
                writer.write(image)
    arguments = ["batch", str(tmp_path / "films"), "--out", str(tmp_path / "out"), "--workers", "1", "--device", "cpu"]
    assert call(arguments) == 0
    told = rows(tmp_path / "out")
    assert {row["status"] for row in told.values()} == {"done"}
    assert int(told["first"]["objects"]) >= 1
    assert tree(tmp_path / "out")["first/overlay.mp4"] == tree(tmp_path / "out")["second/overlay.mp4"]
    assert call(arguments) == 0
    assert {row["status"] for row in rows(tmp_path / "out").values()} == {"skipped"}


# Ray


@pytest.fixture
def ray_here() -> Iterator[None]:
    """A small Ray of two processors on this machine."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    paths = os.pathsep.join([str(Path(batch_models.__file__).parent), os.environ.get("PYTHONPATH", "")])
    try:
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            _system_config={"worker_niceness": 0},  # else a busy machine leaves its workers nothing
            runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
        )
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        pytest.skip("this machine is too busy to start Ray within its 30 seconds")
    yield
    ray.shutdown()


def test_two_ray_actors_one_killed_in_mid_run_do_all_videos(films: Path, tmp_path: Path, ray_here: None) -> None:
    fuses = tmp_path / "fuses"
    fuses.mkdir()
    (fuses / "1").touch()
    open_model = partial(batch_models.open_fatal, str(fuses))
    failed = command.work([str(films)], (), tmp_path / "out", open_model, SETTINGS, ["cpu", "cpu"], ray="local")
    assert failed == 1
    assert not list(fuses.iterdir()), "the actor was killed in mid-video"
    assert {name: row["status"] for name, row in rows(tmp_path / "out").items()} == {
        "a": "done",
        "b": "done",
        "broken": "failed",
        "c": "done",
        "stills": "done",
    }
    segment_all(find_jobs([str(films)], (), tmp_path / "alone"), tmp_path / "alone", SETTINGS)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_what_ray_prints_is_none_of_the_command_s_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    outcome = VideoOutcome(video="a.mp4", folder="a", status="done")

    def outcomes(*_: object) -> Iterator[VideoOutcome]:
        print("(raylet) a worker died")
        yield outcome

    monkeypatch.setattr(cluster, "_connect", lambda *_: print("(raylet) connected"))
    monkeypatch.setattr(cluster, "_outcomes", outcomes)
    results = cluster.share_by_ray([], batch_models.open_toy, tmp_path, SETTINGS, ["cpu"], "local")
    assert list(results) == [outcome]
    print("done")
    output = capsys.readouterr()
    assert output.out == "done\n"
    assert output.err == "(raylet) connected\n(raylet) a worker died\n"


def test_cuts_are_a_setting(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = find_jobs([str(films / "a.mp4")], (), tmp_path / "out")
    for cuts, shots in ((True, [0]), (False, None)):
        segment_all([job], tmp_path / "out", SETTINGS.model_copy(update={"cuts": cuts}))
        (video,) = json.loads((tmp_path / "out" / "a" / "predictions.json").read_text())["videos"]
        assert video.get("shots") == shots

    asked: list[Settings] = []
    monkeypatch.setattr(command, "fingerprint", lambda name: name)
    monkeypatch.setattr(command, "work", lambda *given, **options: asked.append(given[4]) or 0)
    for arguments in ([], ["--no-cuts"]):
        assert call(["batch", str(films), "--out", str(tmp_path / "out"), "--device", "cpu", *arguments]) == 0
    assert [settings.cuts for settings in asked] == [True, False]
