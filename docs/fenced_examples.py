"""For the documentation's pages: examples in docstrings, which begin with >>>, are shown as code."""

from __future__ import annotations

import textwrap
from typing import Any

import griffe


class FencedExamples(griffe.Extension):
    """Puts a fence around every block of lines that begins with >>> and ends at an empty line."""

    def on_instance(self, *, obj: griffe.Object, **further: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The docstring with its examples in fences, and without the line that announces them."""
    blocks = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].strip() in ("Example:", "Examples:"):
            lines = lines[1:]
        if lines and lines[0].lstrip().startswith(">>>"):
            code = textwrap.dedent("\n".join(lines))
            block = f"```pycon\n{code}\n```"
        blocks.append(block)
    return "\n\n".join(blocks)
