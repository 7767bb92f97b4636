"""What is an address, of the web or for fsspec, and what is a path."""

from __future__ import annotations

import pytest

from tubelet.core.remote import is_remote
from tubelet.core.untrusted.addresses import is_address, is_web_address


@pytest.mark.parametrize(
    "source", ["http://a/b.mp4", "HTTPS://a/b.mp4", "s3://a/b.mp4", "git+ssh://a", "rtsp://a:554/1"]
)
def test_a_scheme_and_two_slashes_begin_an_address(source: str) -> None:
    web = source.lower().startswith("http")
    assert (is_address(source), is_web_address(source), is_remote(source)) == (True, web, not web)


@pytest.mark.parametrize(
    "source",
    [
        "a:/b.mp4",
        "ab:/b.mp4",
        "ab:b.mp4",
        "c://b.mp4",
        "./s3://b.mp4",
        "films/s3://b.mp4",
        "1st://b.mp4",
        "://b.mp4",
        "",
    ],
)
def test_a_colon_alone_makes_no_address(source: str) -> None:
    assert (is_address(source), is_web_address(source), is_remote(source)) == (False, False, False)
