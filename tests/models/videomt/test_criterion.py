"""The losses of a clip: who is matched when, what a query keeps, and what an absent object asks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tubelet.models.queries.criterion import CriterionConfig, Target
from tubelet.models.queries.prediction import QueryPrediction
from tubelet.models.videomt.criterion import ClipCriterion, ClipTarget
from tubelet.models.videomt.network import FrameOutput

Q, D, K, H, W = 4, 6, 3, 8, 12
LOSSES = CriterionConfig(points=32).build("ce")


def prediction(seed: int, batch: int = 1) -> FrameOutput:
    made = torch.Generator().manual_seed(seed)
    return FrameOutput(
        logits=torch.randn(batch, Q, K + 1, generator=made).requires_grad_(),
        kernels=torch.randn(batch, Q, D, generator=made).requires_grad_(),
        features=torch.randn(batch, D, H, W, generator=made).requires_grad_(),
    )


def target(*present: tuple[int, ...]) -> ClipTarget:
    """An object for each tuple, which says in which frames it is there."""
    masks = torch.zeros(len(present), len(present[0]) if present else 2, 4 * H, 4 * W)
    for m, frames in enumerate(present):
        for t, there in enumerate(frames):
            masks[m, t, 6 * m : 6 * m + 10, 9 * m + 3 * t : 9 * m + 3 * t + 16] = there
    return ClipTarget(labels=torch.arange(len(present)) % K, masks=masks, padding=torch.ones(2), no_object=K)


def matches(frames: list[FrameOutput], truth: ClipTarget) -> list[dict[int, int]]:
    """Object -> query, for each frame."""
    torch.manual_seed(0)
    clips = [frame.as_clips() for frame in frames]
    found = ClipCriterion(LOSSES).match_clip(clips, 0, truth)
    return [dict(zip(objects.tolist(), queries.tolist(), strict=True)) for queries, objects in found]


@pytest.mark.parametrize("seed", range(4))
def test_an_object_keeps_the_query_of_its_first_frame_also_where_it_is_absent(seed: int) -> None:
    frames = [prediction(10 * seed + t) for t in range(4)]
    found = matches(frames, target((1, 1, 0, 1), (0, 1, 1, 1)))
    assert [sorted(frame) for frame in found] == [[0], [0, 1], [0, 1], [0, 1]]
    assert len({frame[0] for frame in found}) == 1
    assert len({frame[1] for frame in found[1:]}) == 1
    assert found[1][0] != found[1][1]


def test_a_new_object_gets_the_cheapest_of_the_free_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.rand(1, 32, 2)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: points)
    frames = [prediction(t) for t in range(2)]
    truth = target((1, 1), (0, 1))
    found = matches(frames, truth)
    taken = found[0][0]
    free = [q for q in range(Q) if q != taken]
    alone = QueryPrediction(frames[1].logits[:, free], frames[1].kernels[:, None, free])
    of_new = Target(labels=truth.labels[[1]], masks=truth.masks[[1]][:, [1]], padding=torch.ones(2))
    cheapest = LOSSES.match(alone, 0, frames[1].features, of_new)[0]
    assert found[1][1] == free[int(cheapest)]


def test_without_a_free_query_a_new_object_waits() -> None:
    frames = [prediction(t) for t in range(2)]
    found = matches(frames, target(*[(1, 1)] * Q, (0, 1)))
    assert [len(frame) for frame in found] == [Q, Q]
    assert Q not in found[1]


def test_losses_are_those_of_the_frames_as_clips_of_their_own() -> None:
    """With all objects in both frames and one matching, against the mask transformers' criterion."""
    frames = [prediction(t) for t in range(2)]
    truth = target((1, 1), (1, 1))
    rule = ClipCriterion(LOSSES)
    torch.manual_seed(0)
    found = rule([[frame] for frame in frames], [truth])

    torch.manual_seed(0)
    match = rule.match_clip([frame.as_clips() for frame in frames], 0, truth)
    joint = QueryPrediction(
        torch.cat([frame.logits for frame in frames]), torch.cat([frame.kernels for frame in frames])[:, None]
    )
    features = torch.cat([frame.features for frame in frames])[:, None]
    expected = LOSSES.of_matches(joint, features, [truth.frame(0), truth.frame(1)], match, torch.tensor(4.0))
    assert {name.removesuffix("_0"): loss.item() for name, loss in found.items()} == {
        name: loss.item() for name, loss in expected.items()
    }


def test_where_its_object_is_absent_a_query_is_to_say_no_object_and_show_nothing() -> None:
    frames = [prediction(t) for t in range(2)]
    truth = target((1, 0))
    torch.manual_seed(0)
    found = ClipCriterion(LOSSES)([[frame] for frame in frames], [truth])
    query = matches(frames, truth)[1][0]
    by_class, by_kernel = torch.autograd.grad(found["class_0"] + found["mask_0"], [frames[1].logits, frames[1].kernels])
    assert (by_class[0, query, :K] > 0).all()  # each class is to become less probable
    assert by_class[0, query, K] < 0
    step = FrameOutput(frames[1].logits, frames[1].kernels - 0.1 * by_kernel, frames[1].features)
    before, after = (frame.mask_logits[0, query].sigmoid().mean() for frame in (frames[1], step))
    assert after < before


def test_every_prediction_of_every_frame_is_learnt_from() -> None:
    frames = [[prediction(10 * t + n, batch=2) for n in range(3)] for t in range(2)]
    found = ClipCriterion(LOSSES)(frames, [target((1, 1)), target((0, 1), (1, 0))])
    assert set(found) == {f"{kind}_{n}" for kind in ("class", "mask", "dice") for n in range(3)}
    torch.stack(list(found.values())).sum().backward()
    for tensor in [tensor for frame in frames for made in frame for tensor in made]:
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_a_batch_without_objects_gives_every_part_a_gradient() -> None:
    frames = [[prediction(t)] for t in range(2)]
    found = ClipCriterion(LOSSES)(frames, [target()])
    torch.stack(list(found.values())).sum().backward()
    gradients: list[Tensor | None] = [tensor.grad for frame in frames for made in frame for tensor in made]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
