"""`tubelet demo`: run the bundled model on the bundled video. docs/demo names the authors of its photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.apps.console import show
from tubelet.apps.option_texts import DEVICE_HELP
from tubelet.apps.options import Engine
from tubelet.apps.predict import segment

VIDEO = Path(__file__).with_name("demo.mp4")


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where results go.")] = Path("runs/demo"),
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    engine: Engine = "torch",
) -> None:
    """Segment and track the bundled video with the bundled model."""
    from tubelet.inference.many.batch import Settings

    segment(VIDEO, out, Settings(model="default", engine=engine), device=device)
    show(f"look at {out / 'overlay.mp4'}; then try your own: tubelet predict VIDEO --out DIR")
