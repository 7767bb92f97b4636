"""Answers that are files, which may be removed at any time: by their owner, or to make place for newer ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send


class File(FileResponse):
    """A file, or the part of it that was asked for. Raises FileNotFoundError, while it can be answered, if it is gone.

    Starlette sends the status before it opens the file, so a file that is removed in between would be an answer that
    breaks off.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, stat_result=os.stat(path), **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None

        async def send_when_opened(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                await send(start)
                start = None
            await send(message)

        await super().__call__(scope, receive, send_when_opened)
