"""Fixtures of this room."""

from data_fixtures import coco_folder, coco_set, generated, make_clip, one_video  # noqa: F401
