"""Where a training starts: pretrained weights, how much of them fits, and what stays random."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Literal

from torch import nn

from tubelet.core.errors import ConfigError, WeightsError
from tubelet.models.weights import is_backbone, start_from

NOTHING = "none"  # as `init`: train from nothing
LEAST = 0.5  # share of a model's tensors that pretrained weights must fill

Parts = Literal["all", "backbone"]

logger = logging.getLogger("tubelet.training")
progress_logger = logging.getLogger("tubelet.progress")


def start(model: nn.Module, init: str | None, needs: str, *, parts: Parts = "all", partial: bool = False) -> None:
    """Load pretrained weights into a model, say how many of its tensors they fill, and warn of frozen random ones.

    Args:
        init: what `models.weights.start_from` takes, or "none".
        needs: what to name where `init` is None, in words.
        parts: "backbone" loads the trunk alone.
        partial: accept weights that fill less than half of the tensors.

    Raises:
        ConfigError: if `init` is None.
        WeightsError: if the weights cannot be found or fill too little.
    """
    if init is None:
        raise ConfigError(f"this recipe needs init=PATH, {needs}; init=none trains from nothing")
    if init == NOTHING:
        random = set(_names(model))
    else:
        random = set(_load(model, init, parts, partial))

    frozen = random_and_frozen(model, random)
    if frozen:
        logger.warning(
            "%d frozen tensors of the trunk are random (%s, ...), and nothing is learned through them: give init=PATH "
            "with weights for them, or train them (backbone.frozen_stages=0, frozen_norm=false)",
            len(frozen),
            frozen[0],
        )


def random_and_frozen(model: nn.Module, random: Collection[str]) -> list[str]:
    """Names of parameters that are not trained and keep their random start.

    Example:
        >>> from tubelet.recipes.starting import random_and_frozen
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.requires_grad = False
        >>> random_and_frozen(model, {"weight", "bias"})
        ['weight']
    """
    return [name for name, value in model.named_parameters() if not value.requires_grad and name in random]


def _load(model: nn.Module, init: str, parts: Parts, partial: bool) -> list[str]:
    random = start_from(model, init, parts=parts)
    concerned = [name for name in _names(model) if parts == "all" or is_backbone(name)]
    missing = [name for name in random if parts == "all" or is_backbone(name)]
    fitted = len(concerned) - len(missing)

    what = "tensors" if parts == "all" else "tensors of the trunk"
    report = f"init={init}: {fitted} of {len(concerned)} {what} fit"
    if fitted < LEAST * len(concerned) and not partial:
        raise WeightsError(
            f"{report}, fewer than half: are these weights of another model? init_partial=true takes what fits, "
            f"init_parts=backbone the trunk alone"
        )
    rest = f"; random: {_by_part(random)}" if random else ""
    progress_logger.info("%s%s", report, rest)
    return random


def _names(model: nn.Module) -> list[str]:
    return [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]


def _by_part(names: Collection[str]) -> str:
    """`match 4, detector 6`: how many tensors of each part of a model."""
    counts: dict[str, int] = {}
    for name in names:
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{part} {count}" for part, count in counts.items())
