"""The figures in the default model's card.

    python benchmarks/measure_default.py --coco FOLDER [--split val] [--model default] [--out FILES]
    python benchmarks/measure_default.py --davis FOLDER [--changed mirrored|cropped|later] [--out FILES]
    python benchmarks/measure_default.py --time [--threads 2]

--coco: a folder with instances.json, images/ and split.json; average precision of the masks on single images, by the
YouTube-VIS evaluator (an image is a video of one frame), class-aware and class-agnostic. Every detection counts, so
thresholds that are for people are opened.
--davis: a folder with JPEGImages, Annotations and sequences.json (DAVIS 2016's training split). On sequences with one
object: the J of the best track (mean over frames, absent = 0), the share of frames in which that track is the one that
covers the object, the J of the best instance per frame. Tracks with a score of 0.5 or more, as `tubelet predict`.
--changed: a change of the sequences that should not matter: mirrored, without the first row and column of pixels, from
the third frame on. One change of identity moves the mean by 0.02, so the mean over all of them says more than one.
--time: milliseconds of one frame, 640 x 360, of the demo's video through the model with 1, 5, 10 and 20 objects in it.
--out: a new folder for the same answers as files, from which the command line gives the figures too:

    tubelet evaluate ytvis FILES/coco/truth.json FILES/coco/predictions.json [--agnostic]
    tubelet evaluate davis FILES/davis/truth FILES/davis/answers

The second gives J of the track that fits best by (J + F) / 2, each pixel belonging to one track only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.apps.demo import VIDEO
from tubelet.core import masks
from tubelet.core.types import Clip, Prediction, Video, VideoSet
from tubelet.evaluation import ytvis
from tubelet.formats import coco, davis
from tubelet.formats import ytvis as ytvis_files
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.video.reader import open_video

# average precision asks for a hundred answers an image, however weak
EVERY = ("detector.max_detections=100", "detector.score_threshold=0.005")


def average_precision(model: MaskTrackRCNN, folder: Path, part: str, out: Path | None) -> None:
    keep = set(json.loads((folder / "split.json").read_text())[part])
    held = coco.read(folder / "instances.json", keep=keep)
    videos = list(held.videos)
    guesses = [predict(model, video, threshold=0.0) for video in videos]
    if out is not None:
        (out / "coco").mkdir(parents=True)
        ytvis_files.write_set(out / "coco" / "truth.json", held)
        ytvis_files.write_predictions(out / "coco" / "predictions.json", guesses)
    for name, merge in (("class-aware", False), ("class-agnostic", True)):
        truth, answers = ([_merged(v) for v in videos], [_merged(g) for g in guesses]) if merge else (videos, guesses)
        result = ytvis.evaluate(truth, answers)
        small = f"AP under 128 x 128 pixels {result['AP_small']:.3f}"
        print(f"{name}: mask AP {result['AP']:.3f}  AP50 {result['AP50']:.3f}  {small}", flush=True)


def frame_times(model: MaskTrackRCNN, turns: int = 12) -> None:
    frame = open_video(VIDEO).frames[60]
    clip = Clip(frames=frame[None], index=torch.tensor([0]), key=torch.tensor([True]))
    for number in (1, 5, 10, 20):
        own = _opened(model, f"detector.max_detections={number}", "detector.score_threshold=0")
        times = []
        with torch.inference_mode():
            for _ in range(turns):
                began = time.perf_counter()
                _, tracks = own.step(own.start(), clip)
                times.append((time.perf_counter() - began) * 1e3)
        assert len(tracks) == number
        print(f"{number:2d} objects: {statistics.median(times[3:]):.1f} ms, at least {min(times):.1f}", flush=True)


def _opened(model: MaskTrackRCNN, *overrides: str) -> MaskTrackRCNN:
    """The model without the thresholds that are for people: every detection becomes an object."""
    config = model.config.override("association.birth=0", "association.shadow=1", *overrides)
    wide = config.build(model.classes).eval().to(memory_format=torch.channels_last)
    wide.load_state_dict(model.state_dict())
    wide.precision = model.precision
    return wide


def _merged(one: Any) -> Any:
    return replace(one, tracks=tuple(replace(track, label=0) for track in one.tracks or ()))


def changed(video: Video, change: str) -> Video:
    """The video and its truth after a change that should not matter."""
    frames = torch.stack([video.frames[t] for t in range(len(video))])
    (track,) = video.tracks or ()
    nothing = np.zeros(video.size, bool)
    truth = np.stack([nothing if rle is None else masks.decode([rle])[0].astype(bool) for rle in track.rles])

    if change == "mirrored":
        frames, truth = frames.flip(-1), truth[..., ::-1]
    elif change == "cropped":
        frames, truth = frames[..., 1:, 1:], truth[:, 1:, 1:]
    elif change == "later":
        frames, truth = frames[2:], truth[2:]
    rles = tuple(masks.encode(np.ascontiguousarray(truth)))
    return replace(open_video(frames.contiguous()), id=video.id, tracks=(replace(track, rles=rles),))


def single_objects(model: MaskTrackRCNN, folder: Path, out: Path | None, change: str) -> None:
    sequences = json.loads((folder / "sequences.json").read_text())
    names = {s["sequence"] for s in sequences if s["objects2017"] == 1}
    videos = [video for video in davis.read(folder).videos if video.id in names]
    if change:
        videos = [changed(video, change) for video in videos]
    rows, answers = [], []
    for video in videos:
        guess = predict(model, video)
        best_first = sorted(guess.tracks, key=lambda track: -track.score)  # the better of two is seen
        answers.append(replace(video, tracks=tuple(best_first)))
        overlaps = _overlaps(guess, video)
        best = overlaps.mean(1).argmax()
        kept = (overlaps.argmax(0) == best) & (overlaps[best] > 0.3)
        rows.append((overlaps[best].mean(), kept.mean(), overlaps.max(0).mean()))
        print(
            f"{video.id:18s} best track J {rows[-1][0]:.3f}  kept {rows[-1][1]:.2f}  per frame {rows[-1][2]:.3f}",
            flush=True,
        )
    print("mean of {} best track J {:.3f}  kept {:.3f}  per frame {:.3f}".format(len(rows), *np.mean(rows, 0)))
    if out is not None:
        for name, held in (("truth", videos), ("answers", answers)):
            davis.write(out / "davis" / name, VideoSet(videos=held, classes=model.classes), frames=False)


def _overlaps(prediction: Prediction, video: Video) -> np.ndarray:
    """J of every track in every frame with the video's one object, [tracks (one at least), frames]."""
    table = np.zeros((max(len(prediction.tracks), 1), len(video)))
    (truth,) = video.tracks or ()
    for n, track in enumerate(prediction.tracks):
        for t, (rle, real) in enumerate(zip(track.rles, truth.rles, strict=True)):
            if rle is not None and real is not None:
                own, mask = masks.decode([rle, real]).astype(bool)
                table[n, t] = (own & mask).sum() / max((own | mask).sum(), 1)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--davis", type=Path)
    parser.add_argument("--changed", choices=("", "mirrored", "cropped", "later"), default="")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = weights.load(arguments.model, precision=arguments.precision, input_size=arguments.input_size)
    if not isinstance(model, MaskTrackRCNN):
        parser.error(f"{arguments.model} is not of the default model's family")
    if arguments.time:
        frame_times(model)
    if arguments.coco:
        average_precision(_opened(model, *EVERY), arguments.coco, arguments.split, arguments.out)
    if arguments.davis:
        single_objects(model, arguments.davis, arguments.out, arguments.changed)


if __name__ == "__main__":
    main()
