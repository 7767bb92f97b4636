"""All systems on a pretend accelerator (`pretend.py`): what would go wrong on the first real one."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SYSTEMS = ("sta", "objprop", "compfeat", "mask2former", "ifr", "tags")
TRANSPOSED = "small/tags model.upsampling=transposed"
NAMES = [*(f"small/{name}" for name in SYSTEMS), TRANSPOSED, "default"]

# waits for the device, and operators, of one more frame of `predict`; lower them, do not raise them
BUDGET = {
    "small/sta": (4, 745),  # two of them for the boxes: the detector has two stages
    "small/objprop": (5, 820),
    "small/compfeat": (4, 1490),
    "small/mask2former": (0, 0),  # all frames are one clip
    "small/ifr": (0, 390),
    "small/tags": (0, 55),
    TRANSPOSED: (0, 55),
    "default": (3, 605),  # of the demo video, with the bundled weights
}
# on Apple GPUs not for bfloat16
SINGLE_ONLY = (
    "torchvision::roi_align",
    "torchvision::_roi_align_backward",
    "torchvision::nms",
    "aten::convolution, transposed, of 3 dimensions",
)

Ledger = dict[str, Any]


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ledger]:
    """What each system did, by name."""
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot pretend to have a device")
    command = [sys.executable, str(HERE / "run_systems.py"), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path_factory.mktemp("device"))
    assert done.returncode == 0, done.stderr[-3000:]
    ledgers: dict[str, Ledger] = json.loads(done.stdout)
    return ledgers


def test_the_pretend_device_sees_what_a_device_would_refuse(tmp_path: Path) -> None:
    code = """
import json, torch, torchvision, pretend
pretend.install()
with pretend.Pretend():
    here = torch.zeros(3, 4, device=pretend.device())
    here + torch.ones(4)
    here.double()
    here[here > 0]
    here.sum().item()
    here[[0, 1]]
    here[torch.tensor([True, False, True])]
    torchvision.ops.nms(here, here[:, 0], 0.5)
print(json.dumps([pretend.LEDGER.mixed, pretend.LEDGER.doubles, pretend.LEDGER.waits, pretend.LEDGER.uploads]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr
    mixed, doubles, waits, uploads = (sum(counts.values()) for counts in json.loads(done.stdout))
    assert mixed == 1
    assert doubles == 1
    assert waits == 3  # for a mask of the device, a number, and suppression; not for a mask of the CPU
    assert uploads >= 2


@pytest.mark.parametrize("name", NAMES)
def test_no_operator_mixes_tensors_of_two_devices(ledgers: dict[str, Ledger], name: str) -> None:
    assert ledgers[name]["mixed"] == {}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_computed_in_float64_which_apple_gpus_lack(ledgers: dict[str, Ledger], name: str) -> None:
    assert ledgers[name]["doubles"] == {}


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_has_a_kernel_for_apple_gpus(ledgers: dict[str, Ledger], name: str) -> None:
    kernels = _metal_kernels()
    ours = [name.partition(",")[0].removeprefix("aten::") for name in ledgers[name]["operators"]]
    assert len(ours) > 30
    assert sorted(operator for operator in ours if not kernels.get(operator, True)) == []


@pytest.mark.parametrize("name", NAMES)
def test_operators_without_a_bfloat16_kernel_on_apple_gpus_get_none(ledgers: dict[str, Ledger], name: str) -> None:
    dtypes = ledgers[name]["dtypes"]
    assert [operator for operator in SINGLE_ONLY if "bfloat16" in dtypes.get(operator, ())] == []
    if name == TRANSPOSED:
        assert dtypes["aten::convolution, transposed, of 3 dimensions"] == ["float32"]
        assert "bfloat16" in dtypes["aten::convolution"]


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_waits_for_the_device_within_its_budget(ledgers: dict[str, Ledger], name: str) -> None:
    most_waits, most_operators = BUDGET[name]
    frame = ledgers[name]["a frame"]
    assert frame["waits"] <= most_waits
    assert frame["operators"] <= most_operators


@cache
def _metal_kernels() -> dict[str, bool]:
    """Whether each operator of this torch runs on an Apple GPU, from the list that torch generates its code from."""
    yaml = pytest.importorskip("yaml", reason="the list of torch's operators is YAML")
    listed = files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time
    entries = {entry["func"].partition("(")[0]: entry for entry in yaml.load(listed, loader)}

    def has_kernel(name: str) -> bool:
        entry = entries[name]
        keys = ",".join(entry.get("dispatch", {}))
        if "MPS" in keys or "Composite" in keys:
            return True
        if "structured_delegate" in entry:
            return has_kernel(entry["structured_delegate"])
        return not keys  # without a list of devices an operator is made of others

    return {name: has_kernel(name) for name in entries}
