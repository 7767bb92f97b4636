"""Devices are chosen in one place."""

from __future__ import annotations

import pytest
import torch

from tubelet.core.devices import choose_device
from tubelet.core.errors import ConfigError

NOT_HERE = ["gpu", "", "meta", "cpu:x", "cuda:x", "cuda:99", "cuda:-1", "cuda:", "cuda:\u0663", "cuda:" + "9" * 20]


@pytest.mark.parametrize("name", NOT_HERE)
def test_a_device_that_is_not_here_is_refused_with_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="device") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", 2) == torch.device("cuda", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
