"""Segment many videos with Ray Data: a pool of actors, each with a model, on one machine or many.

All machines must see the videos and the results folder under the same paths. Attempts at each video are counted on
disk (inference/many/batch.py), so a video that kills its actor again and again is given up.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.core.untrusted.documents import decode_json

if TYPE_CHECKING:
    from tubelet.inference.many.batch import OpenModel, Segment, Settings, VideoJob, VideoOutcome

LOCAL = "local"
STORE_BYTES = 128 << 20  # of a local Ray: what passes through it are names and counts
MOST_BLOCKS = 4096


class RayWorker:
    """An actor: loads its model once, then segments videos. Jobs and outcomes are JSON in columns of strings."""

    def __init__(self, open_model: OpenModel, out: str, settings: str, device: str, segment: Segment) -> None:
        from tubelet.inference.many.batch import Settings, settle

        self.out, self.settings = Path(out), Settings.from_tree(decode_json(settings, "settings"))
        settle(self.settings)
        self.model = open_model(device)
        self.segment = segment

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        from tubelet.inference.many.messages import decode_job, encode_outcome

        jobs = [decode_job(text) for text in batch["job"]]
        outcomes = [self.segment(self.model, job, self.out, self.settings) for job in jobs]
        return {"outcome": [encode_outcome(outcome) for outcome in outcomes]}


def share_by_ray(
    jobs: Sequence[VideoJob],
    open_model: OpenModel,
    out: Path,
    settings: Settings,
    devices: Sequence[str],
    address: str,
    segment: Segment | None = None,
) -> Iterator[VideoOutcome]:
    """Segment videos with one actor per device; yields outcomes as they finish, in no order.

    An actor calls `segment(model, job, out, settings)` for each video; None: write a folder of results.
    `address` is "local" (start Ray on this machine), "auto" or the address of a cluster. If Ray is connected
    already, that connection is used and left open. Raises InputError if there is no cluster or no actor can start.
    """
    import ray

    from tubelet.inference.many import batch

    ours = not ray.is_initialized()
    with redirect_stdout(sys.stderr):  # Ray prints there what becomes of its workers, when it is left too
        if ours:
            _connect(address, len(devices) * settings.threads)
        try:
            yield from _outcomes(jobs, open_model, out, settings, devices, segment or batch.segment)
        finally:
            if ours:
                ray.shutdown()


def _connect(address: str, cpus: int) -> None:
    import ray

    from tubelet.core.errors import InputError

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    local = {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(**quiet, **({"address": LOCAL, **local} if address == LOCAL else {"address": address}))
    except Exception as error:  # Ray raises bare ones too, as for a machine too busy to start it
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"no Ray at {address!r}: {reason}") from None


def _outcomes(
    jobs: Sequence[VideoJob],
    open_model: OpenModel,
    out: Path,
    settings: Settings,
    devices: Sequence[str],
    segment: Segment,
) -> Iterator[VideoOutcome]:
    import ray

    from tubelet.core.errors import InputError
    from tubelet.inference.many.batch import line_of
    from tubelet.inference.many.messages import decode_outcome, encode_job

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    on_gpu = settings.device == "cuda"
    rows = [{"job": encode_job(job)} for job in jobs]
    device = "cuda" if on_gpu else devices[0]
    arguments = (open_model, str(out.absolute()), settings.model_dump_json(), device, segment)
    outcomes = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
        RayWorker,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(len(devices), len(rows))),
        num_cpus=settings.threads,
        num_gpus=_share(devices) if on_gpu else None,
    )
    try:
        for row in outcomes.iter_rows():
            yield decode_outcome(row["outcome"])
    except ray.exceptions.RayError as error:
        raise InputError(f"Ray has given up: {line_of(error)}") from None


def _share(devices: Sequence[str]) -> float:
    """Share of a GPU that each actor takes."""
    return 1 / math.ceil(len(devices) / len(set(devices)))
