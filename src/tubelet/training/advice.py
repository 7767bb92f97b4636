"""Early words on a training that goes wrong: what is seen, and what to try, each once.

Every check is a function of numbers, and returns a line or None. `Adviser` says a line once in a
training, also over a kill: the names of what was said are part of the checkpoint.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from statistics import fmean

from tubelet.core.types import Clip
from tubelet.training.checkpoint import TrainingProgress
from tubelet.training.validation import Judgement

VALIDATIONS = 3  # in a row that find nothing, or one class, before it is said
LEAST_CLIPS = 40  # before the share of empty ones says anything
LEAST_LINES = 20  # of the log, before a loss is called flat
LEAST_STEPS = 200
FALL = 0.02  # share by which a loss must have fallen
FAR = 4.0  # factor between learning rates that are far from one another

logger = logging.getLogger("tubelet.training")


class Adviser:
    """Says each piece of advice once; only the `main` process speaks."""

    def __init__(self, progress: TrainingProgress, *, main: bool) -> None:
        self.progress = progress
        self.main = main

    def after_reading(self, clips: Sequence[Clip]) -> None:
        """Count the clips in which no object is left."""
        progress = self.progress
        annotated = [clip.tracks for clip in clips if clip.tracks is not None]
        progress.clips_read += len(annotated)
        progress.clips_empty += sum(not len(tracks) for tracks in annotated)
        self._say("vanished", vanished_objects(progress.clips_empty, progress.clips_read))

    def after_line(self, losses: Sequence[float]) -> None:
        """Look at the mean losses of all lines of the log."""
        self._say("flat", flat_loss(losses, self.progress.step))

    def after_validation(self, judgement: Judgement) -> None:
        """Look at what was found on the validation videos."""
        progress = self.progress
        one_class = judgement.classes == 1 and (judgement.true_classes or 0) > 1
        progress.without_objects = progress.without_objects + 1 if judgement.objects == 0 else 0
        progress.with_one_class = progress.with_one_class + 1 if one_class else 0
        self._say("no objects", no_objects(progress.without_objects))
        self._say("one class", single_class(progress.with_one_class, judgement.true_classes or 0))

    def _say(self, name: str, line: str | None) -> None:
        if line is None or name in self.progress.advised:
            return
        self.progress.advised.append(name)
        if self.main:
            logger.warning("step %d: %s", self.progress.step, line)


def no_objects(validations: int) -> str | None:
    """Advice where the last so many validations found no object.

    Example:
        >>> from tubelet.training.advice import no_objects
        >>> no_objects(2)
        >>> no_objects(3)[:51]
        'the last 3 validations found no object with a score'
    """
    if validations < VALIDATIONS:
        return None
    return (
        f"the last {validations} validations found no object with a score worth showing: early in a training this "
        f"passes; else try a higher optim.lr, start from pretrained weights (init), or check the annotations "
        f"(tubelet data check)"
    )


def single_class(validations: int, true_classes: int) -> str | None:
    """Advice where all objects of the last so many validations had one class, of several in the truth.

    Example:
        >>> from tubelet.training.advice import single_class
        >>> single_class(1, true_classes=5)
        >>> single_class(3, true_classes=5)[:57]
        'all objects of the last 3 validations are of one class, w'
    """
    if validations < VALIDATIONS:
        return None
    return (
        f"all objects of the last {validations} validations are of one class, where the truth has {true_classes}: "
        f"look at the counts of the classes (tubelet data stats); a class with most of the objects wins early, so "
        f"train longer, or lower optim.lr"
    )


def flat_loss(losses: Sequence[float], step: int) -> str | None:
    """Advice where the loss, a mean for each line of the log, has not fallen.

    Example:
        >>> from tubelet.training.advice import flat_loss
        >>> flat_loss([2.0] * 20, step=400)[:51]
        'the loss has not fallen in 400 steps (2 at first, 2'
        >>> flat_loss([2.0 - n / 20 for n in range(20)], step=400)
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < LEAST_LINES or step < LEAST_STEPS:
        return None
    quarter = len(finite) // 4
    first = fmean(finite[:quarter])
    last = fmean(finite[-quarter:])
    if last < (1 - FALL) * first:
        return None
    return (
        f"the loss has not fallen in {step} steps ({first:.3g} at first, {last:.3g} now): try a higher optim.lr where "
        f"it stands still and a lower one where it rises; weights that are trained already may look like this too"
    )


def vanished_objects(empty: int, clips: int) -> str | None:
    """Advice where most training clips have no object.

    Example:
        >>> from tubelet.training.advice import vanished_objects
        >>> vanished_objects(10, 100)
        >>> vanished_objects(30, 40)[:47]
        '30 of the first 40 training clips have no objec'
    """
    if clips < LEAST_CLIPS or empty <= clips / 2:
        return None
    return (
        f"{empty} of the first {clips} training clips have no object left: the transforms cut them away or shrink "
        f"them to nothing (try transforms=[]), or most frames are not annotated (tubelet data stats)"
    )


def far_rate(rate: float, clips: int, recipe_rate: float, recipe_clips: int) -> str | None:
    """Advice where a learning rate is far from a recipe's, by the linear scaling rule (Goyal et al., 2017).

    `clips` are those of a step: batch_size x accumulate x processes.

    Example:
        >>> from tubelet.training.advice import far_rate
        >>> far_rate(0.005, 16, recipe_rate=0.005, recipe_clips=16)
        >>> far_rate(0.005, 2, recipe_rate=0.005, recipe_clips=16)[-28:]
        'tim.lr=0.000625 fits 2 clips'
    """
    fitting = recipe_rate * clips / recipe_clips
    if 1 / FAR < rate / fitting < FAR:
        return None
    return (
        f"optim.lr={rate:g} with {clips} clips a step is far from the recipe's {recipe_rate:g} with {recipe_clips}: "
        f"by the linear scaling rule optim.lr={fitting:.3g} fits {clips} clips"
    )
