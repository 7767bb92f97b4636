"""The seeds of a step: they follow from its number, so that a resumed training draws the same numbers."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int, step: int, part: int, rank: int) -> None:
    """Seed the global generators of torch, Python and NumPy for one batch of one process.

    Example:
        >>> from tubelet.training.seeds import seed_everything
        >>> seed_everything(0, step=3, part=0, rank=0)
        >>> first = torch.rand(1)
        >>> seed_everything(0, step=3, part=0, rank=0)
        >>> bool(first == torch.rand(1))
        True
    """
    words = np.random.SeedSequence([seed, step, part, rank]).generate_state(3, np.uint32).tolist()
    torch.manual_seed(words[0])
    random.seed(words[1])
    np.random.seed(words[2])  # noqa: NPY002  # a model from outside may draw from the global generator
