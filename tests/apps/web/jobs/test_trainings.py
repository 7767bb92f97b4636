"""Trainings and models in the list: what a restart makes of them."""

from __future__ import annotations

from pathlib import Path

from tubelet.apps.web.jobs.own_models import OwnModel
from tubelet.apps.web.jobs.store import Store, new_id
from tubelet.apps.web.jobs.tasks import Teaching
from tubelet.apps.web.jobs.trainings import TrainingJob


def training(attempts: int = 0) -> TrainingJob:
    return TrainingJob(
        id=new_id(),
        name="goats",
        model="default",
        videos="[]",
        threshold=0.5,
        steps=10,
        state="queued",
        error=None,
        attempts=attempts,
        summary=None,
        created=1.0,
    )


def add(store: Store, row: TrainingJob) -> str:
    folder = store.root / "scratch" / new_id()
    folder.mkdir()
    store.trainings.add(row, folder)
    return row.id


def states(store: Store) -> dict[str, str]:
    return {row.id: row.state for row in store.trainings.all()}


def test_what_ran_when_the_server_was_killed_is_queued_again_but_not_for_ever(tmp_path: Path) -> None:
    store = Store(tmp_path)
    once, twice = add(store, training()), add(store, training(attempts=1))
    for id in (once, twice):
        store.trainings.start(id)
    store.close()

    store = Store(tmp_path)
    assert states(store) == {once: "queued", twice: "failed"}
    store.close()


def test_a_stopped_training_stays_with_its_files_and_one_without_files_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stopped, lost = add(store, training()), add(store, training())
    store.trainings.set_state(stopped, "stopped")
    store.trainings.folder(lost).rmdir()
    (tmp_path / "trainings" / new_id()).mkdir()  # of nobody
    store.close()

    store = Store(tmp_path)
    assert states(store) == {stopped: "stopped"}
    assert [folder.name for folder in (tmp_path / "trainings").iterdir()] == [stopped]
    store.close()


def test_without_a_gain_there_is_no_new_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = training()
    add(store, row)
    Teaching(store, row, "default").finish({"summary": {"gain": False}})
    assert states(store) == {row.id: "done"}
    assert store.models.all() == []
    store.close()


def test_what_failed_before_its_first_step_cannot_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [add(store, training()) for _ in range(3)]
    (store.trainings.folder(ids[1]) / "run" / "checkpoints").mkdir(parents=True)
    for id, state in zip(ids, ("failed", "failed", "stopped"), strict=True):
        store.trainings.set_state(id, state)  # type: ignore[arg-type]
    rows = {row.id: row for row in store.trainings.all()}
    assert [store.trainings.can_go_on(rows[id]) for id in ids] == [False, True, True]
    store.close()


def test_models_stay_after_a_restart_and_those_without_a_file_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = {}
    for name in ("goats", "lost"):
        path = tmp_path / "scratch" / "model"
        path.write_bytes(b"weights")
        ids[name] = new_id()
        store.models.add(OwnModel(id=ids[name], name=name, bytes=7, created=1.0), path)
    store.models.path(ids["lost"]).unlink()
    store.close()

    store = Store(tmp_path)
    assert [model.name for model in store.models.all()] == ["goats"]
    assert store.models.path(ids["goats"]).read_bytes() == b"weights"
    store.close()
