"""The propagation head: its losses against loops, and what it finds again in a frame that the detector misses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.attention.affinity import spatial_prior
from tubelet.models.inputs import Images
from tubelet.models.rcnn.detectors.detector import Detections, Targets
from tubelet.models.rcnn.propagation import History, Propagation, PropagationConfig

CHANNELS, CLASSES = 4, 3
SMALL = PropagationConfig(channels=8, convs=1)
HEIGHT, WIDTH = 64, 96  # of the padded input
SIZE = (60, 90)  # without padding
FRAME = (120, 180)
SCALE = torch.full((4,), 0.5)
STREAM = tuple[Propagation, History]


def build(*overrides: str) -> Propagation:
    torch.manual_seed(0)
    return SMALL.override(*overrides).build(CHANNELS, CLASSES).eval()


def pyramid(batch: int = 1, seed: int = 0) -> list[Tensor]:
    """P2..P6."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(HEIGHT // s, WIDTH // s) for s in (4, 8, 16, 32, 64)]
    return [torch.randn(batch, CHANNELS, *size, generator=generator) for size in sizes]


def images(batch: int) -> Images:
    return Images(torch.zeros(batch, 3, HEIGHT, WIDTH), [SIZE] * batch, SCALE.expand(batch, 4))


def targets(*objects: tuple[int, int, tuple[int, int, int, int]]) -> Targets:
    """Objects of one frame: id, label, and a box in frame pixels that the mask fills."""
    masks = torch.zeros(len(objects), *FRAME, dtype=torch.uint8)
    for mask, (_, _, (x1, y1, x2, y2)) in zip(masks, objects, strict=True):
        mask[y1:y2, x1:x2] = 1
    return Targets(
        boxes=torch.tensor([o[2] for o in objects], dtype=torch.float32).view(-1, 4) * SCALE,
        labels=torch.tensor([o[1] for o in objects], dtype=torch.int64),
        ids=torch.tensor([o[0] for o in objects], dtype=torch.int64),
        masks=masks,
        scale=SCALE,
        ignored=torch.zeros(0, 4),
    )


def detections(*objects: tuple[tuple[float, ...], int, float]) -> Detections:
    """Boxes in input pixels, labels, scores."""
    scores = torch.zeros(len(objects), CLASSES)
    for row, (_, label, score) in zip(scores, objects, strict=True):
        row[label] = score
    return Detections(boxes=torch.tensor([o[0] for o in objects]).view(-1, 4).float(), scores=scores)


# size


@pytest.mark.parametrize(("weight", "parameters"), [("none", 3_552_553), ("shared", 3_552_553 + 65_536)])
def test_the_head_has_as_many_parameters_as_the_papers(weight: str, parameters: int) -> None:
    with torch.device("meta"):
        head = PropagationConfig().override(f"affinity.weight={weight}").build(256, 40)
    assert sum(p.numel() for p in head.parameters()) == parameters


def test_norms_start_as_told() -> None:
    for bias in (0.0, 1.0):
        norms = [m for m in build(f"norm_bias={bias}").modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 2
        assert all((norm.bias == bias).all() for norm in norms)


# fusion


def test_levels_meet_at_stride_eight_and_those_after_p5_are_not_looked_at() -> None:
    head, maps = build(), pyramid(2)
    fused = head.fuse(maps)
    assert fused.shape == (2, 8, HEIGHT // 8, WIDTH // 8)
    assert torch.equal(fused, head.fuse(maps[:4]))
    wanted = torch.cat([F.avg_pool2d(maps[0], 2), maps[1]], 1)  # half the size is the mean of four
    larger = [F.interpolate(m, scale_factor=s, mode="bilinear") for m, s in zip(maps[2:4], (2, 4), strict=True)]
    torch.testing.assert_close(fused, head.fusion(torch.cat([wanted, *larger], 1)))


@pytest.mark.parametrize("weight", ["none", "shared", "per_slot", "per_class"])
def test_a_batch_of_four_says_of_each_image_what_a_batch_of_one_says(weight: str) -> None:
    head, maps = build(f"affinity.weight={weight}"), pyramid(4)
    truth = [targets((1, i % CLASSES, (20 + 8 * i, 20, 90, 70))) for i in range(4)]
    fused = head.fuse(maps)
    together = head.losses(maps, images(4), truth, {i: (i + 1) % 4 for i in range(4)})
    alone = []
    for i in range(4):
        torch.testing.assert_close(head.fuse([m[i : i + 1] for m in maps])[0], fused[i], rtol=1e-4, atol=1e-5)
        pair = [i, (i + 1) % 4]
        alone.append(head.losses([m[pair] for m in maps], images(2), [truth[j] for j in pair], {0: 1}))
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in alone]).mean(), rtol=1e-4, atol=1e-5)


# losses


def contrast_by_loops(head: Propagation, reference: Tensor, current: Tensor, box: list[float]) -> Tensor:
    """fg - bg of one box of the reference at every place of the current frame, [h, w]."""
    depth, height, width = current.shape
    r, x = reference.flatten(1).T.tolist(), current.flatten(1).T.tolist()
    x1, y1, x2, y2 = math.floor(box[0] / 8), math.floor(box[1] / 8), math.ceil(box[2] / 8), math.ceil(box[3] / 8)
    out = torch.zeros(height, width)
    for q in range(height * width):
        weights = [math.exp(sum(r[p][d] * x[q][d] for d in range(depth))) for p in range(height * width)]
        inside = sum(w for p, w in enumerate(weights) if y1 <= p // width < y2 and x1 <= p % width < x2)
        out[q // width, q % width] = 2 * inside / sum(weights) - 1
    return out


@pytest.mark.parametrize("temperature", [1, 3])
def test_losses_are_the_papers_object_by_object(temperature: int) -> None:
    head, maps = build(f"attn_temp={temperature}"), pyramid(2)
    before = targets((7, 1, (20, 20, 90, 70)), (9, 2, (100, 10, 150, 60)))  # 9 is gone in the present frame
    now = targets((4, 0, (0, 0, 10, 10)), (7, 1, (40, 30, 111, 81)))  # 4 is new: nothing is asked of it
    losses = head.losses(maps, images(2), [before, now], {1: 0})
    reference, current = head.fuse(maps)
    attention = []
    for k in range(2):
        contrast = contrast_by_loops(head, reference, current, before.boxes[k].tolist())
        logits = temperature * F.interpolate(contrast[None, None], scale_factor=8, mode="bilinear")[0, 0]
        inside = torch.zeros(HEIGHT, WIDTH)
        if k == 0:
            inside[15:41, 20:56] = 1  # the box of 7 in input pixels, of which half a pixel counts
        both = torch.stack([-logits / 2, logits / 2])  # softmax over {bg, fg} sees their difference
        attention.append(F.cross_entropy(both[None], inside[None].long()))
    torch.testing.assert_close(losses["prop_attention"], torch.stack(attention).mean(), rtol=1e-4, atol=1e-5)

    contrast = contrast_by_loops(head, reference, current, before.boxes[0].tolist())
    soft = (temperature * F.interpolate(contrast[None, None], scale_factor=8, mode="bilinear")).sigmoid()
    small = F.interpolate(soft, scale_factor=1 / 8, mode="bilinear")
    all_classes = F.interpolate(head.mask(current[None] * small), scale_factor=4, mode="bilinear")
    truth = torch.zeros(HEIGHT, WIDTH)
    resized = F.interpolate(now.masks[1].float()[None, None], size=SIZE, mode="bilinear")[0, 0]
    truth[: SIZE[0], : SIZE[1]] = (resized >= 0.5).float()
    wanted = F.binary_cross_entropy_with_logits(all_classes[0, 1 + 1], truth)
    torch.testing.assert_close(losses["prop_mask"], wanted, rtol=1e-4, atol=1e-5)


def test_attention_can_not_be_learned_below_its_floor() -> None:
    head = build()
    perfect = torch.ones(1, HEIGHT, WIDTH)
    assert float(F.binary_cross_entropy_with_logits(perfect, perfect)) == pytest.approx(0.3133, abs=1e-4)
    everywhere = head._attention(torch.stack([perfect[0], -perfect[0]]))
    assert float(everywhere.min()) == pytest.approx(0.26894, abs=1e-5)
    assert float(everywhere.max()) == pytest.approx(0.73106, abs=1e-5)
    assert float(build("attn_temp=9")._attention(perfect).min()) > 0.999


@pytest.mark.parametrize("weight", ["none", "shared", "per_slot", "per_class"])
@pytest.mark.parametrize(
    ("before", "now"),
    [
        (targets(), targets()),
        (targets(), targets((1, 0, (0, 0, 40, 40)))),
        (targets((1, 0, (0, 0, 40, 40))), targets()),
        (targets((1, 0, (0, 0, 40, 40))), targets((2, 0, (0, 0, 40, 40)))),
        (targets((1, 0, (0, 0, 40, 40))), targets((1, 0, (8, 0, 48, 40)))),
    ],
    ids=["nothing", "only now", "only before", "two others", "the same"],
)
def test_every_parameter_takes_part_whatever_the_frames_show(weight: str, before: Targets, now: Targets) -> None:
    head = build(f"affinity.weight={weight}").train()
    losses = head.losses(pyramid(2), images(2), [before, now], {1: 0})
    assert (losses["prop_attention"].item() > 0) == (len(before.ids) > 0)
    assert (losses["prop_mask"].item() > 0) == (bool(len(now.ids)) and before.ids.tolist() == now.ids.tolist())
    sum(losses.values(), torch.zeros(())).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


def test_permuted_reference_boxes_leave_the_losses_as_they_are() -> None:
    head, maps = build(), pyramid(2)
    objects = [(1, 0, (0, 0, 40, 40)), (2, 1, (60, 60, 120, 100)), (3, 2, (90, 0, 170, 50))]
    now = targets((2, 1, (62, 60, 122, 100)), (1, 0, (4, 0, 44, 40)))
    first = head.losses(maps, images(2), [targets(*objects), now], {1: 0})
    second = head.losses(maps, images(2), [targets(*objects[::-1]), now], {1: 0})
    torch.testing.assert_close(first, second)


# inference


class Plain(Propagation):
    """Sees its pyramid's second level as it is, and says that a mask is where the attention is above one half."""

    def fuse(self, maps: list[Tensor]) -> Tensor:
        return maps[1]


class Ask(nn.Module):
    """A mask head for masked features whose first channel is 1: logits in the channel of every class."""

    def forward(self, seen: Tensor) -> Tensor:
        sharp = 40 * (seen[:, :1] - 0.5)
        return F.interpolate(sharp, scale_factor=2.0, mode="nearest").expand(-1, CLASSES + 1, -1, -1)

    def of_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits[torch.arange(len(labels)), labels + 1]


def plain(*overrides: str) -> Propagation:
    """A head whose masks can be foretold: an object is where the present frame looks like its past box."""
    head = Plain(SMALL.override("channels=4", *overrides), CHANNELS, CLASSES).eval()
    head.mask = Ask()  # type: ignore[assignment]
    return head


def scene(*squares: tuple[int, int, int], cells: tuple[int, int] = (HEIGHT // 8, WIDTH // 8)) -> list[Tensor]:
    """A pyramid with squares of 3 x 3 cells on a plain ground: channel (1 or 2), top and left cell."""
    one = torch.zeros(1, CHANNELS, *cells)
    one[:, 0], one[:, 3] = 1, 9
    for channel, top, left in squares:
        one[:, 3, top : top + 3, left : left + 3] = 0
        one[:, channel, top : top + 3, left : left + 3] = 9
    return [torch.zeros(1), one]


def watch(
    head: Propagation, history: History, maps: list[Tensor], ids: list[int], found: Detections
) -> tuple[History, list[int], Detections, Tensor]:
    history, again, more, masks = head.step(history, maps, SIZE, SCALE, FRAME, torch.tensor(ids).long(), found)
    assert len(again) == len(more) == len(masks)
    assert masks.shape[1:] == FRAME
    return history, again.tolist(), more, masks


def square_box(top: int, left: int) -> tuple[float, ...]:
    """A square of `scene` in input pixels."""
    return (8.0 * left, 8.0 * top, 8.0 * left + 24, 8.0 * top + 24)


NOTHING = detections()


def test_a_missed_object_is_found_where_it_went() -> None:
    head = plain()
    history, again, _, _ = watch(head, head.start(), scene((1, 1, 2)), [5], detections((square_box(1, 2), 2, 0.8)))
    assert again == []
    history, again, found, masks = watch(head, history, scene((1, 2, 4)), [], NOTHING)
    assert again == [5]
    assert found.labels.tolist() == [2]
    assert float(found.confidence) == pytest.approx(0.8)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    wanted = torch.zeros(FRAME)
    wanted[32:80, 64:112] = 1  # the square in frame pixels: the input is half the size of the frame
    overlap = (masks[0] * wanted).sum() / (masks[0] + wanted).clamp(max=1).sum()
    assert overlap > 0.75  # the attention is blurred by its resizing


def test_the_box_is_tight_and_in_input_pixels() -> None:
    head = plain()
    history, *_ = watch(head, head.start(), scene((1, 1, 2)), [5], detections((square_box(1, 2), 2, 0.8)))
    history, _, found, masks = watch(head, history, scene((1, 1, 2)), [], NOTHING)
    rows, columns = masks[0].any(1).nonzero()[:, 0], masks[0].any(0).nonzero()[:, 0]
    tight = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert torch.equal(found.boxes[0], tight * 0.5)
    assert torch.equal(history.frames[-1].boxes, found.boxes)  # and so it is carried on
    torch.testing.assert_close(found.boxes[0], torch.tensor(square_box(1, 2)), rtol=0, atol=4)


def test_padding_is_cut_off_before_masks_are_stretched_over_the_frame() -> None:
    head = plain()
    edge = scene((1, 4, 9))  # from 72 to 96 across, of which the frame ends at 90
    history, *_ = watch(head, head.start(), edge, [5], detections(((72, 32, 90, 56), 0, 0.8)))
    _, again, found, masks = watch(head, history, edge, [], NOTHING)
    assert again == [5]
    assert masks[0, 88, -1] == 1  # it reaches the frame's edge
    assert found.boxes[0, 2] == SIZE[1]
    assert masks[0, :, : 2 * 64].sum() == 0  # and is not squeezed to the left


def test_an_object_found_again_is_carried_on_and_its_score_stays() -> None:
    head = plain("frames=2")
    first = detections((square_box(1, 2), 2, 0.8))
    history, *_ = watch(head, head.start(), scene((1, 1, 2)), [5], first)
    for step in range(4):  # longer than its last detection is remembered
        history, again, found, _ = watch(head, history, scene((1, 1, 2)), [], NOTHING)
        assert again == [5], step
        assert float(found.confidence) == pytest.approx(0.8)
        assert len(history.frames) <= 2


def test_the_score_is_the_mean_and_the_label_the_last() -> None:
    head = plain()
    history = head.start()
    for label, score in ((0, 0.9), (1, 0.4), (1, 0.5)):
        history, *_ = watch(head, history, scene((1, 1, 2)), [5], detections((square_box(1, 2), label, score)))
    _, _, found, _ = watch(head, history, scene((1, 1, 2)), [], NOTHING)
    torch.testing.assert_close(found.scores, torch.tensor([[0, 0.6, 0]]))


def test_an_object_that_is_nowhere_is_not_found() -> None:
    head = plain()
    history, *_ = watch(head, head.start(), scene((1, 1, 2)), [5], detections((square_box(1, 2), 2, 0.8)))
    history, again, _, _ = watch(head, history, scene(), [], NOTHING)
    assert again == []
    assert len(history.frames[-1].ids) == 0
    _, again, _, _ = watch(head, history, scene((1, 1, 2)), [], NOTHING)
    assert again == [5]  # it is still remembered when it comes back


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.9])
def test_masks_are_the_means_above_the_threshold(threshold: float) -> None:
    head = plain(f"threshold={threshold}")
    history, *_ = watch(head, head.start(), scene((1, 1, 2)), [5], detections((square_box(1, 2), 2, 0.8)))
    _, _, _, masks = watch(head, history, scene((1, 2, 4)), [], NOTHING)
    mean = head._probabilities(history, scene((1, 2, 4))[1][0], history.lost(torch.zeros(0), 99))
    inside = F.interpolate(mean[None, :, : SIZE[0], : SIZE[1]], FRAME, mode="bilinear")[0]
    assert torch.equal(masks, (inside > threshold).float())


def test_the_past_is_kept_for_so_many_frames() -> None:
    head = plain("frames=3")
    history, *_ = watch(head, head.start(), scene((1, 1, 2)), [5], detections((square_box(1, 2), 2, 0.8)))
    for _ in range(3):
        history, *_ = watch(head, history, scene(), [], NOTHING)
    assert len(history.frames) == 3
    _, again, _, _ = watch(head, history, scene((1, 1, 2)), [], NOTHING)
    assert again == []


def test_only_what_was_not_detected_is_looked_for() -> None:
    head = plain()
    both = detections((square_box(0, 0), 0, 0.9), (square_box(4, 7), 1, 0.7))
    maps = scene((1, 0, 0), (2, 4, 7))
    history, again, _, _ = watch(head, head.start(), maps, [3, 8], both)
    assert again == []
    history, again, _, masks = watch(head, history, maps, [3, 8], both)
    assert again == []
    assert masks.shape == (0, *FRAME)
    after, again, found, _ = watch(head, history, maps, [3], both[:1])
    assert again == [8]
    assert found.labels.tolist() == [1]
    last = after.frames[-1]  # remembers both, each with its own
    assert last.ids.tolist() == [3, 8]
    assert last.labels.tolist() == [0, 1]
    torch.testing.assert_close(last.scores, torch.tensor([0.9, 0.7]))
    assert torch.equal(last.boxes, torch.cat([both.boxes[:1], found.boxes]))
    _, again, _, _ = watch(head, history, maps, [8], both[1:])
    assert again == [3]


def test_the_order_of_past_objects_does_not_matter() -> None:
    head, maps = build(), pyramid()
    both = detections(((8, 8, 40, 30), 0, 0.9), ((50, 20, 80, 60), 1, 0.7))
    answers = []
    for order in ([0, 1], [1, 0]):
        history, *_ = watch(head, head.start(), maps, [[3, 8][i] for i in order], both[order])
        history = replace(history)
        probabilities = head._probabilities(history, head.fuse(pyramid(seed=1))[0], history.lost(torch.zeros(0), 99))
        rows = history.lost(torch.zeros(0), 99).ids.argsort()
        answers.append(probabilities[rows])
    torch.testing.assert_close(*answers)


def test_masks_are_means_over_the_frames_in_which_the_object_was() -> None:
    head = build()
    box, other = ((8.0, 8.0, 40.0, 30.0), 1, 0.9), ((50.0, 20.0, 80.0, 60.0), 0, 0.7)
    frames = [pyramid(seed=seed) for seed in range(4)]
    history = head.start()
    for maps, ids, found in ((frames[0], [3], [box]), (frames[1], [8], [other]), (frames[2], [3, 8], [box, other])):
        # every id is told as detected, so that nothing is added to the history
        history = head._record(
            head_fitting(history), head.fuse(maps)[0], (torch.tensor(ids), detections(*found)), EMPTY
        )
    current = head.fuse(frames[3])[0]
    lost = history.lost(torch.tensor([8]), 99)
    assert lost.ids.tolist() == [3]
    alone = [head._probabilities(replace(history, frames=(history.frames[t],)), current, lost) for t in (0, 2)]
    torch.testing.assert_close(head._probabilities(history, current, lost), torch.stack(alone).mean(0))
    assert not torch.allclose(alone[0], alone[1], atol=1e-4)


EMPTY = (torch.zeros(0, dtype=torch.int64), detections())


def head_fitting(history: History) -> History:
    return history.fitting((HEIGHT // 8, WIDTH // 8, *SIZE))


def test_attention_may_be_averaged_instead_of_masks() -> None:
    head, box = build("average=attention"), detections(((8.0, 8.0, 40.0, 30.0), 1, 0.9))
    history = head.start()
    for seed in range(2):
        history, *_ = watch(head, history, pyramid(seed=seed), [3], box)
    current, lost = head.fuse(pyramid(seed=2))[0], history.lost(torch.zeros(0), 99)
    bell = spatial_prior(HEIGHT // 8, WIDTH // 8, 8.0)
    contrasts = [
        head.attend(sight.features, current, sight.boxes, sight.labels, prior=bell) for sight in history.frames
    ]
    mean = torch.stack(contrasts).sigmoid().mean(0)
    wanted = head.decode(current, mean, lost.labels).sigmoid()
    got = head._probabilities(history, current, lost)
    torch.testing.assert_close(got, wanted)
    each = build()._probabilities(history, current, lost)
    torch.testing.assert_close(got, each, rtol=0, atol=0.1)  # nearly the same, at a part of the cost
    assert not torch.equal(got, each)


def test_the_spatial_prior_prefers_the_nearer_of_two_that_look_alike() -> None:
    head = plain("sigma=2")
    looks = scene((1, 2, 0), (1, 2, 8))
    history, *_ = watch(head, head.start(), looks, [5], detections((square_box(2, 0), 2, 0.8)))
    _, again, _, masks = watch(head, history, looks, [], NOTHING)
    assert again == [5]
    assert masks[0, 48:72, 16:32].mean() > 0.9
    assert masks[0, :, 2 * 64 :].sum() == 0


def test_without_renormalisation_the_attention_drifts_to_one_half() -> None:
    drift = []
    for renorm in ("true", "false"):
        head = plain("sigma=1", f"renorm={renorm}")
        history, *_ = watch(head, head.start(), scene((1, 1, 2)), [5], detections((square_box(1, 2), 2, 0.8)))
        mean = head._probabilities(history, scene((1, 2, 6))[1][0], history.lost(torch.zeros(0), 99))
        drift.append(float((mean - 0.5).abs().mean()))
    assert drift[1] < drift[0]


# streams


def test_switched_off_it_does_nothing() -> None:
    head = plain("at_test=false")
    history, *_ = watch(head, head.start(), scene((1, 1, 2)), [5], detections((square_box(1, 2), 2, 0.8)))
    assert history == head.start()
    history, again, _, _ = watch(head, history, scene((1, 1, 2)), [], NOTHING)
    assert again == []
    assert history.frames == ()


def test_frames_without_any_object_are_no_fault() -> None:
    head = plain()
    history = head.start()
    for _ in range(2):
        history, again, found, _ = watch(head, history, scene(), [], NOTHING)
        assert again == []
        assert found.scores.shape == (0, CLASSES)
    assert len(history.frames) == 2


def test_another_size_in_mid_stream_starts_a_new_history() -> None:
    head = plain()
    maps, ids = scene((1, 1, 2)), torch.tensor([5])
    history, *_ = watch(head, head.start(), maps, [5], detections((square_box(1, 2), 2, 0.8)))
    larger = scene((1, 1, 2), cells=(10, 14))
    after, again, _, masks = head.step(history, larger, (80, 112), SCALE, FRAME, ids[:0], NOTHING)
    assert len(again) == len(masks) == 0
    assert len(after.frames) == 1
    assert after.frames[0].features.shape == (10 * 14, CHANNELS)
    back, again, _, _ = watch(head, after, maps, [], NOTHING)
    assert again == []
    assert len(back.frames) == 1
    unpadded, again, _, _ = head.step(history, maps, (64, 96), SCALE, FRAME, ids[:0], NOTHING)
    assert len(unpadded.frames) == 1  # as many cells, but they stand for other places
    assert len(again) == 0


def test_the_history_that_was_handed_in_stays_as_it_was() -> None:
    head = plain()
    maps = scene((1, 1, 2))
    before, *_ = watch(head, head.start(), maps, [5], detections((square_box(1, 2), 2, 0.8)))
    kept = [t.clone() for t in (before.frames[0].features, before.frames[0].boxes, before.frames[0].scores)]
    first = watch(head, before, maps, [], NOTHING)
    second = watch(head, before, maps, [], NOTHING)
    assert len(before.frames) == 1
    for now, then in zip(
        (before.frames[0].features, before.frames[0].boxes, before.frames[0].scores), kept, strict=True
    ):
        assert torch.equal(now, then)
    assert torch.equal(first[3], second[3])


def test_an_id_that_occurs_twice_in_a_frame_is_its_later_detection() -> None:
    head = plain()
    twice = detections((square_box(0, 0), 0, 0.9), (square_box(4, 7), 1, 0.7))
    history, *_ = watch(head, head.start(), scene((1, 0, 0), (2, 4, 7)), [3, 3], twice)
    assert history.frames[0].ids.tolist() == [3]
    assert torch.equal(history.frames[0].boxes, twice.boxes[1:])


def test_many_lost_objects_are_decoded_a_few_at_a_time() -> None:
    head, maps = build(), pyramid()
    many = detections(*(((2.0 * i, i, 2.0 * i + 30, i + 30.0), i % CLASSES, 0.5) for i in range(19)))
    history, *_ = watch(head, head.start(), maps, list(range(19)), many)
    current, lost = head.fuse(pyramid(seed=1))[0], history.lost(torch.zeros(0), 99)
    together = head._probabilities(history, current, lost)
    for i in (0, 7, 8, 18):
        others = torch.tensor([j for j in range(19) if j != i])
        alone = head._probabilities(history, current, history.lost(others, 99))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_of_many_lost_objects_the_best_are_looked_for_and_the_others_stay_remembered() -> None:
    head, maps = plain("objects=2"), scene((1, 1, 2))
    where = square_box(1, 2)
    history, *_ = watch(
        head, head.start(), maps, [1, 2, 3, 4], detections(*((where, 0, s) for s in (0.2, 0.9, 0.2, 0.4)))
    )
    history, again, _, _ = watch(head, history, maps, [], NOTHING)
    assert again == [2, 4]
    _, again, _, _ = watch(head, history, maps, [2, 4], detections((where, 0, 0.9), (where, 0, 0.4)))
    assert again == [1, 3]


def test_half_precision_around_changes_little() -> None:
    head, found = build(), detections(((8.0, 8.0, 40.0, 30.0), 1, 0.9))
    answers = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.no_grad():
            losses = head.losses(
                pyramid(2), images(2), [targets((1, 0, (0, 0, 80, 80))), targets((1, 0, (8, 0, 88, 80)))], {1: 0}
            )
            history, *_ = watch(head, head.start(), pyramid(), [3], found)
            mean = head._probabilities(history, head.fuse(pyramid(seed=1))[0], history.lost(torch.zeros(0), 99))
        assert history.frames[0].features.dtype == mean.dtype == torch.float32
        answers.append([*losses.values(), mean])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def test_features_are_fused_once_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    head, history = build(), History()
    calls = []
    fuse = Propagation.fuse
    monkeypatch.setattr(Propagation, "fuse", lambda self, maps: calls.append(1) or fuse(self, maps))
    for t in range(5):
        found = detections(((8.0, 8.0, 40.0, 30.0), 1, 0.9)) if t == 0 else NOTHING
        history, *_ = watch(head, history, pyramid(seed=t), [3][: len(found)], found)
    assert len(calls) == 5
