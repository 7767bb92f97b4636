"""Class lists of the data sets, and maps from the classes of one set to those of another.

`translate(videos, classes, names)` renames the classes of a set. Objects whose class has no
counterpart are ignored, not background: they may belong to a class of the target list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tubelet.core.errors import ConfigError, nearest
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats.lazy import MappedVideos
from tubelet.formats.ytvis.numbering import AnnotatedSet

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

YTVIS_2019 = (
    "person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake", "monkey", "hand",
    "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear", "motorbike", "giraffe", "leopard",
    "fox", "deer", "owl", "surfboard", "airplane", "truck", "zebra", "tiger", "elephant", "snowboard", "boat", "shark",
    "mouse", "frog", "eagle", "earless_seal", "tennis_racket",
)  # fmt: skip

YTVIS_2021 = (  # also of the 2022 edition
    "airplane", "bear", "bird", "boat", "car", "cat", "cow", "deer", "dog", "duck", "earless_seal", "elephant", "fish",
    "flying_disc", "fox", "frog", "giant_panda", "giraffe", "horse", "leopard", "lizard", "monkey", "motorbike",
    "mouse", "parrot", "person", "rabbit", "shark", "skateboard", "snake", "snowboard", "squirrel", "surfboard",
    "tennis_racket", "tiger", "train", "truck", "turtle", "whale", "zebra",
)  # fmt: skip

OVIS = (  # the last one is spelt so in the files
    "Person", "Bird", "Cat", "Dog", "Horse", "Sheep", "Cow", "Elephant", "Bear", "Zebra", "Giraffe", "Poultry",
    "Giant_panda", "Lizard", "Parrot", "Monkey", "Rabbit", "Tiger", "Fish", "Turtle", "Bicycle", "Motorcycle",
    "Airplane", "Boat", "Vehical",
)  # fmt: skip

VOC = (  # ids 1 to 20
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

DAVIS = ("object",)
MOTS = ("car", "pedestrian")  # class ids 1 and 2

CLASS_LISTS: dict[str, tuple[str, ...]] = {
    "coco": COCO,
    "ytvis2019": YTVIS_2019,
    "ytvis2021": YTVIS_2021,
    "ytvis2022": YTVIS_2021,
    "ovis": OVIS,
    "voc": VOC,
    "davis": DAVIS,
    "mots": MOTS,
}

# CompFeat section 5. COCO's mouse is a computer's, and its bird may be a parrot, duck, owl or eagle: neither is mapped.
COCO_TO_YTVIS_2019: dict[str, str] = {
    "person": "person",
    "skateboard": "skateboard",
    "car": "sedan",
    "dog": "dog",
    "cat": "cat",
    "cow": "cow",
    "train": "train",
    "horse": "horse",
    "bear": "bear",
    "motorcycle": "motorbike",
    "giraffe": "giraffe",
    "surfboard": "surfboard",
    "airplane": "airplane",
    "truck": "truck",
    "zebra": "zebra",
    "elephant": "elephant",
    "snowboard": "snowboard",
    "boat": "boat",
    "tennis racket": "tennis_racket",
}

# The 2021 edition made car of sedan, merged eagle and owl into bird and ape into monkey, and dropped hand.
YTVIS_2019_TO_2021: dict[str, str] = {
    **{name: name for name in YTVIS_2019 if name in YTVIS_2021},
    "sedan": "car",
    "eagle": "bird",
    "owl": "bird",
    "ape": "monkey",
}

# As for 2019; a bird of COCO may be a parrot or duck here too.
COCO_TO_YTVIS_2021: dict[str, str] = {
    **{old: YTVIS_2019_TO_2021[new] for old, new in COCO_TO_YTVIS_2019.items()},
    "frisbee": "flying_disc",
}

_TO_OVIS: dict[str, str] = {name.lower(): name for name in OVIS[:-1]} | {
    "car": "Vehical",
    "sedan": "Vehical",
    "truck": "Vehical",
    "bus": "Vehical",
    "motorbike": "Motorcycle",
    "duck": "Poultry",
}

YTVIS_2019_TO_OVIS: dict[str, str] = {name: _TO_OVIS[name] for name in YTVIS_2019 if name in _TO_OVIS}
YTVIS_2021_TO_OVIS: dict[str, str] = {name: _TO_OVIS[name] for name in YTVIS_2021 if name in _TO_OVIS}
# COCO's bird is OVIS's bird, parrot or poultry
COCO_TO_OVIS: dict[str, str] = {name: _TO_OVIS[name] for name in COCO if name in _TO_OVIS and name != "bird"}

MAPS: dict[tuple[str, str], dict[str, str]] = {
    ("coco", "ytvis2019"): COCO_TO_YTVIS_2019,
    ("coco", "ytvis2021"): COCO_TO_YTVIS_2021,
    ("coco", "ovis"): COCO_TO_OVIS,
    ("ytvis2019", "ytvis2021"): YTVIS_2019_TO_2021,
    ("ytvis2019", "ovis"): YTVIS_2019_TO_OVIS,
    ("ytvis2021", "ovis"): YTVIS_2021_TO_OVIS,
}


def class_map(source: str, target: str) -> dict[str, str]:
    """Return the map from one list of CLASS_LISTS to another; ConfigError if there is none.

    Example:
        >>> from tubelet.formats.classes import class_map
        >>> class_map("coco", "ytvis2019")["car"]
        'sedan'
    """
    for name in (source, target):
        if name not in CLASS_LISTS:
            raise ConfigError(f"no class list {name!r}; {nearest(name, CLASS_LISTS)}")

    if CLASS_LISTS[source] == CLASS_LISTS[target]:
        return {name: name for name in CLASS_LISTS[source]}
    if (source, target) not in MAPS:
        known = ", ".join(f"{a} to {b}" for a, b in MAPS)
        raise ConfigError(f"no map of classes from {source} to {target}; known: {known}")
    return MAPS[source, target]


def translate(videos: VideoSet, classes: tuple[str, ...], names: Mapping[str, str]) -> VideoSet:
    """Rename the classes of a set; objects of classes that are not in `names` are ignored.

    Args:
        videos: The set; its videos are changed when they are used.
        classes: The new class list.
        names: Old class name -> new class name. Raises ConfigError if a new name is not in
            `classes`.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats.classes import translate
        >>> tracks = tuple(tubelet.Track(id=n, label=n, score=1.0, rles=(None,)) for n in (0, 1))
        >>> video = tubelet.Video(id="street", size=(4, 6), frames=[None], tracks=tracks)
        >>> videos = VideoSet(videos=[video], classes=("car", "cup"))
        >>> translate(videos, ("dog", "sedan"), {"car": "sedan"}).videos[0].tracks[0]
        Track(id=0, label=1, score=1, frames=0 of 1)
    """
    for name in names.values():
        if name not in classes:
            raise ConfigError(f"no class {name!r} in the target list; {nearest(name, classes)}")

    labels = [classes.index(names[old]) if old in names else None for old in videos.classes]

    def translate_track(track: Track) -> Track:
        label = labels[track.label]
        if label is None:
            return replace(track, label=0, ignore=True)
        return replace(track, label=label)

    def translate_video(video: Video) -> Video:
        if video.tracks is None:
            return video
        return replace(video, tracks=tuple(translate_track(track) for track in video.tracks))

    translated = MappedVideos(videos.videos, translate_video)
    if isinstance(videos, AnnotatedSet):  # the names of its videos stay
        return replace(videos, videos=translated, classes=classes, category_ids=tuple(range(1, len(classes) + 1)))
    return VideoSet(videos=translated, classes=classes)
