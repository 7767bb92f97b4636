"""The models that can be loaded by name, with what a person chooses by."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.core.untrusted.documents import decode_json
from tubelet.core.untrusted.tensors import read_metadata
from tubelet.models.weights import finding, hub


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that can be loaded by name, as `tubelet list models` shows it."""

    name: str
    where: str
    megabytes: float
    classes: int
    licence: str
    published: str = ""  # the published figure
    commercial: bool = True  # whether the licence allows commercial use
    cpu: bool = True  # whether it is of any use without a GPU


def list_models() -> list[ListedModel]:
    """List the bundled models, then those of the hub.

    Example:
        >>> from tubelet.models.weights import list_models
        >>> model = list_models()[0]
        >>> model.name, model.where, model.classes
        ('default', 'bundled', 80)
    """
    return [*_bundled(), *(_listed(model) for model in hub.PUBLISHED)]


def _listed(model: hub.Published) -> ListedModel:
    where = "hub" if model.revision else "hub, a pickle to convert"
    figure = f"{model.ap:.1f} AP, {model.measured_on}"
    return ListedModel(
        model.name,
        where,
        model.megabytes,
        model.classes,
        model.licence,
        figure,
        model.commercial,
        model.cpu,
    )


def _bundled() -> list[ListedModel]:
    models = []
    for path in sorted(finding.BUNDLED.glob("*.safetensors")):
        metadata = read_metadata(path)
        classes = len(decode_json(metadata["classes"], str(path)))
        megabytes = path.stat().st_size / 1e6
        licence = metadata.get("licence", "")
        models.append(ListedModel(path.stem, "bundled", megabytes, classes, licence))
    return models
