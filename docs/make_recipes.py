"""Writes recipes.md, the table of every recipe, from the recipes themselves: `python docs/make_recipes.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tubelet import recipes
from tubelet.recipes.experiment import COCO, AnyForm, Experiment, Generated, WithImages, YouTubeVIS

PAGE = Path(__file__).with_name("recipes.md")

HEAD = """# Every recipe

A recipe is everything that a training needs but the place of the data. `tubelet list recipes` prints the same names.

```
tubelet train masktrack/generated --out runs/first
tubelet train masktrack/ytvis2019 data.annotations=train.json --out runs/ytvis
```

*Data* is what to name, as in `data.annotations=train.json`; "nothing" means generated videos. *Starts from*
are weights that are fetched where there is a network, or what to name, as in `init=runs/r50`; `init=none` trains from
nothing. *Published* are the paper's own figures in percent, not ours: AP on YouTube-VIS validation, J&F on DAVIS,
unless the description says otherwise. Where a paper tests one training in several ways, these stand in brackets.

This page is made by `python docs/make_recipes.py`, and the tests compare it with the recipes.
"""

FAMILIES = {
    "compfeat": ("CompFeat", "papers/compfeat.md"),
    "default": ("The default model", "papers/default.md"),
    "finetune": ("The default model on your own videos", "my-own-videos.md"),
    "ifr": ("IFR", "papers/ifr.md"),
    "mask2former_vis": ("Mask2Former-VIS", "papers/mask2former_vis.md"),
    "masktrack": ("MaskTrack R-CNN", "papers/masktrack_rcnn.md"),
    "objprop": ("ObjProp", "papers/objprop.md"),
    "objprop_attention": (
        "ObjProp with attention neck, weighted affinity, ordered pairs",
        "papers/objprop_attention.md",
    ),
    "small": ("Small systems, one budget for all", ""),
    "ssdlite": ("The bundled model ssdlite, the first generation", "papers/default.md"),
    "ssdlite-start": ("Its first stage", "papers/default.md"),
    "sta": ("STA", "papers/sta.md"),
    "tags": ("Tags, bottom-up", "papers/tags.md"),
    "teach": ("The default model, taught by mended results", "mending.md"),
    "videomt": ("VidEoMT", "papers/videomt.md"),
}
NEEDS = {
    YouTubeVIS: "`data.annotations`",
    AnyForm: "`data.path`",
    COCO: "`data.annotations`",
    WithImages: "`data.videos.annotations`, `data.images.annotations`",
    Generated: "nothing",
}


def page() -> str:
    """The whole of recipes.md."""
    parts = [HEAD]
    for family, names in groupby(recipes.names(), key=_family):
        title, paper = FAMILIES.get(family, (family, ""))
        told = f"\n[What it is]({paper}).\n" if paper else ""
        parts.append(f"## {title}\n{told}\n" + "\n".join(_table(names)) + "\n")
    return "\n".join(parts)


def _family(name: str) -> str:
    return "default" if name.startswith("default") else name.partition("/")[0]


def _table(names: Iterator[str]) -> Iterator[str]:
    yield "| recipe | what | data | starts from | published |"
    yield "|---|---|---|---|---|"
    for name in names:
        recipe = recipes.find(name)
        cells = (f"`{name}`", recipe.about, NEEDS[type(recipe.data)], _start(recipe), _published(recipe))
        yield "| " + " | ".join(cells) + " |"


def _start(recipe: Experiment) -> str:
    if recipe.init is not None:
        return "nothing" if recipe.init == "none" else f"`{recipe.init}`"
    return f"a run of `{recipe.init_recipe}`" if recipe.init_recipe else recipe.init_needs


def _published(recipe: Experiment) -> str:
    others = [
        f"{name}: {_figures(way.paper)}"
        for name, way in recipe.evaluations.items()
        if way.paper and way.paper != recipe.paper
    ]
    return _figures(recipe.paper) + (f" ({'; '.join(others)})" if others else "")


def _figures(paper: dict[str, float]) -> str:
    return ", ".join(f"{paper[measure]} {measure}" for measure in sorted(paper, key=_order))


def _order(measure: str) -> int:
    known = ("AP", "AP50", "AP75", "AR1", "AR10", "J&F", "J", "F", "IDF1", "MOTA", "IDP", "IDR", "IDs")
    return known.index(measure) if measure in known else len(known)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
