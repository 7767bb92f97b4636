"""The public names of Python: a wrong argument is a TubeletError of one line that says what was expected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# in a process of its own: while tests run, a checker of types would refuse these before the program does
CASES = """
import numpy as np
import torch
import tubelet
from tubelet import recipes
from tubelet.data.tools import checking
from tubelet.formats import registry, ytvis
from tubelet.synthetic import generator
from tubelet.synthetic.config import Synthetic
from tubelet.inference.attention_maps import attention_maps

model = tubelet.load("default", device="cpu")
frames = np.zeros((2, 32, 32, 3), np.uint8)
video = tubelet.open_video(frames)
made = tubelet.predict(model, frames)
nan = float("nan")

def each(call, values, expected):
    for value in values:
        try:
            call(value)
        except tubelet.TubeletError as error:
            text = str(error)
            if expected not in text or len(text) > 1000 or not text.isprintable():
                print(f"{expected!r} is not said for {value!r:.40}: {text!r}")
        except Exception as error:
            print(f"{expected!r}, {value!r:.40}: {type(error).__name__}: {error}")
        else:
            print(f"{expected!r}: {value!r:.40} was taken")

each(lambda v: tubelet.Window(length=v), (0, -1, 1.5, "x", nan, 10**9), "Window: length: ")
each(lambda v: tubelet.Window(context=v), (-1, 99999999), "Window: context: ")
each(lambda v: tubelet.Window(length=2, stride=v), (0, 5), "Window: ")
each(lambda v: tubelet.Window(evil=v), (1,), "evil")
each(lambda v: tubelet.Window().override(v), (5, "x", "length=NaN", "length=" + "9" * 5000), "")
each(lambda v: tubelet.load(v), (None, 5, b"a", [], {}, "a" * 5000, "a\\0b", "\\udcff"), "")
each(lambda v: tubelet.load(precision=v), ("banana", None, 16), "expected auto or fp32 or bf16")
each(lambda v: tubelet.load(device=v), (0, None, [], "banana", "cuda:" + "9" * 20), "device: expected auto, cpu, cuda")
each(lambda v: tubelet.predict(v, frames), ("default",), "tubelet.load('default')")
each(lambda v: tubelet.predict(v, frames), (None, 5, torch.nn.Linear(1, 1)), "model: expected a model")
each(lambda v: list(tubelet.stream(v, frames)), ("default", None), "model: expected a model")
each(lambda v: tubelet.predict(model, v), (None, True, 5, b"abc", [1], [], "a\\0b", set(), iter("ab")), "")
each(lambda v: list(tubelet.stream(model, v)), (None, True, b"abc", [1], "a\\0b"), "")
each(lambda v: tubelet.predict(model, v), (torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device="meta"),), "dense tensor")
for name, run in {"predict": tubelet.predict, "stream": lambda *a, **k: list(tubelet.stream(*a, **k))}.items():
    each(lambda v: run(model, frames, threshold=v), (nan, -1, 1.5, "x", None, [1]), "threshold: expected a number")
    each(lambda v: run(model, frames, views=v), (0, 1.5, "x", 99), "views: expected a whole number from 1")
    each(lambda v: run(model, frames, window=v), (3, "x"), "window: expected a tubelet.Window")
each(lambda v: tubelet.predict(model, frames, top=v), (0, -1, 1.5, "x", nan), "top: expected a whole number")
each(lambda v: tubelet.predict(model, frames, classes=v), ("person", [0], ["persn"], 5, b"a"), "class")
each(lambda v: tubelet.predict(model, frames, roi=v), ([(0, 0), (1, 1)], "x", 5, [(0, nan)], [[]]), "roi: ")
each(lambda v: tubelet.predict(model, frames, every=v), (0, 1.5, "x"), "every: expected a whole number")
each(lambda v: tubelet.predict(model, frames, start=v), (-1, nan, "x"), "start: expected a number")
each(lambda v: tubelet.predict(model, frames, end=v), (0, -1, "x"), "end: expected a ")
each(lambda v: made[v], (7, "x", None, True), "no track with the id")
each(lambda v: made.filter(classes=v), ("person", ["persn"]), "class")
each(lambda v: made.filter(min_seconds=v), (-1, nan, "x"), "min_seconds: expected a number")
each(lambda v: made.draw(v), (2, 1.5, "x"), "a frame: expected a whole number from 0 to 1")
each(lambda v: made.draw(0, v), ("x", {}), "style: expected a tubelet.OverlayStyle")
each(lambda v: made.cutout("a.webm", v), (7, "x", None), "no track with the id")
each(made.crops, ("a\\0b", None, 5, ""), "the folder of crops: expected a path")
each(lambda v: tubelet.predict(model, frames, progress=v), (3,), "progress: expected a function")
each(lambda v: model(v), (torch.zeros(2, 3, 8, 8), frames, None, []), "use tubelet.predict(model, frames)")
each(lambda v: tubelet.open_video(frames, fps=v), (0, -1, nan, "x"), "frame rate: expected a positive number")
each(made.save, ("a\\0b", None, 5, ""), "the folder of results: expected a path")
each(made.to_davis, ("a\\0b", None, 5), "the folder of label maps: expected a path")
each(made.above, (nan, "x"), "threshold: expected a number")
each(made.at, (2, 1.5, "x"), "a frame: expected a whole number from 0 to 1")
each(lambda v: attention_maps(model, video, 0, v), ("x", (1,), None), "expected a point")
each(lambda v: attention_maps(model, v, 0, (1, 1)), (frames, None), "expected a Video")
each(registry.open_set, (None, 5, "a\\0b"), "a data set: expected a path")
each(lambda v: registry.open_set(".", v), ("", 5), "no form")
each(ytvis.read, (None, "a\\0b"), "annotations: expected a path")
each(recipes.find, (5, [], "defualt"), "unknown recipe")
each(lambda v: generator.generate(Synthetic(), seed=v, videos=1), (-1, "x", 1.5), "seed: expected a whole")
each(lambda v: checking.check(made, frames=v), (0, -1, "x"), "frames: expected a whole number")
tubelet.load("default", device=torch.device("cpu"))
"""


def test_a_wrong_argument_is_told_with_what_was_expected(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CASES], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
