"""Mask2Former and IFR read a video by clips: objects keep their ids, whole is whole, and nothing grows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tubelet.core.protocol import Window
from tubelet.inference.predict import predict, stream
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig

SYSTEMS = {"joint": JointConfig(heads=4), "inter_frame": InterFrameConfig()}
SMALL = (
    "backbone.name=resnet18",
    "pixel_decoder.channels=32",
    "pixel_decoder.layers=1",
    "pixel_decoder.feed_forward=16",
    "decoder.layers=1",
    "queries=6",
    "input.resize.short=64",
)


@pytest.fixture(params=SYSTEMS)
def model(request: pytest.FixtureRequest) -> Mask2Former:
    """Random, but for heads that find objects in what they see: half of the queries, with masks on the bright side."""
    torch.manual_seed(0)
    config = Mask2FormerConfig(decoder=SYSTEMS[request.param]).override(*SMALL)
    made = config.build(("dog", "cat", "car")).eval()
    with torch.no_grad():
        made.decoder.class_predictor.weight *= 20
        made.decoder.class_predictor.bias.zero_()
        made.decoder.mask_predictor.mask_embedder[2][0].weight *= 20
    return made


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    """A bright square that drifts over noise, uint8 [T, H, W, 3]."""
    frames = np.random.default_rng(0).integers(0, 90, (7, 64, 96, 3)).astype(np.uint8)
    for t, frame in enumerate(frames):
        frame[10:40, 5 + 3 * t : 40 + 3 * t] = (250, 220, 30)
    return frames


def test_clips_as_long_as_the_video_give_what_the_whole_video_gives(model: Mask2Former, video: np.ndarray) -> None:
    whole = predict(model, video, threshold=0)
    for length in (7, 20):
        assert predict(model, video, window=Window(length=length), threshold=0).tracks == whole.tracks
    assert len(whole.tracks) > 0


@pytest.mark.parametrize("window", [Window(length=3), Window(length=2, stride=2), Window()])
def test_what_stays_where_it_is_keeps_its_id(model: Mask2Former, video: np.ndarray, window: Window) -> None:
    still = np.repeat(video[:1], 5, axis=0)
    found = predict(model, still, window=window, threshold=0)
    steady = [track for track in found.tracks if track.rles.count(None) == 0]
    assert steady
    assert max(track.id for track in steady) < model.config.top  # none of them was begun anew


def test_clips_stream_with_the_masks_and_ids_of_predict(model: Mask2Former, video: np.ndarray) -> None:
    window = Window(length=3)
    whole = predict(model, video, window=window, threshold=0)
    frames = list(stream(model, video, window=window, threshold=0))
    for t, frame in enumerate(frames):
        assert frame.ids.tolist() == [track.id for track in whole.tracks if track.rles[t] is not None]
    last = {
        identity: score
        for frame in frames
        for identity, score in zip(frame.ids.tolist(), frame.scores.tolist(), strict=True)
    }
    assert last.keys() <= {track.id for track in whole.tracks}


def test_the_state_does_not_grow_with_the_video(model: Mask2Former, video: np.ndarray) -> None:
    sizes = []
    state = model.start()
    frames = torch.from_numpy(video).permute(0, 3, 1, 2)
    for start in range(20):
        picked = torch.arange(start, start + 3)
        with torch.inference_mode():
            state, _ = model.settle(state, model.look(frames[picked % 7]), picked)
        sizes.append((len(state.windows), sum(window.masks.numel() for window in state.windows)))
    assert max(count for count, _ in sizes) == 3
    assert max(held for _, held in sizes) <= 3 * model.config.top * 3 * 16 * 24


def test_views_of_a_real_model_are_matched_and_averaged(model: Mask2Former, video: np.ndarray) -> None:
    found = predict(model, video[:2], views=2, top=10)
    assert len(found.tracks) == 10
    assert [track.score for track in found.tracks] == sorted((track.score for track in found.tracks), reverse=True)
    assert all(rle is None or rle.size == (64, 96) for track in found.tracks for rle in track.rles)


def test_pairs_of_the_whole_video_are_the_best_of_all_queries(model: Mask2Former, video: np.ndarray) -> None:
    """Queries without a pixel have no track; of the others the ten best pairs are there."""
    found = predict(model, video, top=10)
    frames = torch.from_numpy(video).permute(0, 3, 1, 2)
    answer = model.look(frames)
    seen = answer.probabilities[(answer.mask_logits > 0).flatten(1).any(1)]
    best = seen.flatten().topk(min(10, seen.numel())).values.tolist()
    assert [track.score for track in found.tracks] == pytest.approx(best, abs=1e-5)
