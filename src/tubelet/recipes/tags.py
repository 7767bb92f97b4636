"""The tag-based system: the paper's two models, every row of Table III, and what works on few videos.

tubelet train tags/davis data.path=DAVIS init=torchvision/r2plus1d_18 --out runs/tags
tubelet train tags/table3/without-spectra data.path=DAVIS --out runs/without-spectra
tubelet train tags/davis-trunk data.path=DAVIS --out runs/davis
tubelet train tags/generated --out runs/first

Recipes named after a data set alone, and Table III, are the paper's to the letter. Those named
`-trunk`, and `tags/generated`, have a pretrained image network and our switches
(docs/papers/tags.md).
"""

from __future__ import annotations

from collections.abc import Callable

from tubelet.attention.tags import FrameReadingConfig, SelfReadingConfig
from tubelet.core.protocol import Window
from tubelet.data.geometry import Geometry, HorizontalFlip, RandomCrop
from tubelet.data.sampling import DroppedClip
from tubelet.data.transforms import ColourJitter, TemporalFlip
from tubelet.models.backbones import BackboneConfig
from tubelet.models.tags.clustering import ClusteringConfig
from tubelet.models.tags.encoder import EncoderConfig
from tubelet.models.tags.heads import DecoderConfig
from tubelet.models.tags.losses import TagLossConfig
from tubelet.models.tags.model import TagConfig
from tubelet.models.tags.trunk import TrunkConfig
from tubelet.recipes.experiment import AnyForm, Evaluation, Experiment, Generated, YouTubeVIS
from tubelet.synthetic.config import Synthetic
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Cosine, Steps

_EPOCHS = 100
_BATCH = 4


def _adam(videos: int) -> AdamW:
    """Adam at 1e-4, a tenth of it from epoch 70 on and a hundredth from 90."""
    per_epoch = videos / _BATCH
    steps = Steps(at=(round(70 * per_epoch), round(90 * per_epoch)))
    return AdamW(lr=1e-4, weight_decay=0.0, warmup=0, schedule=steps)


def _training(videos: int) -> TrainConfig:
    return TrainConfig(iterations=_EPOCHS * videos // _BATCH, batch_size=_BATCH, workers=4)


_AUGMENTATION = (Geometry(steps=(RandomCrop(), HorizontalFlip())), TemporalFlip())

# beside the paper's one clip per video: every frame, in overlapping clips that are linked by their masks
_EVALUATIONS = {"overlapping": Evaluation(window=Window(length=32, stride=16))}

YTVIS2019 = Experiment(
    about="tag-based system, R(2+1)D of Kinetics, on YouTube-VIS 2019",
    model=TagConfig(clustering=ClusteringConfig(most=10)),
    data=YouTubeVIS(),
    sampler=DroppedClip(),
    transforms=_AUGMENTATION,
    init="torchvision/r2plus1d_18",
    optim=_adam(2238),
    train=_training(2238),
    paper={"AP": 51.2, "AP50": 74.8, "AP75": 57.9, "AR1": 46.3, "AR10": 57.6},
    evaluations=_EVALUATIONS,
)

DAVIS = Experiment(
    about="tag-based system, class-agnostic, on DAVIS 2019 unsupervised",
    model=TagConfig(agnostic=True),
    data=AnyForm(form="davis"),
    sampler=DroppedClip(),
    transforms=_AUGMENTATION,
    init="torchvision/r2plus1d_18",
    optim=_adam(60),
    train=_training(60),
    paper={"J&F": 74.3, "J": 72.2, "F": 76.4},
    evaluations=_EVALUATIONS,
)

Change = Callable[[TagConfig], TagConfig]


def _without_loss(term: str) -> Change:
    return lambda model: model.but(loss=model.loss.but(**{term: False}))


def _without(**parts: object) -> Change:
    return lambda model: model.but(**parts)


# what each row of Table III removes; "and connector": the decoder does not read that attention's output either
ROWS: dict[str, Change] = {
    "without-spectra": _without_loss("spectra"),
    "without-specter": _without_loss("specter"),
    "without-tempra": _without_loss("tempra"),
    "without-temper": _without_loss("temper"),
    "without-spatio-temporal-attention": _without(spatio_temporal=None),
    "without-tag-attention": _without(tag_attention=None),
    "without-self-attention": _without(self_attention=None),
    "without-location-embedding": _without(loc_embed=False),
    "without-tag-attention-and-connector": _without(tag_attention=None, tag_link=False),
    "without-self-attention-and-connector": _without(self_attention=None, self_link=False),
    "without-both-decoder-and-connectors": _without(
        tag_attention=None,
        self_attention=None,
        tag_link=False,
        self_link=False,
        decoder=None,
    ),
}

_PAPER = {  # J&F, J, F on DAVIS, validation
    "without-spectra": (67.2, 64.4, 70.0),
    "without-specter": (67.5, 65.2, 69.8),
    "without-tempra": (65.8, 63.3, 68.2),
    "without-temper": (66.3, 63.9, 68.7),
    "without-spatio-temporal-attention": (67.9, 65.4, 70.3),
    "without-tag-attention": (65.9, 63.5, 68.3),
    "without-self-attention": (70.3, 68.9, 71.6),
    "without-location-embedding": (70.8, 69.8, 71.7),
    "without-tag-attention-and-connector": (64.1, 62.6, 65.5),
    "without-self-attention-and-connector": (67.4, 65.0, 69.7),
    "without-both-decoder-and-connectors": (61.6, 60.1, 63.0),
}


def row(full: Experiment, name: str) -> Experiment:
    """A row of Table III for any experiment with tags: the same, without what the row removes.

    Example:
        >>> from tubelet.recipes.tags import DAVIS, row
        >>> row(DAVIS, "without-location-embedding").model.loc_embed
        False
    """
    assert isinstance(full.model, TagConfig), "Table III is about tags"
    about = f"Table III: {name.replace('-', ' ')}"
    return full.but(about=about, model=ROWS[name](full.model), paper={})


def _table3() -> dict[str, Experiment]:
    rows = {}
    for name, figures in _PAPER.items():
        paper = dict(zip(("J&F", "J", "F"), figures, strict=True))
        rows[f"tags/table3/{name}"] = row(DAVIS, name).but(paper=paper)
    return rows


# frames of 112 without the pool after the stem, the geometry of the encoder's pretraining: tags of the same size at
# half the cost in the stem
_ENCODER_AT_112 = EncoderConfig(pool=False)

# from a random start, so nothing is frozen; small enough for one CPU core
SMALL = TagConfig(
    agnostic=True,
    input_size=(64, 112),
    encoder=EncoderConfig(width=16, blocks=(1, 1, 1), pool=False, frozen_norm=False),
    norm="clip",
    spatio_temporal=FrameReadingConfig(keys=32),
    tag_attention=FrameReadingConfig(keys=32),
    self_attention=SelfReadingConfig(keys=16),
    channels=64,
    bottleneck=96,
    generator=32,
    tag_features=32,
    decoder=DecoderConfig(widths=(64, 32, 16)),
    loss=TagLossConfig(reduction="mean"),  # sums over pairs and frames would drown the semantic branch for long
    window=Window(length=8, spread=True),
)

PAPER_GENERATED = Experiment(
    about="a small network of the paper's shape on generated videos, from a random start, without classes",
    model=SMALL,
    data=Generated(videos=60, seed=100, world=Synthetic(height=96, width=160, frames=12, objects=(2, 3))),
    sampler=DroppedClip(frames=8, drop=(1, 2), stride=(1, 1)),
    transforms=(Geometry(steps=(HorizontalFlip(),)), TemporalFlip()),
    init="none",
    optim=AdamW(lr=3e-3, weight_decay=0.0, warmup=20, schedule=Cosine()),
    train=TrainConfig(iterations=400, batch_size=1, clip_norm=10.0, checkpoint_every=200, log_every=50),
)

# the paper's parts and losses around a pretrained image network, with our switches: what works on few videos, and
# predicts more than 100 small frames a second on one core
TRUNK = TagConfig(
    input_size=(96, 160),
    encoder=TrunkConfig(
        backbone=BackboneConfig(name="mobilenetv2_100", frozen_stages=4, pad_type="same"),
        widths=(16, 16, 32, 64),
    ),
    spatio_temporal=FrameReadingConfig(keys=16),
    tag_attention=FrameReadingConfig(keys=16),
    self_attention=SelfReadingConfig(keys=16),
    channels=64,
    bottleneck=96,
    bottleneck_skip=True,
    tag_features=16,
    upsampling="resize",
    finer_maps=True,
    decoder=DecoderConfig(widths=(48, 32, 16)),
    tag_decoder=DecoderConfig(widths=(48, 32, 16)),
    norm="clip",
    tag_dim=4,
    tag_places=20.0,
    loss=TagLossConfig(reduction="mean", weight=0.4),
    clustering=ClusteringConfig(least=0.08, smooth=0.2, most=10),
    window=Window(length=7, stride=5),
)
# at one clip a batch, with a trunk that learns slowly
TRUNK_OPTIM = AdamW(
    lr=2e-3,
    weight_decay=0.01,
    warmup=50,
    schedule=Cosine(),
    parts={"network.encoder.backbone": 0.1},
)
TRUNK_CLIPS = DroppedClip(frames=6, drop=(0, 1), stride=(1, 1))

GENERATED = PAPER_GENERATED.but(
    about="a small tag-based system on generated videos: nothing to download, minutes on one core",
    model=TRUNK,
    sampler=TRUNK_CLIPS,
    init="ssdlite",
    optim=TRUNK_OPTIM,
    train=PAPER_GENERATED.train.but(iterations=1200),
)

_DAVIS_SIZE = (128, 224)
DAVIS_TRUNK = Experiment(
    about="tag-based system with a pretrained trunk, class-agnostic, on DAVIS",
    model=TRUNK.but(agnostic=True, input_size=_DAVIS_SIZE, clustering=TRUNK.clustering.but(most=20)),
    data=AnyForm(form="davis"),
    sampler=TRUNK_CLIPS.but(drop=(1, 3), stride=(1, 3)),
    transforms=(Geometry(steps=(RandomCrop(), HorizontalFlip())), ColourJitter(), TemporalFlip()),
    init="ssdlite",
    optim=TRUNK_OPTIM,
    train=TrainConfig(iterations=2000, batch_size=1, clip_norm=10.0, checkpoint_every=500, log_every=50),
)
YTVIS_TRUNK = DAVIS_TRUNK.but(
    about="tag-based system with a pretrained trunk on YouTube-VIS 2019",
    model=TRUNK.but(input_size=(192, 320)),
    data=YouTubeVIS(),
    train=TrainConfig(iterations=30_000, batch_size=4, clip_norm=10.0, workers=4),
)

RECIPES = {
    "tags/ytvis2019": YTVIS2019,
    "tags/ytvis2019-112": YTVIS2019.but(
        about="tag-based system at 112 x 112, on YouTube-VIS 2019",
        model=YTVIS2019.model.but(input_size=(112, 112), encoder=_ENCODER_AT_112),
        paper={},
    ),
    "tags/davis": DAVIS,
    "tags/davis-112": DAVIS.but(
        about="tag-based system at 112 x 112, class-agnostic, on DAVIS",
        model=DAVIS.model.but(input_size=(112, 112), encoder=_ENCODER_AT_112),
        paper={},
    ),
    **_table3(),
    "tags/ytvis2019-trunk": YTVIS_TRUNK,
    "tags/davis-trunk": DAVIS_TRUNK,
    "tags/generated": GENERATED,
    "tags/generated-paper": PAPER_GENERATED,
}
