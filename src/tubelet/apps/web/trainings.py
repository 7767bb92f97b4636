"""Teaching on the page: a model learns from results, in the queue of the other jobs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tubelet.apps.web.faults import Refusal, finished
from tubelet.apps.web.files import File
from tubelet.apps.web.jobs.edited import EditedResults
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import known
from tubelet.apps.web.jobs.store import new_id
from tubelet.apps.web.jobs.trainings import LESSONS, RUN, TrainingJob, check_enough
from tubelet.apps.web.limits import BASE_THRESHOLD
from tubelet.apps.web.users import User
from tubelet.apps.web.visitors import Visitor
from tubelet.core.errors import InputError

MOST_RESULTS = 50
MOST_STEPS = 5000
Events = Callable[[Callable[[], dict[str, Any]]], Response]


class TrainingRequest(BaseModel):
    """The body of a request for a training: from which results, on which model, and what the new one is called."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=200)
    model: str = Field(max_length=1000)
    results: list[str] = Field(min_length=1, max_length=MOST_RESULTS)  # ids of jobs
    frames: Literal["seen", "all"] = "seen"
    threshold: float = Field(default=0.5, ge=BASE_THRESHOLD, le=1)
    steps: int = Field(default=100, ge=1, le=MOST_STEPS)


def add(app: FastAPI, jobs: Jobs, results: EditedResults, events: Events) -> None:
    """Add the routes that ask for a training, watch, stop and continue it."""
    trainings = jobs.store.trainings

    @app.get("/api/trainings")
    def listed(user: Visitor) -> list[dict[str, Any]]:
        return [described(training, jobs) for training in reversed(trainings.all()) if user.sees(training.owner)]

    @app.post("/api/trainings", status_code=201)
    def teach(wish: TrainingRequest, user: Visitor) -> dict[str, Any]:
        model = jobs.models.find(user, wish.model)
        if model is None or not model["learns"]:
            raise Refusal(422, "this model cannot be taught here; choose one of the bundled default's kind")
        jobs.models.check_new(user.qualified(wish.name), user)
        jobs.check_room(user)
        id = _ask(jobs, results, wish, user)
        return described(known(trainings.get(id)), jobs)

    @app.get("/api/trainings/{id}")
    def one(id: str) -> dict[str, Any]:
        return described(known(trainings.get(id)), jobs)

    @app.get("/api/trainings/{id}/events")
    def watch(id: str) -> Response:
        known(trainings.get(id))

        def state() -> dict[str, Any]:
            training = trainings.get(id)
            return {"id": id, "state": "gone"} if training is None else described(training, jobs)

        return events(state)

    @app.get("/api/trainings/{id}/curve")
    def curve(id: str) -> list[dict[str, Any]]:
        path = trainings.folder(known(trainings.get(id)).id) / RUN / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.is_file() else []

    @app.get("/api/trainings/{id}/pictures/{side}/{number}")
    def picture(id: str, side: Literal["before", "after"], number: int) -> Response:
        return File(trainings.folder(known(trainings.get(id)).id) / f"{side}-{number}.jpg")

    @app.post("/api/trainings/{id}/stop", status_code=204)
    def stop(id: str) -> None:
        jobs.stop_training(known(trainings.get(id)))

    @app.post("/api/trainings/{id}/continue", status_code=204)
    def go_on(id: str, user: Visitor) -> None:
        jobs.go_on(known(trainings.get(id)), user)

    @app.delete("/api/trainings/{id}", status_code=204)
    def remove(id: str) -> None:
        jobs.remove_training(known(trainings.get(id)))


def described(training: TrainingJob, jobs: Jobs) -> dict[str, Any]:
    """A training as JSON for the page."""
    progress, ahead = jobs.progress(training)
    description: dict[str, Any] = {
        "id": training.id,
        "name": training.name,
        "model": training.model,
        "steps": training.steps,
        "videos": len(training.video_ids),
        "state": training.state,
        "error": training.error,
        "can_go_on": jobs.store.trainings.can_go_on(training),
        "summary": None if training.summary is None else json.loads(training.summary),
    }
    if training.state == "queued":
        description |= {"ahead": ahead, "full": jobs.waits_for_space}
    if progress is not None:
        description |= {"stage": progress.stage, "done": progress.done, "total": progress.total, "left": progress.left}
    return description


def _ask(jobs: Jobs, results: EditedResults, wish: TrainingRequest, user: User) -> str:
    """Store what is to be learned as it is now, and queue the training; returns its id."""
    store = jobs.store
    asked = [finished(store, id, user) for id in dict.fromkeys(wish.results)]
    films = [known(store.video(job.video)) for job in asked]
    twice = next((film.name for film in films if [other.id for other in films].count(film.id) > 1), None)
    if twice is not None:
        raise InputError(f"two of these results are of one video, {twice}: choose one of them")

    lessons = []
    num_frames = 0
    names: Counter[str] = Counter()
    with store.scratch() as scratch:
        for n, (job, film) in enumerate(zip(asked, films, strict=True)):
            with results.opened(job) as edited:
                edited.write(scratch / f"{n}.json.gz")
                seen = sorted(edited.editing.seen)
            if wish.frames == "seen" and not seen:
                raise InputError(f"{film.name}: no frame of it has been looked at; play it first, or take all frames")
            names[film.name] += 1
            name = film.name if names[film.name] == 1 else f"{film.name} {names[film.name]}"
            frames = seen if wish.frames == "seen" else None
            num_frames += film.frames if frames is None else len(frames)
            lesson = {"result": f"{n}.json.gz", "source": str(jobs.store.source(film)), "name": name, "frames": frames}
            lessons.append(lesson)
        check_enough(num_frames)
        (scratch / LESSONS).write_text(json.dumps(lessons))

        training = TrainingJob(
            id=new_id(),
            name=user.qualified(wish.name),
            model=wish.model,
            videos=json.dumps([film.id for film in films]),
            threshold=wish.threshold,
            steps=wish.steps,
            state="queued",
            error=None,
            attempts=0,
            summary=None,
            created=time.time(),
            owner=user.name,
        )
        jobs.teach(training, scratch, user)
    return training.id
