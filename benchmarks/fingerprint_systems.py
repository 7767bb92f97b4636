"""Fingerprints of the nine systems, the bundled model and ablations: parameters, losses, gradients, objects, attention.

Each system is built from its small recipe, takes two steps on made-up clips, is then trained for a moment by
`tubelet train`, and what came out predicts a made-up video. Thresholds are opened, so that a model that has learned
little still finds objects; how many is recorded beside their fingerprints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fingerprint_prints as prints
import fingerprint_videos as videos
import torch
from torch import Tensor, nn

import tubelet
from tubelet import recipes
from tubelet.core.types import Clip, Tracks

PAIR = (False, True)  # a reference, then the frame that learns
SUPPORTED = (False, False, False, True)  # two supports before them
BOTH = (True, True)
WHOLE = (True,) * 6

RCNN = ("detector.score_threshold=0",)
ONE_STAGE = (*RCNN, "detector.calibration=[1, 0]", "association.birth=0", "association.leash=0")
QUERIES = ("linking.top=20",)
TAGS = ("clustering.reach=0.02", "clustering.smooth=0.01", "clustering.bin=0.002", "clustering.least=0")
# of each system: the frames of its training clips, and the fields that let it find more
SYSTEMS: dict[str, tuple[tuple[bool, ...], tuple[str, ...]]] = {
    "masktrack": (PAIR, RCNN),
    "sta": (PAIR, RCNN),
    "objprop": (PAIR, RCNN),
    "objprop-neck": (PAIR, RCNN),
    "objprop-affinity": (PAIR, RCNN),
    "compfeat": (SUPPORTED, RCNN),
    "mask2former": (BOTH, QUERIES),
    "ifr": (BOTH, QUERIES),
    "tags": (WHOLE, TAGS),
}
OF_QUERIES = ("mask2former", "ifr")
DEFAULTS = ("ssdlite-start", "ssdlite", "default", "finetune")

STA = 'neck={"kind": "sta", "levels": ["P3", "P4"]}'
DUAL = 'neck={"kind": "dual", "levels": ["P3", "P4"]}'
CROPS = 'mask={"kind": "crops", "size": 64, "second_look": 0.5, "margins": [0.1, 0.3], "trust": 1}'
# one choice each that the systems above do not make: recipe, fields of its model
ABLATIONS: dict[str, tuple[str, ...]] = {
    "sta, first frame": ("small/sta", "neck.first_frame=identity", "neck.gamma_init=0.5"),
    "sta, proposals, self": ("small/sta", "neck.consumers=proposals", "neck.reference=self", "neck.gamma_init=0.5"),
    "sta, scaled, previous": ("small/sta", "neck.scale=sqrt", "neck.value_from=previous", "neck.gamma_init=0.5"),
    "sta, not at test": ("small/sta", "neck.at_test=false", "neck.gamma_init=0.5"),
    "sta, one stage": ("ssdlite-start", STA, "neck.gamma_init=0.5"),
    "dual, spatial": ("small/compfeat-frame", "neck.temporal=false", "neck.zero_init=false"),
    "dual, rectified": ("small/compfeat-frame", "neck.zero_init=false", "neck.post_relu=true", "neck.scale=sqrt"),
    "dual, proposals": ("small/compfeat-frame", "neck.zero_init=false", "neck.consumers=proposals"),
    "dual, cut gradient": ("small/compfeat-frame", "neck.zero_init=false", "neck.context_gradient=false"),
    "dual, frames before": ("small/compfeat-frame", "neck.zero_init=false", "window.context=0"),
    "dual, one stage": ("ssdlite-start", DUAL, "neck.zero_init=false"),
    "regions": ("small/compfeat-object", "regions.zero_init=false"),
    "regions, not at test": ("small/compfeat-object", "regions.zero_init=false", "regions.at_test=false"),
    "regions, both": ("small/compfeat-both", "regions.zero_init=false", "neck.zero_init=false"),
    "correlation": ("small/compfeat-correlation",),
    "correlation, objects": ("small/compfeat-correlation", "match.frame_branch=false"),
    "correlation, training": ("small/compfeat-correlation", "match.frame_branch_at_test=false"),
    "correlation, sum": ("small/compfeat-correlation", "match.average_frame=false", "association.cues=false"),
    "objprop, released": ("small/objprop", "propagation.renorm=false", "propagation.norm_bias=1", "match_average=all"),
    "objprop, attention": ("small/objprop", "propagation.average=attention", "match.normalise_at_test=true"),
    "objprop, not at test": ("small/objprop", "propagation.at_test=false", "min_frames=2"),
    "objprop, per slot": ("small/objprop", "propagation.affinity.weight=per_slot"),
    "objprop, per class": ("small/objprop", "propagation.affinity.weight=per_class"),
    "mask, one for all classes": ("small/masktrack", "mask.class_agnostic=true", "mask.norm=true", "mask.margin=0.1"),
    "mask, crops": ("small/masktrack", CROPS),
    "match, cosine": ("small/masktrack", "match.cosine=0.1", "match.layers=3", "vote=score", "persistence=0.9"),
    "recall": ("small/masktrack", "recall={}", "recall.agreement=0", "association.birth=0.22"),
    "association, optimal": ("small/masktrack", "association.assignment=optimal", "association.shadow=0.5"),
    "association, repeated ids": ("small/masktrack", "association.unique_ids=false", "association.keep=1"),
    "resnet": ("small/masktrack", 'detector.backbone={"name": "resnet18", "frozen_stages": 1}'),
    "mask2former, old labels": ("small/mask2former", "legacy_labels=true", "top=5"),
    "mask2former, less memory": ("small/mask2former", "save_memory=true", "frames_at_a_time=2"),
    "swin": ("small/mask2former", 'backbone={"name": "swin_tiny_patch4_window7_224"}'),
    "ifr, same query": ("small/ifr", "decoder.layer.temporal_scope=same_query", "decoder.layer.ffn=clip"),
    "ifr, multiplied": ("small/ifr", "decoder.layer.mask_mode=multiplicative", "decoder.layer.recurrence=false"),
    "ifr, position": ("small/ifr", "decoder.layer.temporal_position=true", "decoder.layer.ffn=none"),
    "ifr, alone": ("small/ifr-without-cross-frame",),
    "tags, agnostic": ("tags/generated-paper", "tag_dim=2"),
    "tags, in a range": ("tags/generated-paper", "tag_range=sigmoid", "loss.gap=0.05", "clustering.reach=0.5"),
    "tags, without attention": (
        "tags/generated-paper",
        "spatio_temporal=null",
        "tag_attention=null",
        "self_attention=null",
    ),
    "tags, without location": ("tags/generated-paper", "loc_embed=false", "tag_link=false", "clustering.leftover=drop"),
    "tags, without decoder": ("tags/generated-paper", "decoder=null", "self_link=false", "tag_link=false"),
    "tags, without spectra": ("tags/generated-paper", "loss.spectra=false", "loss.tempra=false"),
    "tags, without specter": ("tags/generated-paper", "loss.specter=false", "loss.temper=false"),
}
TAG_RECIPES = ("small/tags", "tags/generated-paper")
MASK_TRANSFORMERS = ("small/mask2former", "small/ifr", "small/ifr-without-cross-frame")
CLIPS = {**dict.fromkeys(TAG_RECIPES, WHOLE), **dict.fromkeys(MASK_TRANSFORMERS, BOTH)}
OPENED = {**dict.fromkeys(TAG_RECIPES, TAGS), "ssdlite-start": ONE_STAGE, **dict.fromkeys(MASK_TRANSFORMERS, QUERIES)}

SEED = 7
FRAMES = 12
ITERATIONS = 12
TRAINING = ("batch_size=2", "log_every=1", "precision=fp32", "workers=0")
OVERLAPPING = tubelet.Window(length=5, stride=3)


def system(name: str) -> prints.Prints:
    """All of one of the nine systems."""
    recipe = f"small/{name}"
    key, opened = SYSTEMS[name]
    recorded = prints.under("built", learned(built(recipe), key))
    recorded |= prints.under("trained", trained(recipe, opened))
    model = tubelet.load("trained", device="cpu", precision="fp32")
    frames, _ = videos.video(SEED, FRAMES)
    recorded |= prints.under("steps", followed(model, frames))
    recorded |= prints.under("objects", predicted(model, frames))
    recorded |= prints.under("attention", attended(model, frames))
    return recorded | written("trained", frames, views=name in OF_QUERIES)


def default() -> prints.Prints:
    """The bundled model, and the three recipes behind it."""
    recorded = {}
    for recipe in DEFAULTS:
        recorded |= prints.under(recipe, learned(built(recipe), BOTH))
    model = tubelet.load("default", device="cpu", precision="fp32")
    demo = tubelet.open_video(prints.demo()).frames
    frames = torch.stack([demo[t] for t in range(FRAMES)])
    recorded |= prints.under("steps", followed(model, frames))
    recorded |= prints.under("objects", predicted(model, frames))
    recorded |= {f"parameters/{name}": prints.of_tensor(tensor) for name, tensor in model.state_dict().items()}

    half = tubelet.load("default", device="cpu", precision="bf16")
    return recorded | prints.under("bf16", followed(half, frames[:4]))


def ablations() -> prints.Prints:
    """One step and a few frames of each of ABLATIONS."""
    recorded = {}
    frames, _ = videos.video(SEED, 6)
    for name, (recipe, *fields) in ABLATIONS.items():
        opened = OPENED.get(recipe, RCNN)
        model = built(recipe, *fields, *opened)
        key = CLIPS.get(recipe, SUPPORTED if model.window.context else PAIR)
        recorded |= prints.under(name, step(model, key, 1, each=False))
        recorded |= prints.under(name, followed(model, frames))
    return recorded


def all_recipes() -> prints.Prints:
    """Every recipe as it is written out, and the names and shapes of its parameters."""
    recorded = {}
    for name in recipes.names():
        recipe = recipes.find(name)
        with torch.device("meta"):
            parameters = recipe.model.build(videos.CLASSES).state_dict()
        recorded[f"{name}/config"] = recipe.model_dump_json()
        recorded[f"{name}/parameters"] = str({key: list(tensor.shape) for key, tensor in parameters.items()})
    return recorded


def built(recipe: str, *fields: str) -> Any:
    """The model of a recipe with other fields, at its random start."""
    config = recipes.find(recipe).override(*(f"model.{field}" for field in fields))
    with prints.seeded(SEED):
        return config.model.build(videos.CLASSES)


def learned(model: nn.Module, key: tuple[bool, ...]) -> prints.Prints:
    """Parameters and buffers at the start, and two steps."""
    recorded = {f"parameters/{name}": prints.of_tensor(tensor) for name, tensor in model.state_dict().items()}
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    recorded["trainable"] = str(trainable)
    for number in (1, 2):
        recorded |= prints.under(f"step {number}", step(model, key, number, each=True))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    return recorded


def step(model: nn.Module, key: tuple[bool, ...], number: int, *, each: bool) -> prints.Prints:
    """Losses and gradients of two clips, a hash for each gradient or one for all."""
    model.train()
    model.zero_grad()
    with prints.seeded(number):
        losses = model([videos.clip(2 * number, key), videos.clip(2 * number + 1, key)])
        torch.stack(list(losses.values())).sum().backward()
    recorded = {f"loss/{name}": prints.of_scalar(loss) for name, loss in losses.items()}
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if each:
        return recorded | {f"gradient/{name}": prints.of_tensor(gradient) for name, gradient in gradients.items()}
    every = torch.cat([gradient.flatten() for gradient in gradients.values()])
    return recorded | {"gradients": prints.of_tensor(every)}


def trained(recipe: str, opened: tuple[str, ...]) -> prints.Prints:
    """A short training by the command, in the folder `trained`."""
    fields = [f"train.{field}" for field in TRAINING] + [f"model.{field}" for field in opened]
    prints.answer(
        "train",
        recipe,
        "data.videos=6",
        f"train.iterations={ITERATIONS}",
        *fields,
        "--device",
        "cpu",
        "--out",
        "trained",
    )
    return prints.of_run(Path("trained"))


def followed(model: Any, frames: Tensor) -> prints.Prints:
    """What the model's own steps give, window after window, dense."""
    model.eval()
    recorded = {}
    state = model.start()
    for number, clip in enumerate(windows(model, frames)):
        with torch.inference_mode():
            state, tracks = model.step(state, clip)
        recorded |= prints.under(f"window {number:02d}", of_tracks(tracks))
    return recorded


def windows(model: Any, frames: Tensor) -> list[Clip]:
    """Frames one by one, with the context that the model wants; or two clips that overlap."""
    if model.window.length != 1:
        half = len(frames) // 2
        return [window(frames, range(half + 1)), window(frames, range(half - 1, len(frames)))]
    context = [n * len(frames) // model.window.context for n in range(model.window.context)]
    return [window(frames, [t], context) for t in range(len(frames))]


def window(frames: Tensor, predicted: Any, context: Any = ()) -> Clip:
    """A clip of context frames and frames to predict."""
    index = torch.tensor([*context, *predicted])
    key = torch.tensor([False] * len(context) + [True] * len(predicted))
    return Clip(frames=frames[index], index=index, key=key)


def of_tracks(tracks: Tracks) -> prints.Prints:
    """Each tensor, and the number of objects with a pixel."""
    return {
        "objects": f"{len(tracks)}, {int(tracks.present.any(1).sum())} with a mask",
        "ids": str(tracks.ids.tolist()),
        "scores": prints.of_tensor(tracks.scores),
        "masks": prints.of_tensor(tracks.masks),
        "index": str(tracks.index.tolist()),
    }


def predicted(model: Any, frames: Tensor) -> prints.Prints:
    """What `tubelet.predict` gives: in the model's own windows, in overlapping ones, and as benchmarks take it."""
    ways = {
        "own window": tubelet.predict(model, frames, threshold=0.0),
        "overlapping": tubelet.predict(model, frames, threshold=0.0, window=OVERLAPPING),
        "top": tubelet.predict(model, frames, top=8),
    }
    recorded = {}
    for way, prediction in ways.items():
        lines = [f"{track.id} {track.label} {track.score!r} {tuple(track.rles)!r}" for track in prediction.tracks]
        recorded[f"{way}/objects"] = str(len(prediction.tracks))
        recorded |= {f"{way}/track {n:02d}": prints.of_text(line) for n, line in enumerate(lines)}
        assert prediction.tracks, f"{way}: no objects, so nothing is compared"

    shown = list(tubelet.stream(model, frames, threshold=0.0, window=OVERLAPPING))
    for frame in shown:
        masks = prints.of_tensor(frame.masks)
        recorded[f"stream/frame {frame.index:02d}"] = f"{frame.ids.tolist()} {frame.scores.tolist()} {masks}"
    return recorded


def attended(model: Any, frames: Tensor) -> prints.Prints:
    """Where attention looks from the middle of a frame."""
    attend: Callable[..., Any] | None = next((getattr(model, n) for n in prints.ATTEND if hasattr(model, n)), None)
    if attend is None:
        return {}
    state = model.start()
    for clip in windows(model, frames):
        with torch.inference_mode():
            if FRAMES // 2 in clip.index[clip.key].tolist():
                glances = attend(state, clip, FRAMES // 2, (videos.WIDTH / 3, videos.HEIGHT / 3))
                break
            state, _ = model.step(state, clip)
    return {f"{n} {g.name}, frame {g.frame}": prints.of_tensor(g.values) for n, g in enumerate(glances)}


def written(model: str, frames: Tensor, *, views: bool) -> prints.Prints:
    """What commands write for a model: predictions, classes of pixels, attention, and the exported network's answer."""
    videos.write_frames(frames, Path("video"))
    options = ("--model", model, "--device", "cpu")
    recorded = {"predict": prints.answer("predict", "video", *options, "--threshold", 0, "--semantic", "--out", "out")}
    recorded |= prints.under("predict", prints.of_folder(Path("out")))
    if views:
        videos.write_frames(frames[:2], Path("short"))
        prints.answer("predict", "short", *options, "--threshold", 0, "--no-video", "--views", 2, "--out", "views")
        recorded |= prints.under("views", prints.of_folder(Path("views")))

    said = prints.command("attend", "video", *options, "--at", "50,30", "--frame", 5, "--out", "attend")
    recorded["attend"] = prints.of_said(said)
    if said.code == 0:
        recorded |= prints.under("attend", prints.of_folder(Path("attend")))

    said = prints.command("export", model, "--out", "network.pt2", "--size", "96x160", "--frames", 2)
    recorded["export"] = prints.of_said(said)
    if said.code == 0:
        recorded |= prints.under("exported", prints.of_exported(Path("network.pt2"), frames))
    return recorded


PARTS: dict[str, Callable[[], prints.Prints]] = {
    **{name: functools.partial(system, name) for name in SYSTEMS},
    "default": default,
    "ablations": ablations,
    "recipes": all_recipes,
}
