"""Other programs that show a training: TensorBoard, Weights & Biases, MLflow, behind one small interface.

`train.log=["tensorboard"]` sends every line of the log there too. None of them is needed, and each is
imported only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from tubelet.core.atomic import replacing
from tubelet.core.errors import ConfigError
from tubelet.core.untrusted.files import read_text
from tubelet.training.checkpoint import writing

Name = Literal["tensorboard", "wandb", "mlflow"]


class Tracker(Protocol):
    """What a program that shows trainings must be able to do."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Show the numbers of a step, by name."""

    def close(self) -> None:
        """Send what is left."""


class TensorBoard:
    """Event files in `out`/tensorboard, for `tensorboard --logdir`. Steps after the present one are hidden."""

    def __init__(self, out: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard", "tensorboard", "pip install 'tubelet[log]'") from None
        self._writer: Any = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add scalars; a validation's are grouped as `validation/AP`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name.replace("validation_", "validation/"), value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, named as `out`; a resumed training goes on with the same run."""

    def __init__(self, out: Path, step: int) -> None:
        try:
            import wandb
        except ImportError:
            raise _missing("wandb", "wandb", "pip install wandb") from None
        known = _identity(out, "wandb")
        self._run: Any = wandb.init(dir=str(out), name=out.name, id=known, resume="allow" if known else None)
        _remember(out, "wandb", str(self._run.id))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow, at the address of MLFLOW_TRACKING_URI; a resumed training goes on with the same run."""

    def __init__(self, out: Path, step: int) -> None:
        try:
            import mlflow
        except ImportError:
            raise _missing("mlflow", "mlflow", "pip install mlflow") from None
        self._mlflow: Any = mlflow
        known = _identity(out, "mlflow")
        run = mlflow.start_run(run_id=known) if known else mlflow.start_run(run_name=out.name)
        _remember(out, "mlflow", str(run.info.run_id))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._mlflow.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


_TRACKERS: dict[str, type[TensorBoard] | type[WeightsAndBiases] | type[MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def open_trackers(names: Sequence[Name], out: Path, step: int) -> list[Tracker]:
    """The trackers of these names, for a training in `out` that stands at a step.

    Raises ConfigError, which says what to install, where a package is missing.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.training.trackers import open_trackers
        >>> open_trackers([], Path("run"), step=0)
        []
    """
    return [_TRACKERS[name](out, step) for name in names]


def _missing(name: str, package: str, command: str) -> ConfigError:
    return ConfigError(f"train.log={name} needs the package {package}: {command}")


def _identity(out: Path, program: str) -> str | None:
    """The run that this training had before, if any."""
    path = out / f"{program}.run"
    return read_text(path).strip() if path.is_file() else None


def _remember(out: Path, program: str, identity: str) -> None:
    path = out / f"{program}.run"
    with writing(path), replacing(path) as temporary:
        temporary.write_text(identity, encoding="utf-8")
