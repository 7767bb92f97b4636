"""Models: what they share, three families, and their weights."""

from tubelet.models.without_compiler import import_packages

import_packages()  # before any module of this room does
