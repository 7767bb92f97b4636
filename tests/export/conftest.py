"""Fixtures of this room."""

from model_fixtures import build, make_clip, small_config  # noqa: F401
