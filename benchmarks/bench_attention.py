"""STA and CompFeat's temporal attention at P2 of a 640x384 image, the literal L x L form beside ours.

    python benchmarks/bench_attention.py [--video PATH] [--threads 1] [--repeats 2] [--cells 96 160]

L = 96 x 160 = 15,360 cells, 256 channels; CompFeat with two supports. The maps are the bundled model's finest pyramid
of two frames, lifted to 256 channels by a fixed rotation, with deviation 1; weights start by torch's default or by
Xavier's rule, as the systems' code does. Both forms get the same queries, keys and
values, made beforehand, with the channels of a cell side by side as in channels-last maps.

Each form runs in a process of its own, one at a time. Peak extra memory is the most resident memory while it ran
(VmHWM, reset just before) less what was resident before. Time is processor time, which a busy machine
stretches little, the least of the repeats; memory is the most of them. The
difference is the greatest one over the greatest entry; beside it stand both forms' distances from a float64 result of
256 rows, because logits of hundreds leave float32 itself only five digits. Targets: memory at most 5 %, time at most a
third.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tubelet.attention import dual, fused, sta

CHANNELS = 256
Form = Callable[[Tensor, Tensor, Tensor], Tensor]
FORMS: dict[str, dict[str, Form]] = {
    "STA": {
        "literal": lambda q, k, v: sta.attention(v, sta.correlation(k, q)),
        "ours": lambda q, k, v: sta.fused_attention(k, q, v),
    },
    "temporal attention": {
        "literal": lambda q, k, v: dual.aggregate(v, dual.similarities(k, q)),
        "ours": lambda q, k, v: dual.fused_aggregate(k, q, v),
    },
}


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(run_form(*arguments.child, arguments.threads, arguments.repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        maps = trained_maps(arguments.video, arguments.cells)
        for system in FORMS:
            for start in ("default", "xavier"):
                path = Path(folder) / "inputs.safetensors"
                inputs = encoded(system, start, maps)
                save_file(inputs, path)
                figures = {form: _in_child(form, system, path, arguments) for form in ("literal", "ours")}
                report(f"{system}, {start} start", figures, inputs, Path(folder))


def trained_maps(video: Path | None, cells: list[int]) -> Tensor:
    """The maps of two frames, [2, 256, H, W]."""
    from tubelet.apps.demo import VIDEO
    from tubelet.models import weights
    from tubelet.models.inputs import Images
    from tubelet.video.reader import open_video

    frames = open_video(video or VIDEO).frames
    size = [8 * cells[0], 8 * cells[1]]  # the bundled model's finest pyramid has stride 8
    pixels = torch.stack([F.interpolate(frames[t][None].float(), size, mode="bilinear")[0] for t in (0, 5)])
    detector = weights.load("default", device="cpu").detector
    with torch.inference_mode():
        images = Images((pixels - 127.5) / 127.5, [(size[0], size[1])] * 2, torch.ones(2, 4))
        maps = detector.extract(images).maps[0]
    torch.manual_seed(0)
    rotation = nn.init.orthogonal_(torch.empty(CHANNELS, maps.shape[1]))
    lifted = torch.einsum("oi,bihw->bohw", rotation, maps.clone())
    return (lifted - lifted.mean()) / lifted.std()


def encoded(system: str, start: str, maps: Tensor) -> dict[str, Tensor]:
    """Queries, keys and values [1, cells, D] as the systems' convolutions make them."""
    torch.manual_seed(0)
    previous, current = maps[:1], maps[1:]
    if system == "STA":
        block = sta.STAConfig(init="xavier" if start == "xavier" else "default").build(CHANNELS)
        convs, supports = (block.match, block.match, block.value), [previous]
        sources = [current, previous, current]
    else:
        branch = dual.TemporalAttention(dual.DualConfig(), CHANNELS)
        convs, supports = (branch.query, branch.key, branch.value), [previous, current.flip(-1)]
        sources = [current, torch.cat(supports), torch.cat(supports)]
        if start == "xavier":
            for conv in convs:
                nn.init.xavier_uniform_(conv.weight)
    with torch.no_grad():
        made = [F.relu(conv(x)).transpose(0, 1).flatten(1)[None] for conv, x in zip(convs, sources, strict=True)]
    return {name: x.transpose(1, 2).contiguous() for name, x in zip(("queries", "keys", "values"), made, strict=True)}


def run_form(form: str, system: str, path: str, threads: int, repeats: int) -> dict[str, float]:
    """Least seconds, and peak extra megabytes of inference and of a training step; results go beside the inputs."""
    torch.set_num_threads(threads)
    loaded = load_file(path)
    leaves = [loaded.pop(name).requires_grad_() for name in ("queries", "keys", "values")]
    form_of = FORMS[system][form]

    def attend(*rows: Tensor) -> Tensor:
        return form_of(*(x.transpose(1, 2) for x in rows)).transpose(1, 2)

    attend(*(x[:, :128] for x in leaves)).sum().backward()  # libraries wake up
    torch.manual_seed(0)
    gradient = torch.randn(1, leaves[0].shape[1], leaves[2].shape[2])
    runs = []
    for _ in range(repeats):
        for leaf in leaves:
            leaf.grad = None
        with Peak() as inference, torch.no_grad():
            began = time.process_time()
            attend(*leaves)
            alone = time.process_time() - began
        with Peak() as training:
            began = time.process_time()
            out = attend(*leaves)
            between = time.process_time()
            out.backward(gradient)
            ended = time.process_time()
        forward, backward = min(alone, between - began), ended - between
        runs.append(
            {
                "forward s": forward,
                "backward s": backward,
                "both s": forward + backward,
                "inference MB": inference.extra,
                "training MB": training.extra,
            }
        )
    results = {"out": out.detach(), **{f"d{name}": x.grad for name, x in zip("qkv", leaves, strict=True)}}
    save_file({name: x.contiguous() for name, x in results.items()}, Path(path).with_name(f"{form}.safetensors"))
    return {name: (max if name.endswith("MB") else min)(run[name] for run in runs) for name in runs[0]}


class Peak:
    """Megabytes by which resident memory rose at its highest; Linux tells and resets it, elsewhere it never falls."""

    def __enter__(self) -> Peak:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would hide what is asked for anew
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.extra = _resident("VmHWM") - self.before


def _resident(field: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 2**10)
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def _in_child(form: str, system: str, path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", form, system, str(path)]
    command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report(title: str, figures: dict[str, dict[str, float]], inputs: dict[str, Tensor], folder: Path) -> None:
    queries, keys, values = (x[0] for x in inputs.values())
    share = fused._share_that_matters(queries, keys)
    print(f"\n{title}: {len(queries)} queries, {len(keys)} keys; a chunk of queries looks at {share:.0%} of them")
    for name, literal in figures["literal"].items():
        ours = figures["ours"][name]
        print(f"  {name:13s} literal {literal:9.2f}   ours {ours:9.2f}   ratio {ours / literal:6.1%}")
    literal, ours = (load_file(folder / f"{form}.safetensors") for form in ("literal", "ours"))
    apart = {name: (ours[name] - x).abs().max() / x.abs().max() for name, x in literal.items()}
    print("  difference   ", ", ".join(f"{name} {float(x):.1e}" for name, x in apart.items()))
    rows = torch.linspace(0, len(queries) - 1, 256).long()
    exact = (queries[rows].double() @ keys.double().T).softmax(1) @ values.double()
    errors = {
        form: (r["out"][0][rows] - exact).abs().max() / exact.abs().max()
        for form, r in (("literal", literal), ("ours", ours))
    }
    print("  from float64 ", ", ".join(f"{form} {float(x):.1e}" for form, x in errors.items()), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="frames 0 and 5 are read; the bundled demo video by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cells", type=int, nargs=2, default=[96, 160], metavar=("H", "W"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
