"""The hub: what is listed, what a name fetches, and what is told where nothing can be fetched."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tubelet.core.errors import WeightsError
from tubelet.models import weights
from tubelet.models.weights import hub

SMALL = "tue-mps/videomt-dinov2-small-ytvis2019"
DETECTOR = "Roboflow/rf-detr-seg-small"


def downloads(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", answer)


def fails_with(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    return fail


def test_videomt_is_listed_with_its_published_figures() -> None:
    rows = {row.name: row for row in weights.list_models()}
    assert rows[SMALL].published == "52.8 AP, YouTube-VIS 2019"
    assert (rows[SMALL].megabytes, rows[SMALL].classes, rows[SMALL].commercial, rows[SMALL].cpu) == (
        96,
        40,
        True,
        False,
    )
    assert rows["tue-mps/videomt-dinov2-large-ovis"].classes == 25
    assert rows[DETECTOR].licence == "Apache-2.0"
    assert rows["default"].cpu


def test_a_name_may_be_written_in_another_case() -> None:
    found = hub.listed("roboflow/RF-DETR-Seg-Small")
    assert found is not None
    assert found.name == DETECTOR
    assert hub.listed("roboflow/rf-detr-seg-tiny") is None


def test_a_model_of_another_task_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    downloads(monkeypatch, lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(WeightsError, match="a model of semantic segmentation, expected one of instances"):
        weights.load("tue-mps/videomt-dinov2-large-vspw", device="cpu")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (SMALL, "config.json and model.safetensors"),
        (DETECTOR, "config.json, model.safetensors and preprocessor_config.json"),
    ],
)
def test_without_a_network_it_is_told_which_files_go_where(
    name: str, files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    downloads(monkeypatch, fails_with(LocalEntryNotFoundError("no connection\nand more")))
    with pytest.raises(WeightsError) as caught:
        weights.find(name)
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot be fetched (no connection)" in message
    assert f"put its {files} into one folder and give the folder as the model" in message
    assert f"models--{name.replace('/', '--')}" in message


def test_a_gated_or_absent_model_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class GatedRepoError(OSError):
        pass

    class RepositoryNotFoundError(OSError):
        pass

    for error, advice in ((GatedRepoError, "accept its terms on its page"), (RepositoryNotFoundError, "or private")):
        downloads(monkeypatch, fails_with(error("401 Client Error. (Request ID: x)\nmore")))
        with pytest.raises(WeightsError, match=advice) as caught:
            weights.find(SMALL)
        assert "\n" not in str(caught.value)


def test_a_hub_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forever = threading.Event()
    monkeypatch.setattr(hub, "STALL", 0.3)
    downloads(monkeypatch, lambda *_, **__: forever.wait(60))
    with pytest.raises(WeightsError, match="nothing came for"):
        weights.find(SMALL)
    forever.set()


def test_a_slow_download_that_moves_is_waited_for(tmp_path: Path) -> None:
    def slow() -> str:
        for n in range(6):
            time.sleep(0.1)
            (tmp_path / f"{n}.incomplete").write_bytes(b"more")
        return "done"

    assert hub.watched(slow, tmp_path, patience=0.4) == "done"


def test_an_error_of_the_download_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        hub.watched(lambda: {}["absent"], tmp_path, patience=5)


def test_offline_the_hub_is_not_asked_and_its_cache_is_used(tmp_path: Path) -> None:
    """With huggingface_hub itself, in a process that sees an empty cache, and then one that was carried over."""
    code = f"from tubelet.models import weights\nprint(weights.find({SMALL!r}))"
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}

    def find() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False)

    empty = find()
    assert empty.returncode != 0
    assert "WeightsError: " in empty.stderr
    assert "put its config.json and model.safetensors into one folder" in empty.stderr

    folder = tmp_path / "hub" / ("models--" + SMALL.replace("/", "--"))
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name in hub.FILES:
        (snapshot / name).write_bytes(b"{}")
    carried = find()
    assert carried.stdout.strip() == str(snapshot / "model.safetensors"), carried.stderr
