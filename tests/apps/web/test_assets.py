"""The page's own files: what several have in common is put in where they are read, and nothing else is served."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tubelet.apps.web import assets, faults


@pytest.mark.parametrize("name", ["index.html", "live.html", "shared.html"])
def test_each_html_file_has_the_common_head_and_mark(name: str) -> None:
    text = assets.assets()[name].body.decode()
    head, body = text.split("</head>")
    assert head.startswith('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n')
    assert head.count('<link rel="stylesheet" href="/page/style.css">\n') == 1
    assert body.count('<svg viewBox="0 0 24 24" width="22"') == 1
    assert "<!--" not in text


def test_a_part_of_html_files_is_not_served_by_itself() -> None:
    app = FastAPI()
    faults.add(app)
    assets.add(app)
    client = TestClient(app)
    assert client.get("/").text == client.get("/page/index.html").text
    for name in ("head.html", "parts", "parts/head.html", "parts%2Fhead.html"):
        assert client.get(f"/page/{name}").status_code == 404
