"""Published weaknesses of pinned packages: what is asked, and that a silent database is no failure."""

from __future__ import annotations

import json

import pytest

import advisories

TEXT = """\
# made by a tool
numpy==1.26.4 ; python_version < '3.12'
numpy==2.1.0
torch==2.5.1+cpu
"""
PINS = [("numpy", "1.26.4"), ("numpy", "2.1.0"), ("torch", "2.5.1+cpu")]


def test_pins_are_read_without_their_markers() -> None:
    assert advisories.pins_of(TEXT) == PINS
    assert len(advisories.pins_of(advisories.PINS.read_text())) > 50


def test_each_pin_is_asked_for_and_its_weaknesses_are_a_line() -> None:
    def ask(queries: bytes) -> bytes:
        asked = json.loads(queries)["queries"]
        assert [(query["package"]["name"], query["version"]) for query in asked] == PINS
        return json.dumps({"results": [{}, {"vulns": [{"id": "GHSA-1"}, {"id": "CVE-2"}]}, {}]}).encode()

    assert advisories.advisories(PINS, ask) == ["numpy 2.1.0: GHSA-1, CVE-2"]


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"results": []}', b'{"results": null}', OSError("timed out")])
def test_a_database_that_cannot_be_reached_is_said_and_fails_nothing(
    answer: bytes | OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(queries: bytes) -> bytes:
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(advisories, "ask", ask)
    assert advisories.main() == 0
    assert "not checked" in capsys.readouterr().out
