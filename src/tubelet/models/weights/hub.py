"""Published models on the hub of Hugging Face, which can be loaded by name.

Sources: the model zoo of github.com/facebookresearch/Mask2Former, that of github.com/tue-mps/videomt, and the models'
pages on the hub. Accuracy is as published there, not measured here. Only listed models are fetched, only their
config.json and safetensors (and the settings of their pictures), and only when a name is loaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from tubelet.core.errors import WeightsError

Kind = Literal["mask2former", "videomt", "segmenter"]

FILES = ("config.json", "model.safetensors")
PICTURES = "preprocessor_config.json"  # sizes and thresholds of an image segmenter
CONVERTING = "docs/published-weights.md tells how to convert its pickle"
STALL = 60.0  # seconds without a byte after which a download is given up
_AUTHORS = "CC BY-NC 4.0 (the authors' model zoo"
_TUE = "MIT (the authors' code; DINOv2: Apache-2.0)"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Published:
    """A model on the hub.

    Example:
        >>> from tubelet.models.weights import hub
        >>> model = hub.PUBLISHED[0]
        >>> model.name, model.ap, model.measured_on, model.commercial
        ('facebook/mask2former-swin-tiny-coco-instance', 45.0, 'COCO', False)
    """

    name: str
    megabytes: float
    classes: int
    ap: float  # published, in percent
    measured_on: str
    licence: str
    revision: str | None = "main"  # that has safetensors; None if the hub only has a pickle
    kind: Kind = "mask2former"
    commercial: bool = False  # whether the licence allows commercial use
    cpu: bool = False  # whether it is of any use without a GPU

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it consists of."""
        return (*FILES, PICTURES) if self.kind == "segmenter" else FILES


def _image(size: str, megabytes: float, ap: float, revision: str = "main") -> Published:
    name = f"facebook/mask2former-swin-{size}-coco-instance"
    return Published(name, megabytes, 80, ap, "COCO", f"{_AUTHORS}; hub: other)", revision)


def _video(size: str, year: int, megabytes: float, ap: float, revision: str | None = None) -> Published:
    name = f"shivalikasingh/video-mask2former-swin-{size}-youtubevis-{year}-instance"
    return Published(name, megabytes, 40, ap, f"YouTube-VIS {year}", f"{_AUTHORS}; hub: MIT)", revision)


def _videomt(size: str, data: str, megabytes: float, ap: float, measured_on: str, classes: int = 40) -> Published:
    name = f"tue-mps/videomt-dinov2-{size}-{data}"
    return Published(name, megabytes, classes, ap, measured_on, _TUE, kind="videomt", commercial=True)


def _rf_detr(size: str, megabytes: float, ap: float, cpu: bool = False) -> Published:
    name = f"Roboflow/rf-detr-seg-{size}"
    return Published(name, megabytes, 80, ap, "COCO", "Apache-2.0", kind="segmenter", commercial=True, cpu=cpu)


PUBLISHED = (
    _image("tiny", 190, 45.0),
    _image("small", 275, 46.3),
    _image("base", 428, 46.7),
    _image("base-IN21k", 428, 48.1, "bacabd8bacf989a133615638116e2f78df16a71e"),  # of the hub's own converter
    _image("large", 866, 50.1),
    _video("tiny", 2019, 190, 51.5),
    _video("small", 2019, 275, 54.3),
    _video("base-IN21k", 2019, 428, 59.5),
    _video("large", 2019, 866, 60.4),
    _video("tiny", 2021, 190, 45.9),
    _video("small", 2021, 275, 48.6),
    _video("base-IN21k", 2021, 428, 52.0),
    _video("large", 2021, 866, 52.6, "refs/pr/1"),  # of the hub's own converter
    # sizes in MB: four bytes a parameter
    _videomt("small", "ytvis2019", 96, 52.8, "YouTube-VIS 2019"),
    _videomt("base", "ytvis2019", 377, 58.2, "YouTube-VIS 2019"),
    _videomt("large", "ytvis2019", 1270, 68.6, "YouTube-VIS 2019"),
    _videomt("large", "ytvis2021", 1270, 63.1, "YouTube-VIS 2021"),
    _videomt("large", "ytvis2022", 1270, 42.6, "YouTube-VIS 2022, long videos"),
    _videomt("large", "ovis", 1270, 52.5, "OVIS", classes=25),
    _rf_detr("nano", 134, 40.3, cpu=True),
    _rf_detr("small", 135, 43.1, cpu=True),
    _rf_detr("medium", 143, 45.3),
    _rf_detr("large", 145, 47.1),
    _rf_detr("xlarge", 152, 48.8),
    _rf_detr("xxlarge", 154, 49.9),
    Published("tue-mps/coco_instance_eomt_large_640", 1265, 80, 45.2, "COCO", _TUE, kind="segmenter", commercial=True),
)
OTHER_TASKS = {  # models of the same families whose answers are no instances
    "tue-mps/videomt-dinov2-large-vipseg": "panoptic",
    "tue-mps/videomt-dinov2-large-vspw": "semantic",
    "tue-mps/coco_panoptic_eomt_small_640_2x": "panoptic",
    "tue-mps/coco_panoptic_eomt_base_640_2x": "panoptic",
    "tue-mps/coco_panoptic_eomt_large_640": "panoptic",
    "tue-mps/ade20k_semantic_eomt_large_512": "semantic",
    "tue-mps/cityscapes_semantic_eomt_large_1024": "semantic",
}


def names() -> list[str]:
    """List the names of the models on the hub.

    Example:
        >>> from tubelet.models.weights import hub
        >>> len(hub.names())
        26
    """
    return [model.name for model in PUBLISHED]


def listed(name: str) -> Published | None:
    """Return the listed model of a name, in whatever case; None if there is none.

    Raises WeightsError for a model of the same family that finds no instances.

    Example:
        >>> from tubelet.models.weights import hub
        >>> hub.listed("roboflow/rf-detr-seg-small").name
        'Roboflow/rf-detr-seg-small'
    """
    if name in OTHER_TASKS:
        raise WeightsError(f"{name}: a model of {OTHER_TASKS[name]} segmentation, expected one of instances")
    return next((model for model in PUBLISHED if model.name.lower() == name.lower()), None)


def fetch(name: str) -> Path:
    """Return the safetensors file of a listed model, from the hub's cache or the network.

    Its config.json is in the same folder. HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT, tokens and proxies are those of
    huggingface_hub. Raises WeightsError if there is no network, no huggingface_hub or no safetensors, if the model is
    gated or absent, and if nothing comes for a minute; the message says which files to put where.
    """
    model = listed(name)
    assert model is not None, "only listed models are fetched"
    if model.revision is None:
        raise WeightsError(f"{name}: the hub has only a pickle of it, which is never read: {CONVERTING}")

    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(f"{name}: fetching needs huggingface_hub (tubelet[hub]); {_by_hand(model)}") from None

    def download() -> list[Path]:
        return [Path(hf_hub_download(model.name, file, revision=model.revision)) for file in model.files]

    try:
        paths = watched(download, _cache(model.name), STALL)
    except (OSError, ValueError) as error:  # the hub's own errors derive from these
        raise WeightsError(
            f"{name} cannot be fetched ({_reason(error)}); {_by_hand(model)}; {_cached(model.name)}"
        ) from None
    return paths[1]


def watched(download: Callable[[], Result], folder: Path, patience: float) -> Result:
    """Run a download, and give it up if the files of a folder do not grow for so many seconds.

    Raises TimeoutError then; the abandoned call ends with the process.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.hub import watched
        >>> watched(lambda: "done", Path("."), patience=1.0)
        'done'
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(download())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    size = -1
    moved = time.monotonic()
    while thread.is_alive():
        thread.join(min(1.0, patience / 4))
        if _size(folder) != size:
            size = _size(folder)
            moved = time.monotonic()
        if thread.is_alive() and time.monotonic() - moved > patience:
            raise TimeoutError(f"nothing came for {patience:.0f} s")
    if failure:
        raise failure[0]
    return outcome[0]


def _size(folder: Path) -> int:
    """Bytes of all files in a folder, which may be growing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # renamed just now
            continue
    return total


def _reason(error: Exception) -> str:
    """The first line of an error, and what to do about it."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    advice = {
        "GatedRepoError": "; it is gated: accept its terms on its page, then hf auth login",
        "RepositoryNotFoundError": "; it is not on the hub, or private: hf auth login",
    }
    return text + advice.get(type(error).__name__, "")


def _by_hand(model: Published) -> str:
    *others, last = model.files
    files = f"{', '.join(others)} and {last}"
    return f"without a network put its {files} into one folder and give the folder as the model"


def _cached(name: str) -> str:
    return f"or copy another machine's {_cache(name)} to the same place"


def _cache(name: str) -> Path:
    """The folder of a model in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / ("models--" + name.replace("/", "--"))
