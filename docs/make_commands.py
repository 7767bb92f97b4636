"""Writes commands.md, every command with its options, from the program itself: `python docs/make_commands.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tubelet.apps.cli import app

PAGE = Path(__file__).with_name("commands.md")

HEAD = """# Every command

What `tubelet --help` and `tubelet COMMAND --help` print, on one page, with an example for each command and each option.

`--quiet` may stand anywhere in a command and shows no progress. `tubelet --install-completion` teaches the shell to
complete commands and options. `tubelet --version` says which version this is. A fault of yours is one line, and the
exit code is 2.

This page is made by `python docs/make_commands.py`, and the tests compare it with the program.
"""

EXAMPLES = {
    "predict": "shop.mp4 --classes person --line door=100,400,540,400 --out out",
    "demo": "",
    "attend": "dog.mp4 --model runs/sta --frame 40 --at 320,180",
    "serve": "--model default --model ssdlite",
    "stream": "0 --json --line door=0,240,640,240",
    "edit": "runs/street --merge 3,7 --split 5@120 --video street.mp4",
    "batch": "videos/ --out results --workers 4",
    "export": "default --out default.onnx",
    "doctor": "",
    "train": "finetune data.annotations=boats/train.json data.hold_out=0.1 --out runs/boats",
    "synth": "world frames=40 objects=[2,5] --videos 20",
    "table": "objprop_attention/table1 --small",
    "list": "models --for cpu",
    "report": "truth.json ours.json theirs.json --out report",
    "submission": "predictions.json --out submission.zip",
    "evaluate model": "runs/boats --data boats/val.json --metrics ap,jf,identity --out runs/boats-val",
    "evaluate ytvis": "truth.json predictions.json --details",
    "evaluate davis": "DAVIS/Annotations_unsupervised results --split val",
    "evaluate identity": "truth.json predictions.json --rules trackeval",
    "evaluate semantic": "truth.json predictions.json",
    "evaluate failures": "truth.json predictions.json",
    "evaluate oracles": "truth.json predictions.json",
    "bench vis": "--out runs/bench --rows masktrack,sta --plan check",
    "bench tables": "runs/bench/generated.json --rows all",
    "data check": "boats",
    "data stats": "boats --out stats.png",
    "data browse": "boats --out sheets",
    "data split": "boats --share 0.2",
    "data label": "my-set runs/street/edited=street.mp4",
    "data convert": "exports boats --to ytvis",
}

VALUES = {  # of options, or of a command's option
    "--add": "dog@10=5,5,40,5,40,30",
    "--anchor": "bottom",
    "--as": "table4/T2",
    "--at": "320,180",
    "--classes": "person,dog",
    "--coco": "instances.json",
    "--confident": "0.5",
    "--curve": "curve.svg",
    "--data": "val.json",
    "serve --addresses": "none",
    "serve --data": "runs/web",
    "--decode": "0",
    "--delete": "6@100-120",
    "--delete-alike": "6",
    "--device": "cuda",
    "--distinct": "0.5",
    "--each": "0",
    "--edits": "edits.json",
    "--end": "70",
    "--engine": "openvino",
    "--every": "5",
    "--examples": "10",
    "--follow": "3@10-40",
    "--for": "commercial",
    "--form": "cvat",
    "--format": "onnx",
    "--frame": "40",
    "--frames": "JPEGImages.zip",
    "export --frames": "5",
    "--from": "cvat",
    "--gigabytes": "8",
    "--host": "0.0.0.0",
    "--input-size": "640",
    "--jobs": "2",
    "--json": "numbers.json",
    "--keep": "100",
    "--line": "door=100,400,540,400",
    "--list": "videos.txt",
    "--long": "long.txt",
    "--max-frames": "20000",
    "--max-megabytes": "2000",
    "--merge": "3,7",
    "--metrics": "ap,jf",
    "--minutes": "60",
    "--model": "runs/boats",
    "--name": "street",
    "--new-user": "anna",
    "--out": "out",
    "data stats --out": "stats.png",
    "export --out": "default.onnx",
    "submission --out": "submission.zip",
    "--overlay": "boxes=true opacity=0.2",
    "--pictures": "pictures",
    "--plan": "check",
    "--port": "8080",
    "--proxy": "10.0.0.5",
    "--public": "https://videos.example.org",
    "--queue": "20",
    "--rate": "20",
    "--ray": "auto",
    "--redraw": "3@10=5,5,40,5,40,30",
    "--rename": "4=bicycle",
    "--results": "jsonl",
    "--roi": "0,200,640,200,640,360,0,360",
    "--rows": "masktrack,sta",
    "table --rows": "'2019-*'",
    "--rules": "trackeval",
    "--runs": "runs",
    "--seed": "1",
    "--seeds": "3",
    "bench vis --seeds": "0,1,2",
    "--seen": "0-200",
    "--set": "pasted",
    "--share": "0.2",
    "--shots": "6",
    "--silence": "3600",
    "--size": "480x640",
    "--split": "val",
    "edit --split": "5@120",
    "bench vis --split": "split.json",
    "--start": "10",
    "--swap": "1,2@200-240",
    "--threads": "2",
    "--threshold": "0.3",
    "--to": "ytvis",
    "--top": "10",
    "--train-data": "train.json",
    "--truth": "val.json",
    "--unknown": "0.7",
    "--users": "users.toml",
    "--video": "street.mp4",
    "--videos": "20",
    "--views": "3",
    "--window": "length=5 stride=3",
    "--workers": "4",
    "--zone": "till=600,200,900,200,900,500,600,500",
}
TYPES = {"float range": "NUMBER", "int range": "N", "int": "N", "str": "NAME"}  # what the program calls values


def page() -> str:
    """The whole of commands.md."""
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands())])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its name: "data check"."""
    groups: list[tuple[str, Any]] = [("", typer.main.get_command(app))]
    for name, group in groups:
        for word, command in group.commands.items():
            full = f"{name} {word}".strip()
            if hasattr(command, "commands"):
                groups.append((full, command))
            else:
                yield full, command


def example(name: str, option: Any) -> str:
    """An option as it is written in a command."""
    flag = option.opts[0]
    if option.is_flag:
        return str(flag)
    value = VALUES.get(f"{name} {flag}", VALUES.get(flag))
    if value is None:
        raise LookupError(f"docs/make_commands.py: expected an example of `tubelet {name} {flag}` in VALUES")
    return f"{flag} {value}"


def _section(name: str, command: Any) -> str:
    about = re.sub(r"\n(?!\n)", " ", re.sub(r"\n +", "\n", command.help or "")).strip()
    if name not in EXAMPLES:
        raise LookupError(f"docs/make_commands.py: expected an example of `tubelet {name}` in EXAMPLES")
    line = f"tubelet {name} {EXAMPLES[name]}".strip()
    parts = [f"## tubelet {name}", about, f"```\n{line}\n```"]

    context = command.make_context(name, [], resilient_parsing=True)
    rows = [_row(name, parameter, context) for parameter in command.params if not parameter.hidden]
    if rows:
        parts.append("\n".join(["| | what | as in |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _row(name: str, parameter: Any, context: Any) -> str:
    written, about = parameter.get_help_record(context)
    if parameter.param_type_name == "option":
        written = re.sub(r"<([^>]+)>", lambda kind: TYPES.get(kind[1], kind[1]), written)
        shown = f"`{example(name, parameter)}`"
    else:
        written = parameter.metavar
        shown = ""
    cells = [f"`{written}`", re.sub(r"\s+", " ", about), shown]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
