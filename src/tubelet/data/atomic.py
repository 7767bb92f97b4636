"""The former place of `core.atomic`, for the page's server alone."""

from __future__ import annotations

from tubelet.core.atomic import new_folder, replacing

__all__ = ["new_folder", "replacing"]
