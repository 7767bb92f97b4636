"""YouTube-VIS 2019, 2021, 2022 and OVIS: read, check and write their JSON files."""

from tubelet.formats.ytvis.reading import (
    OCCLUSION,
    AnnotatedSet,
    read,
    read_predictions,
    read_tables,
    write_folder,
    write_predictions,
    write_results,
    write_set,
)

__all__ = [
    "OCCLUSION",
    "AnnotatedSet",
    "read",
    "read_predictions",
    "read_tables",
    "write_folder",
    "write_predictions",
    "write_results",
    "write_set",
]
