"""Every system on the pretend device: one step of training, prediction, live frames, what else it can do.

    python tests/devices/run_systems.py small/ifr "small/tags model.upsampling=transposed" > ledger.json

Each argument is a recipe's name, with overrides. Prints one JSON: for each what the device would have made of it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pretend
import torch

from tubelet.apps.demo import VIDEO
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Window
from tubelet.data.clips import ClipDataset
from tubelet.inference.attention_maps import attention_maps
from tubelet.inference.predict import predict, stream
from tubelet.inference.semantic import semantic_maps
from tubelet.models import weights
from tubelet.recipes import find
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.small import PLAIN
from tubelet.synthetic.generator import generate
from tubelet.training.optim import WeightAverage
from tubelet.video.reader import open_video

FRAMES = 3


def run(name: str) -> dict[str, Any]:
    """All that a system can do; returns the ledger, and waits and operators of one more predicted frame."""
    pretend.start_again()
    recipe, *overrides = name.split()
    experiment = find(recipe).override(*overrides)
    videos = generate(PLAIN.but(frames=12, height=48, width=64), 1, 2)
    clips = ClipDataset(videos, experiment.sampler, (), 0, keep_ignored=True)
    torch.manual_seed(0)
    model = experiment.model.build(videos.classes)
    frames = torch.stack([videos.videos[0].frames[t] for t in range(FRAMES)])

    with pretend.Pretend():
        model.to(pretend.device()).train()
        left = [key for key, tensor in model.state_dict().items() if tensor.device.type != pretend.NAME]
        assert not left, f"{name}: {left} stayed on the CPU"
        _train(experiment, model, clips[0])

        if name == "default":  # with the weights that find something
            model = weights.load("default", device="cpu", precision="bf16", engine="torch").to(pretend.device())
            demo = open_video(VIDEO).frames
            frames = torch.stack([demo[t] for t in range(FRAMES)])
        model.eval()
        model.precision = torch.bfloat16
        predict(model, frames[:1], threshold=0.0, cuts=False)  # what is done once, such as converting weights
        before = _totals()
        predict(model, frames[:-1], threshold=0.0, cuts=False)
        of_two = _totals() - before
        prediction = predict(model, frames, threshold=0.0, cuts=False)
        of_three = _totals() - before - of_two
        if name == "default" or model.window.length != 1:  # frame by frame it is what `predict` does
            list(stream(model, frames, window=_bounded(model.window), threshold=0.0))
        _try(lambda: predict(model, frames, views=2, threshold=0.0))
        _try(lambda: attention_maps(model, open_video(frames), 2, (20, 20)))
        _try(lambda: list(semantic_maps(model, prediction)))

    facts = dict(vars(pretend.LEDGER))
    facts["dtypes"] = {key: sorted(kinds) for key, kinds in facts["dtypes"].items()}
    facts["a frame"] = {key: of_three[key] - of_two[key] for key in ("operators", "waits", "uploads")}
    return facts


def _totals() -> Counter[str]:
    ledger = pretend.LEDGER
    return Counter({key: getattr(ledger, key).total() for key in ("operators", "waits", "uploads")})


def _train(experiment: Experiment, model: Any, clip: Any) -> None:
    """One step of training in bfloat16, and of the average of the weights."""
    optimizer = experiment.optim.build(model)
    with torch.autocast(pretend.NAME, torch.bfloat16):
        losses = model([clip.to(pretend.device())])
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    WeightAverage(model, 0.9).update(model, 1)


def _bounded(window: Window) -> Window:
    return window if window.length is not None and not window.spread else Window(length=4, stride=2)


def _try(action: Callable[[], Any]) -> None:
    """What not every system can do."""
    try:
        action()
    except ConfigError:
        return


def main() -> None:
    """Run the systems that are named."""
    torch.set_num_threads(1)
    pretend.install()
    json.dump({name: run(name) for name in sys.argv[1:]}, sys.stdout)


if __name__ == "__main__":
    main()
