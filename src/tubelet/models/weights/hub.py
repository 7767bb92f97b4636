"""Published Mask2Former models on the hub of Hugging Face, which can be loaded by name.

Sources: the model zoo of github.com/facebookresearch/Mask2Former (AP, licence) and the models' pages on the hub.
Only listed models are fetched, only their config.json and safetensors, and only when a name is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tubelet.core.errors import WeightsError

FILES = ("config.json", "model.safetensors")
CONVERTING = "docs/published-weights.md tells how to convert its pickle"
_AUTHORS = "CC BY-NC 4.0 (the authors' model zoo"


@dataclass(frozen=True, slots=True)
class Published:
    """A model on the hub.

    Example:
        >>> from tubelet.models.weights import hub
        >>> model = hub.PUBLISHED[0]
        >>> model.name, model.ap, model.measured_on
        ('facebook/mask2former-swin-tiny-coco-instance', 45.0, 'COCO')
    """

    name: str
    megabytes: float
    classes: int
    ap: float  # published, in percent
    measured_on: str
    licence: str
    revision: str | None = "main"  # that has safetensors; None if the hub only has a pickle


def _image(size: str, megabytes: float, ap: float, revision: str = "main") -> Published:
    name = f"facebook/mask2former-swin-{size}-coco-instance"
    return Published(name, megabytes, 80, ap, "COCO", f"{_AUTHORS}; hub: other)", revision)


def _video(size: str, year: int, megabytes: float, ap: float, revision: str | None = None) -> Published:
    name = f"shivalikasingh/video-mask2former-swin-{size}-youtubevis-{year}-instance"
    return Published(name, megabytes, 40, ap, f"YouTube-VIS {year}", f"{_AUTHORS}; hub: MIT)", revision)


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
)


def names() -> list[str]:
    """List the names of the models on the hub.

    Example:
        >>> from tubelet.models.weights import hub
        >>> len(hub.names())
        13
    """
    return [model.name for model in PUBLISHED]


def fetch(name: str) -> Path:
    """Return the safetensors file of a listed model, from the hub's cache or the network.

    Its config.json is in the same folder. Raises WeightsError if there is no network, no huggingface_hub or no
    safetensors; the message says which files to put where.
    """
    (model,) = (model for model in PUBLISHED if model.name == name)
    if model.revision is None:
        raise WeightsError(f"{name}: the hub has only a pickle of it, which is never read: {CONVERTING}")

    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(f"{name}: fetching needs huggingface_hub (tubelet[hub]); {_by_hand(name)}") from None
    try:
        paths = [Path(hf_hub_download(name, file, revision=model.revision)) for file in FILES]
    except (OSError, ValueError) as error:  # the hub's own errors derive from these
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{name} cannot be fetched ({reason[:120]}); {_by_hand(name)}; {_cached(name)}") from None
    return paths[1]


def _by_hand(name: str) -> str:
    return f"without a network put its {' and '.join(FILES)} into one folder and give the folder as the model"


def _cached(name: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / ("models--" + name.replace("/", "--"))
    return f"or copy another machine's {folder} to the same place"
