"""What a paper's training costs: hours and money on 1, 8 and 64 accelerators, from samples per second.

    python benchmarks/cost.py                             the table, for the processor that was measured
    python benchmarks/cost.py --throughput all=8 --price 2.5 --efficiency 1 0.95 0.85
    python benchmarks/cost.py --throughput sta/ytvis2019=11 objprop/ytvis2019=9 --price 2.5
    python benchmarks/cost.py measure [NAME ...] [--steps 2]   measure here again: minutes, gigabytes

A sample is one training clip as the recipe draws it, forward, backward and its share of the optimizer's step. How many
a schedule takes is the recipe's own: iterations x clips per step. Everything else is an input:

    measured   samples per second of one core of a processor, fp32, one clip at a time, from random weights, on
               generated videos of 1280 x 720 with two objects (`measure`, kept in cost.json)
    assumed    --throughput: of one accelerator, by recipe. There is no default: measure yours with `tubelet train`,
               whose log tells samples_per_second
               --price: of one accelerator for an hour, in any currency
               --efficiency: how much of the n-fold speed n accelerators reach, one number for each of --accelerators

hours = samples / (throughput x accelerators x efficiency) / 3600;  cost = hours x accelerators x price.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

MEASURED = Path(__file__).with_suffix(".json")
SCHEDULES = (  # of each paper, the row that its method is known by
    "masktrack/ytvis2019",
    "sta/ytvis2019",
    "objprop/ytvis2019",
    "compfeat/table5/compfeat",
    "mask2former_vis/table1/r50",
    "ifr/table1/r50",
    "tags/ytvis2019",
)
FRAME = {"height": 720, "width": 1280, "frames": 36}  # as most of YouTube-VIS


def samples_of(name: str) -> int:
    """Clips that the recipe's whole schedule takes."""
    from tubelet.recipes import find

    train = find(name).train
    return train.iterations * train.batch_size * train.accumulate


def hours(samples: int, throughput: float, accelerators: int, efficiency: float) -> float:
    """Of the schedule on so many accelerators; `throughput` in samples per second of one."""
    return samples / (throughput * accelerators * efficiency) / 3600


def step_cost(name: str, steps: int) -> dict[str, float]:
    """Core seconds of one training step of one clip, the least of `steps`, and the largest memory in GB."""
    import torch

    from tubelet.data.clips import ClipDataset
    from tubelet.recipes import find
    from tubelet.synthetic.config import Synthetic
    from tubelet.synthetic.generator import generate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = find(name)
    videos = generate(Synthetic(**FRAME, objects=(2, 2)), 0, 1)
    clips = ClipDataset(videos, recipe.sampler, recipe.transforms, 0, per=recipe.per, keep_ignored=True)
    model = recipe.model.build(videos.classes).train()
    optimizer = recipe.optim.build(model)
    taken = []
    for number in range(steps):
        clip = clips[number]
        begun = time.process_time()  # not by the clock: other programs share this machine
        optimizer.zero_grad()
        torch.stack(list(model([clip]).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.clip_norm or float("inf"))
        optimizer.step()
        taken.append(time.process_time() - begun)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(min(taken), 2), "gigabytes": round(memory, 2)}


def measure(names: list[str], steps: int) -> None:
    """Each in a process of its own, for its memory's sake; what cost.json holds of others stays."""
    kept = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for name in names:
        command = [sys.executable, __file__, "one", name, "--steps", str(steps)]
        kept[name] = {**json.loads(subprocess.check_output(command)), "processor": processor()}
        print(name, kept[name], flush=True)
        MEASURED.write_text(json.dumps(kept, indent=1) + "\n")


def processor() -> str:
    """Its name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def throughputs(given: list[str], names: list[str]) -> dict[str, float]:
    """`all=8` or `NAME=8`, samples per second; a name beats `all`."""
    values = {name: float(value) for name, _, value in (text.partition("=") for text in given)}
    return {name: values.get(name, values.get("all", 0.0)) for name in names if name in values or "all" in values}


def table(rates: dict[str, float], arguments: argparse.Namespace, unit: str) -> list[str]:
    """Markdown: hours, and cost where there is a price, for each number of accelerators."""
    header = [f"hours on {n}" + (" (cost)" if arguments.price is not None else "") for n in arguments.accelerators]
    lines = [f"| schedule | samples | samples/s of one {unit} | " + " | ".join(header) + " |"]
    lines.append("|---|---:|---:|" + "---:|" * len(header))
    for name, rate in rates.items():
        cells = []
        for n, efficiency in zip(arguments.accelerators, arguments.efficiency, strict=True):
            took = hours(samples_of(name), rate, n, efficiency)
            cost = "" if arguments.price is None else f" ({took * n * arguments.price:,.0f})"
            cells.append(f"{took:,.1f}{cost}")
        lines.append(f"| {name} | {samples_of(name):,} | {rate:.3g} | " + " | ".join(cells) + " |")
    return lines


def show(arguments: argparse.Namespace) -> None:
    """The table, and which of its inputs were measured and which are the reader's own."""
    counts = ", ".join(f"{n}: {e:g}" for n, e in zip(arguments.accelerators, arguments.efficiency, strict=True))
    price = "not given" if arguments.price is None else f"ASSUMED, {arguments.price:g} for one hour of one"
    if arguments.throughput:
        rates, unit = throughputs(arguments.throughput, list(SCHEDULES)), "accelerator"
        print("Throughput: ASSUMED, as given on the command line; nothing here was measured on an accelerator.")
    else:
        kept = json.loads(MEASURED.read_text())
        rates, unit = {name: 1 / kept[name]["seconds"] for name in SCHEDULES if name in kept}, "core"
        for name in sorted({kept[name]["processor"] for name in rates}):
            print(f"Throughput: MEASURED, one core of {name}, fp32, one clip a step ({MEASURED.name}).")
    print(f"Scaling efficiency: ASSUMED ({counts}). Price: {price}.")
    print("Samples: the recipe's schedule. Reading of data, evaluation and restarts are not counted.\n")
    print("\n".join(table(rates, arguments, unit)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=("show", "measure", "one"), default="show")
    parser.add_argument("names", nargs="*", default=[], help="recipes to measure")
    parser.add_argument("--throughput", nargs="+", default=[], metavar="NAME=SAMPLES_PER_SECOND")
    parser.add_argument("--price", type=float, help="of one accelerator for an hour")
    parser.add_argument("--accelerators", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--efficiency", type=float, nargs="+", help="one for each of --accelerators; 1 where not given")
    parser.add_argument("--steps", type=int, default=1)
    arguments = parser.parse_args()
    arguments.efficiency = arguments.efficiency or [1.0] * len(arguments.accelerators)
    if len(arguments.efficiency) != len(arguments.accelerators):
        parser.error(f"expected {len(arguments.accelerators)} efficiencies, one for each of {arguments.accelerators}")
    if arguments.action == "one":
        print(json.dumps(step_cost(arguments.names[0], arguments.steps)))
    elif arguments.action == "measure":
        measure(arguments.names or list(SCHEDULES), arguments.steps)
    else:
        show(arguments)


if __name__ == "__main__":
    main()
