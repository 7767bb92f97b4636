"""Which file a name or a path stands for: a bundled model, a file, a training's folder, or a model of the hub."""

from __future__ import annotations

import re
from pathlib import Path

from tubelet.core.arguments import short
from tubelet.core.errors import WeightsError, nearest
from tubelet.core.untrusted.files import is_file, is_folder
from tubelet.models.weights import hub

BUNDLED = Path(__file__).parents[1] / "bundled"
IN_FOLDER = ("best.safetensors", "model.safetensors")  # what a folder stands for, the first that is there


def find(name: str | Path) -> Path:
    """Return the safetensors file of a name or path; files on disk come before names of the hub.

    A training's folder stands for its best weights if it validated, else for its last.

    Raises WeightsError if there is none.

    Example:
        >>> from tubelet.models import weights
        >>> weights.find("default").name
        'default.safetensors'
    """
    if not isinstance(name, str | Path):
        raise WeightsError(f"expected a model's name or a path, got {short(name)}")
    bundled = BUNDLED / f"{name}.safetensors"
    if re.fullmatch(r"[\w.-]+", str(name)) and is_file(bundled):
        return bundled

    path = Path(name)
    if is_file(path):
        return path
    if is_folder(path):
        for weights in IN_FOLDER:
            if (path / weights).is_file():
                return path / weights
        for pickle in (path / "pytorch_model.bin", path / "model.pkl"):
            if pickle.is_file():
                raise WeightsError(f"{pickle} is a pickle, which is never read: {hub.CONVERTING}")

        if (path / "checkpoints").is_dir():
            raise WeightsError(
                f"{path}: this training has no model yet; the same command with --resume goes on with it"
            )

    if hub.listed(str(name)) is not None:
        return hub.fetch(str(name))
    shown = short(str(name)) if len(str(name)) > 200 else repr(str(name))
    known = [*(p.stem for p in BUNDLED.glob("*.safetensors")), *hub.names()]
    raise WeightsError(f"no model {shown}: neither a bundled name nor a file; {nearest(str(name), known)}")
