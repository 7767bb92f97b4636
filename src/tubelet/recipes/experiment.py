"""What a recipe is: a model, its data, how clips are drawn and changed, how it learns, and the paper's figures."""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from tubelet.core.atomic import check_folder
from tubelet.core.config import Config, at_default
from tubelet.core.errors import ConfigError, FormatError, TubeletError
from tubelet.core.protocol import Window
from tubelet.core.types import VideoSet
from tubelet.core.untrusted.documents import read_json
from tubelet.data.clips import ClipDataset, require_objects
from tubelet.data.sampling import AnySampler, RandomPair, valid_frames
from tubelet.data.transforms import AnyTransform
from tubelet.formats import coco, registry, ytvis
from tubelet.formats.classes import class_map, translate
from tubelet.formats.lazy import JoinedVideos
from tubelet.models.videomt.model import VidEoMTConfig
from tubelet.models.weights import ModelConfig
from tubelet.recipes.card import write_card
from tubelet.recipes.starting import Parts, start
from tubelet.recipes.validation import ValidationConfig, VideoValidation, check, hold_out, with_classes_of
from tubelet.synthetic import generator
from tubelet.synthetic.config import Synthetic
from tubelet.training import checkpoint
from tubelet.training.loop import CHECKPOINTS, TrainConfig, TrainingOutcome, train
from tubelet.training.optim import OptimConfig

FEW_FRAMES = 10  # with an object

logger = logging.getLogger("tubelet.training")


class _Data(Config, ABC):
    """Base of the data sets: videos to train on, and how to get others to validate on."""

    validation: str | None = None  # a data set to validate on while training, in any known form
    hold_out: float = Field(default=0.0, ge=0, lt=1)  # or this share of the videos, which are then not trained on

    @abstractmethod
    def read(self) -> VideoSet:
        """All videos."""

    def read_both(self, seed: int) -> tuple[VideoSet, VideoSet | None]:
        """The videos to train on, and those to validate on, if any, with the same classes."""
        return self._separate(self.read(), seed)

    def _separate(self, videos: VideoSet, seed: int) -> tuple[VideoSet, VideoSet | None]:
        if self.validation is not None and self.hold_out:
            raise ConfigError("expected data.validation or data.hold_out, got both")
        if self.hold_out:
            return hold_out(videos, self.hold_out, seed)
        if self.validation is None:
            return videos, None
        others = registry.open_set(self.validation)
        return videos, with_classes_of(others, videos.classes, self.validation)


class YouTubeVIS(_Data):
    """Videos in YouTube-VIS form: the 2019, 2021, 2022 sets, OVIS, and one's own."""

    kind: Literal["ytvis"] = "ytvis"
    annotations: str | None = None  # the JSON
    frames: str | None = None  # the folder of frames; JPEGImages beside the JSON where not given
    any_form: bool = False  # any other form that `tubelet data convert` reads will do too, of videos or of images

    def read(self) -> VideoSet:
        what = "a data set in any known form" if self.any_form else "a YouTube-VIS JSON"
        path = _given(self.annotations, "data.annotations", what)
        if self.any_form:
            return registry.open_set(path, frames=self.frames)
        if _holds_images(Path(path)):
            raise FormatError(f"{path}: expected videos, found COCO images; the recipe finetune takes them")
        return ytvis.read(path, Path(self.frames) if self.frames else None)


class AnyForm(_Data):
    """Videos in any form that `tubelet data convert` reads; the form is found out where it is not named."""

    kind: Literal["videos"] = "videos"
    path: str | None = None
    form: str | None = None

    def read(self) -> VideoSet:
        return registry.open_set(_given(self.path, "data.path", "a data set in any known form"), self.form)


class COCO(_Data):
    """Annotated images, each the start of a pseudo-video."""

    kind: Literal["coco"] = "coco"
    annotations: str | None = None  # the JSON
    images: str | None = None  # the folder of images; `images` beside the JSON where not given
    split: str | None = None  # a JSON of lists of image ids by name
    part: str = "train"  # which of its lists

    def read(self) -> VideoSet:
        path = _given(self.annotations, "data.annotations", "a COCO instances JSON")
        return coco.read(path, self.images, keep=self._keep())

    def _keep(self) -> set[int] | None:
        if self.split is None:
            return None
        lists = read_json(Path(self.split))
        if not isinstance(lists, dict) or self.part not in lists:
            raise ConfigError(f"{self.split}: expected an object with a list named {self.part!r}")
        ids = lists[self.part]
        if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
            raise ConfigError(f"{self.split}: expected {self.part!r} to be a list of image ids")
        return set(ids)


class Generated(_Data):
    """Procedural videos: nothing to download."""

    kind: Literal["generated"] = "generated"
    videos: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0)
    world: Synthetic = Synthetic()

    def read(self) -> VideoSet:
        return generator.generate(self.world, self.seed, self.videos)


class WithImages(_Data):
    """Videos, and COCO images as further one-frame videos, their classes renamed into the videos' (CompFeat).

    Objects of classes that the videos do not know are ignored: they may hide what the videos do know.
    """

    kind: Literal["with_images"] = "with_images"
    videos: YouTubeVIS = YouTubeVIS()
    images: COCO = COCO()
    classes: str = "ytvis2019"  # the list of formats/classes.py that the videos' classes are

    def read(self) -> VideoSet:
        return self._with_images(self.videos.read())

    def read_both(self, seed: int) -> tuple[VideoSet, VideoSet | None]:
        """Only videos are held out, no images."""
        videos, validation = self._separate(self.videos.read(), seed)
        return self._with_images(videos), validation

    def _with_images(self, videos: VideoSet) -> VideoSet:
        images = translate(self.images.read(), videos.classes, class_map("coco", self.classes))
        return VideoSet(videos=JoinedVideos(videos.videos, images.videos), classes=videos.classes)


class Evaluation(Config):
    """One more way in which a trained row is tested, beside the model's own, and the paper's figures for it."""

    window: Window | None = None  # None: the model's own
    views: int | None = Field(default=None, ge=1)  # test-time augmentation over so many sizes
    top: int | None = Field(default=None, ge=1)  # so many best (object, class) pairs a video; None: one class an object
    paper: dict[str, float] = Field(default_factory=dict)


class Experiment(Config):
    """One row of one table: everything that `tubelet train NAME` needs but the place of the data."""

    about: str
    model: ModelConfig
    data: Annotated[YouTubeVIS | AnyForm | COCO | WithImages | Generated, Field(discriminator="kind")] = YouTubeVIS()
    sampler: AnySampler = RandomPair()
    per: Literal["video", "frame"] = "video"  # what an epoch visits once
    transforms: tuple[AnyTransform, ...] = ()
    # pretrained weights to start from: a file, a name (models/weights/pretrained.py), or "none"; null must be replaced
    init: str | None = None
    init_recipe: str | None = None  # where `init` is null: the recipe whose run is to be named
    init_needs: str = ""  # or what else is to be named, in words
    init_parts: Parts = "all"  # backbone: take the trunk alone, from any model with the same one
    init_partial: bool = False  # accept weights that fill less than half of the model's tensors
    optim: OptimConfig
    train: TrainConfig
    validation: ValidationConfig = ValidationConfig()  # of data.validation or data.hold_out, where either is given
    paper: dict[str, float] = Field(default_factory=dict)  # the published figures of this row, in percent
    evaluations: dict[str, Evaluation] = Field(default_factory=dict)  # other ways of testing it, by name

    def run(
        self,
        out: Path,
        *,
        resume: bool = False,
        device: str = "auto",
        quiet: bool = False,
        name: str | None = None,
        watch: Callable[[int, int], bool] | None = None,
    ) -> TrainingOutcome:
        """Train into the folder `out`; at the end it holds model.safetensors and a model card, README.md.

        Beside them are checkpoints/, metrics.jsonl, curve.png and, with videos to validate on,
        best.safetensors and validation/. `resume` goes on from what is there, if anything. `quiet`
        shows no progress. `name` is the recipe's, for the model's metadata. `watch` is called after
        each step, as `training.loop.train` says.

        Raises InputError if `out` cannot be written, or if no video has an object to learn from.
        """
        check_folder(out)
        videos, others = self.data.read_both(self.train.seed)
        require_objects(videos)
        if others is not None:
            check(videos, others, self.data.validation or "data.hold_out")
        elif self.train.patience is not None:
            raise ConfigError("train.patience needs videos to validate on: expected data.validation or data.hold_out")

        clips = ClipDataset(videos, self.sampler, self.transforms, self.train.seed, per=self.per, keep_ignored=True)
        torch.manual_seed(self.train.seed)
        model = self._with_its_length().build(videos.classes)
        if not (resume and checkpoint.saved(out / CHECKPOINTS)):
            self._start(model)
        _warn_of_few(videos)
        outcome = train(
            model,
            clips,
            self.train,
            self.optim,
            out,
            resume=resume,
            device=device,
            describe={
                "config": self.model.model_dump_json(),
                "classes": json.dumps(videos.classes),
                "recipe": self.model_dump_json(include={"sampler", "transforms"}),
                **({} if name is None else {"recipe_name": json.dumps(name)}),
            },
            defaults={f"config.{name}" for name in at_default(self.model)}
            | {f"recipe.{name}" for name in at_default(self)},
            validation=None if others is None else VideoValidation(others, self.validation, out),
            quiet=quiet,
            watch=watch,
        )
        if outcome.finished and os.environ.get("RANK", "0") == "0":  # torchrun starts several processes
            write_card(out, self.model_dump(mode="json"), videos, others)
        return outcome

    def _with_its_length(self) -> ModelConfig:
        """The model's config; what is annealed through the training is told how long that is."""
        if not isinstance(self.model, VidEoMTConfig) or self.model.masking.batches is not None:
            return self.model
        batches = self.train.iterations * self.train.accumulate
        return self.model.but(masking=self.model.masking.but(batches=batches))

    def _start(self, model: nn.Module) -> None:
        needs = self.init_needs
        if self.init_recipe is not None:
            needs = f"a run of {self.init_recipe} (tubelet train {self.init_recipe} ... --out PATH)"
        start(model, self.init, needs, parts=self.init_parts, partial=self.init_partial)


def _warn_of_few(videos: VideoSet) -> None:
    count = 0
    for video in videos.videos:
        count += len(valid_frames(video))
        if count >= FEW_FRAMES:
            return
    logger.warning(
        "only %d of the frames to learn from have an object: a model forgets more than it learns from these; label %d "
        "or more, and hold some out (data.hold_out, data.validation) to see which it is",
        count,
        FEW_FRAMES,
    )


def _holds_images(path: Path) -> bool:
    with suppress(TubeletError):  # who reads it in full says what is wrong with it
        return path.suffix.lower() == ".json" and registry.detect(path) == "coco"
    return False


def _given(value: str | None, field: str, what: str) -> str:
    if value is None:
        raise ConfigError(f"this recipe needs {field}=PATH, {what}")
    return value
