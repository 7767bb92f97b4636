"""Predicting imports no compiler, which would take as long as all the rest; whoever needs it still gets it."""

from __future__ import annotations

import json
import subprocess
import sys

import torch

from tubelet.models.without_compiler import disable, is_compile_supported

SMALL_PREDICT = """
import json, sys
import numpy as np
import tubelet

model = tubelet.load("default", device="cpu")
tubelet.predict(model, np.zeros((2, 48, 64, 3), np.uint8))
unused = ("torch._dynamo", "torch._inductor", "sympy", "matplotlib", "pandas", "transformers", "fastapi", "rich")
loaded = [name for name in unused if name in sys.modules]

import torch
from torchvision.ops import roi_align
compiled = torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1))
print(json.dumps([loaded, compiled.item(), sys.modules["torch._dynamo"].__file__ is not None]))
"""


def test_a_small_predict_imports_no_compiler_and_the_compiler_works_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", SMALL_PREDICT], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], 1.0, True]


def test_the_stand_ins_do_what_the_compiler_says() -> None:
    from torch._dynamo import utils

    assert is_compile_supported("cpu") == utils.is_compile_supported("cpu")
    assert disable(torch.add)(torch.ones(1), 2).item() == 3
