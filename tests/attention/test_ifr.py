"""Inter-frame recurrent attention against loops over its equations, and what must not depend on what."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tubelet.attention.blocks import MultiHeadAttention, sine_time, unblock
from tubelet.attention.ifr import InterFrameLayer, RecurrentConfig, multiplied_attention

B, Q, T, L, D = 2, 3, 4, 5, 8


def build(**fields: object) -> InterFrameLayer:
    torch.manual_seed(0)
    return RecurrentConfig.from_tree({"heads": 2, "feed_forward": 16} | fields).build(D)


def case(seed: int = 1, length: int = T) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {
        "clip": torch.randn(B, Q, D, generator=made),
        "position": torch.randn(Q, D, generator=made),
        "tokens": torch.randn(B * length, L, D, generator=made),
        "token_position": torch.randn(L, D, generator=made),
        "allowed": unblock(torch.rand(B * length, Q, L, generator=made) > 0.4),
    }


def in_loops(layer: InterFrameLayer, length: int = T, **x: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 2 and 3 clip by clip and frame by frame, all 2N tokens through self-attention, then the clip's update."""
    frame, last, config, position = layer.frame, layer.clip, layer.config, x["position"]
    both = torch.cat([position, position])
    clips, walks = [], []
    for b in range(len(x["clip"])):
        clip = x["clip"][b : b + 1]
        previous, walked = clip, []
        for t in range(length):
            row = slice(b * length + t, b * length + t + 1)
            tokens, allowed = x["tokens"][row], x["allowed"][row]
            memory = frame.cross_attn.project(tokens + x["token_position"], tokens)
            groups = [
                frame.cross_attn_layer_norm(g + frame.cross_attn(g + position, memory, allowed))
                for g in (previous if config.recurrence else clip, clip)
            ]
            joined = torch.cat(groups, 1)  # [1, 2 Q, D]
            tokens_of_both = frame.self_attn.project(joined + both, joined)
            mixed = frame.self_attn_layer_norm(joined + frame.self_attn(joined + both, tokens_of_both))
            previous = frame.feed(mixed[:, :Q])
            walked.append(previous)
        frames = torch.stack(walked, 1)  # [1, T, Q, D]
        keys = frames + position
        if config.temporal_position:
            keys = keys + sine_time(length, D, keys.device)[:, None]
        gathered = torch.zeros_like(clip)
        for q in range(Q):
            chosen = slice(q, q + 1) if config.temporal_scope == "same_query" else slice(None)
            memory = last.cross_attn.project(keys[:, :, chosen].flatten(1, 2), frames[:, :, chosen].flatten(1, 2))
            gathered[:, q] = last.cross_attn(clip[:, q : q + 1] + position[q], memory)[:, 0]
        clip = last.cross_attn_layer_norm(clip + gathered)
        memory = last.self_attn.project(clip + position, clip)
        clip = last.feed(last.self_attn_layer_norm(clip + last.self_attn(clip + position, memory)))
        clips.append(clip)
        walks.append(frames)
    return torch.cat(clips), torch.cat(walks)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"recurrence": False},
        {"temporal_scope": "same_query"},
        {"temporal_position": True},
        {"mask_mode": "multiplicative"},
        {"ffn": "clip"},
        {"ffn": "none"},
        {"temporal_scope": "same_query", "temporal_position": True, "recurrence": False},
    ],
)
def test_a_layer_is_its_equations(fields: dict[str, object]) -> None:
    layer, x = build(**fields), case()
    clip, frames = layer(**x)
    expected_clip, expected_frames = in_loops(layer, **x)
    torch.testing.assert_close(frames, expected_frames, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clip, expected_clip, atol=1e-5, rtol=1e-4)


def test_the_literal_equation_leaves_weight_on_blocked_tokens() -> None:
    logits = torch.tensor([2, 1, 0.5, -1])
    allowed = torch.tensor([True, True, False, False])[None, None, None]
    queries, keys = torch.tensor([2.0, 0, 0, 0]).view(1, 1, 1, 4), torch.zeros(1, 1, 4, 4)
    keys[..., 0] = logits  # times 2, by the root of four channels
    weights = multiplied_attention(queries, keys, torch.eye(4)[None, None], allowed)
    total = math.exp(2) + math.exp(1) + 2
    expected = torch.tensor([math.exp(2) / total, math.exp(1) / total, 1 / total, 1 / total])
    torch.testing.assert_close(weights[0, 0, 0], expected)
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([0.610, 0.225, 0.083, 0.083]), atol=1e-3, rtol=0)


def test_the_literal_equation_without_a_mask_is_ordinary_attention() -> None:
    x = [torch.randn(1, 2, 3, 4) for _ in range(3)]
    expected = torch.nn.functional.scaled_dot_product_attention(*x)
    torch.testing.assert_close(multiplied_attention(*x, None), expected)


def test_reversed_frames_change_the_frame_queries_with_recurrence() -> None:
    layer, x = build(), case()
    back = reverse(x)
    assert not torch.allclose(layer(**x)[1], layer(**back)[1].flip(1), atol=1e-3)


def test_without_recurrence_permuted_frames_permute_frame_queries_and_leave_the_clip() -> None:
    layer, x = build(recurrence=False), case()
    clip, frames = layer(**x)
    turned_clip, turned = layer(**reverse(x))
    torch.testing.assert_close(turned.flip(1), frames)
    torch.testing.assert_close(turned_clip, clip)


def test_a_frame_does_not_know_what_comes_after_it() -> None:
    layer, x = build(), case()
    clip, frames = layer(**x)
    x["tokens"] = x["tokens"].clone()
    x["tokens"].unflatten(0, (B, T))[:, 2:] += 1
    changed_clip, changed = layer(**x)
    torch.testing.assert_close(changed[:, :2], frames[:, :2], atol=0, rtol=0)
    assert not torch.allclose(changed[:, 2:], frames[:, 2:])
    assert not torch.allclose(changed_clip, clip)


def test_permuting_queries_permutes_everything() -> None:
    layer, x = build(), case()
    order = torch.tensor([2, 0, 1])
    clip, frames = layer(**x)
    turned = x | {"clip": x["clip"][:, order], "position": x["position"][order], "allowed": x["allowed"][:, order]}
    turned_clip, turned_frames = layer(**turned)
    torch.testing.assert_close(turned_clip, clip[:, order])
    torch.testing.assert_close(turned_frames, frames[:, :, order])


def test_one_frame_does_not_tell_recurrence_on_from_off() -> None:
    x = case(length=1)
    for on, off in zip(build()(**x), build(recurrence=False)(**x), strict=True):
        torch.testing.assert_close(on, off)


def test_every_parameter_learns() -> None:
    layer, x = build(), case()
    clip, frames = layer(**x)
    (clip.square().sum() + frames.cos().sum()).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in layer.named_parameters() if "k_proj.bias" not in n
    )


def reverse(x: dict[str, Tensor]) -> dict[str, Tensor]:
    def turned(of_frames: Tensor) -> Tensor:
        return of_frames.unflatten(0, (B, T)).flip(1).flatten(0, 1)

    return x | {"tokens": turned(x["tokens"]), "allowed": turned(x["allowed"])}


def one_clip() -> dict[str, Tensor]:
    x = case()
    frames = {name: x[name][:T] for name in ("tokens", "allowed")}
    return x | frames | {"clip": x["clip"][:1]}


@pytest.mark.parametrize("mask_mode", ["additive", "multiplicative"])
def test_the_weights_shown_rebuild_the_queries_of_a_layer_with_one_head(mask_mode: str) -> None:
    layer, x = build(heads=1, ffn="none", mask_mode=mask_mode), one_clip()
    position, frame = x["position"], layer.frame
    shown = layer.weights(**x)
    clip, frames = layer(**x)

    def attended(attention: MultiHeadAttention, weights: Tensor, tokens: Tensor) -> Tensor:
        return attention.out_proj(weights @ attention.v_proj(tokens))

    for t in range(T):
        before = frames[0, t - 1] if t else x["clip"][0]
        group = frame.cross_attn_layer_norm(before + attended(frame.cross_attn, shown.from_before[t], x["tokens"][t]))
        others = frame.cross_attn_layer_norm(
            x["clip"][0] + attended(frame.cross_attn, shown.from_clip[t], x["tokens"][t])
        )
        mixed = attended(frame.self_attn, shown.mixing[t], torch.cat([group, others]))
        torch.testing.assert_close(frames[0, t], frame.self_attn_layer_norm(group + mixed))

    gathered = attended(layer.clip.cross_attn, shown.over_frames.flatten(1), frames.flatten(0, 2))
    updated = layer.clip.cross_attn_layer_norm(x["clip"] + gathered)
    tokens = layer.clip.tokens(updated, position)
    torch.testing.assert_close(clip, layer.clip.feed(layer.clip.mix(updated, position, tokens)))


@pytest.mark.parametrize("recurrence", [True, False])
def test_weights_shown_of_a_clip_query_that_sees_only_its_own_frames_are_there_alone(recurrence: bool) -> None:
    shown = build(temporal_scope="same_query", temporal_position=True, recurrence=recurrence).weights(**one_clip())
    other = ~torch.eye(Q, dtype=torch.bool)
    assert shown.over_frames.transpose(1, 2)[other].eq(0).all()
    torch.testing.assert_close(shown.over_frames.sum((1, 2)), torch.ones(Q))
