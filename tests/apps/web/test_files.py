"""Files that are removed while they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.responses import Response

from tubelet.apps.web import faults
from tubelet.apps.web.files import File


def client(answer: Callable[[], Response]) -> TestClient:
    app = FastAPI()
    faults.add(app)
    app.get("/film", response_model=None)(answer)
    return TestClient(app)


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=2-5"}, {"Range": "bytes=0-1,4-5"}])
def test_a_file_removed_before_it_is_opened_is_not_there(headers: dict[str, str], tmp_path: Path) -> None:
    def answer() -> Response:
        path = tmp_path / "film"
        path.write_bytes(b"0123456789")
        response = File(path)
        path.unlink()
        return response

    assert client(answer).get("/film", headers=headers).status_code == 404


def test_a_file_that_is_gone_already_is_not_there(tmp_path: Path) -> None:
    assert client(lambda: File(tmp_path / "film")).get("/film").status_code == 404


def test_a_file_and_its_parts_are_sent(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"0123456789")
    page = client(lambda: File(tmp_path / "film", media_type="video/mp4"))
    whole = page.get("/film")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, b"0123456789", "video/mp4")
    part = page.get("/film", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, b"2345")
    assert page.get("/film", headers={"Range": "bytes=90-"}).status_code == 416
