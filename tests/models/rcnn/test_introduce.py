"""Objects that are given in one frame, and followed from there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tubelet.core.protocol import Guided
from tubelet.core.types import Clip, Tracks
from tubelet.models import weights
from tubelet.models.rcnn.model import MaskTrackRCNN

Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]

DOG, CAT = (7, 0, 6, 6, 30), (8, 1, 50, 20, 34)
SYSTEMS = {
    "MaskTrack R-CNN": (),
    "STA": ('neck={"kind": "sta"}',),
    "ObjProp": ("propagation={}",),
    "CompFeat": ('match={"kind": "correlation"}', 'regions={"kind": "dual"}'),
}


def single(clip: Clip, t: int) -> Clip:
    frame = slice(t, t + 1)
    return Clip(frames=clip.frames[frame], index=clip.index[frame], key=clip.key[frame])


def given(clip: Clip, t: int) -> Tracks:
    assert clip.tracks is not None
    return clip.tracks.at(slice(t, t + 1))


@pytest.mark.parametrize("system", SYSTEMS)
def test_given_objects_are_in_memory_as_sure_detections(build: Build, make_clip: MakeClip, system: str) -> None:
    model = build(*SYSTEMS[system])
    assert isinstance(model, Guided)
    clip = make_clip([DOG, CAT], [DOG, CAT], [DOG, CAT])
    with torch.inference_mode():
        memory = model.introduce(model.start(), single(clip, 0), given(clip, 0))
        assert memory.ids.tolist() == [1, 2]
        assert memory.scores.amax(1).tolist() == [1, 1]
        assert memory.time == 0
        memory, tracks = model.step(memory, single(clip, 1))
        memory, tracks = model.step(memory, single(clip, 2))
    assert memory.time == 2
    assert len(set(tracks.ids.tolist())) == len(tracks)


def test_boxes_are_those_of_the_masks_in_pixels_of_the_input(build: Build, make_clip: MakeClip) -> None:
    model = build()
    clip = make_clip([DOG, CAT])
    with torch.inference_mode():
        memory = model.introduce(model.start(), single(clip, 0), given(clip, 0))
    boxes = torch.tensor([[6.0, 6, 36, 36], [50, 20, 84, 54]])
    assert memory.size is not None
    stretch = torch.tensor([memory.size[1] / clip.size[1], memory.size[0] / clip.size[0]] * 2)
    torch.testing.assert_close(memory.boxes, boxes * stretch)


def test_objects_join_those_that_are_known(build: Build, make_clip: MakeClip) -> None:
    model = build()
    clip = make_clip([DOG, CAT], [DOG, CAT])
    with torch.inference_mode():
        memory = model.introduce(model.start(), single(clip, 0), given(clip, 0))
        memory = model.introduce(memory, single(clip, 1), given(clip, 1)[:1])
    assert memory.ids.tolist() == [1, 2, 3]


def test_the_bundled_model_follows_what_it_has_no_name_for() -> None:
    """A disc that moves over noise: no class of COCO, and yet it is followed for as long as recall lasts."""
    model = weights.load("default", device="cpu")
    generator = torch.Generator().manual_seed(0)
    ground = torch.randint(60, 120, (3, 120, 160), dtype=torch.uint8, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
    discs = torch.stack([(rows - 60) ** 2 + (columns - 60 - 3 * t) ** 2 < 24**2 for t in range(5)])
    colour = torch.tensor([230, 60, 40], dtype=torch.uint8).view(3, 1, 1)
    frames = torch.where(discs[:, None], colour, ground)

    clip = Clip(frames=frames, index=torch.arange(5), key=torch.ones(5, dtype=torch.bool))
    disc = Tracks(ids=torch.ones(1).long(), scores=torch.zeros(1, 80), masks=discs[None, :1], index=torch.arange(1))
    overlaps = []
    with torch.inference_mode():
        memory = model.introduce(model.start(), single(clip, 0), disc)
        for t in range(1, 5):
            memory, tracks = model.step(memory, single(clip, t))
            mask = (tracks[tracks.ids == 1].masks[:, 0] > 0.5).any(0)
            overlaps.append(float((mask & discs[t]).sum() / (mask | discs[t]).sum()))
    assert min(overlaps) > 0.8, overlaps
