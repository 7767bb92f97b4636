"""The documentation: links, commands and names are there, examples and the notebook run, the site builds offline."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer
import yaml
from nbclient import NotebookClient

import tubelet
from tubelet import recipes
from tubelet.apps.cli import app, separated

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS: Any = typer.main.get_command(app)


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What headings are called in links, as code hosts and the site make it of them."""
    titles = [line.lstrip("# ") for line in prose(page).splitlines() if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = page.parent / place if place else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield f"{page.relative_to(ROOT)}: {target}"


def test_every_relative_link_and_anchor_leads_somewhere() -> None:
    assert [fault for page in PAGES for fault in broken_links(page)] == []


def told_commands(page: Path) -> Iterator[list[str]]:
    """Every command line in the page's blocks, fenced or indented, without `tubelet` itself."""
    indented = re.findall(r"^    .*\n", prose(page), re.MULTILINE)
    for line in "".join([*blocks(page, ""), *indented]).replace("\\\n", " ").splitlines():
        found = re.match(r" *(?:torchrun .*-m )?tubelet ([^:].*)", line)
        if found:
            yield shlex.split(found[1], comments=True)


def fault_of(words: list[str]) -> str | None:
    """Why this command line would be refused before it does anything."""
    command, rest = COMMANDS, separated([word for word in words if word != "..."])
    if rest[0] == "--help" or "|" in "".join(rest[:2]):  # data check|stats|...: several commands in one line
        return None
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return f"no command {' '.join(rest[:1])!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    if "--help" in rest:
        return None
    try:
        given = command.make_context(command.name, rest).params
        if command.name == "train":
            recipes.find(given["recipe"]).override(*(given["overrides"] or ()))
    except Exception as error:  # whatever it is, the page is wrong
        return f"{type(error).__name__}: {error}"
    return None


def test_every_command_that_is_shown_is_understood() -> None:
    told = [(page.name, words) for page in PAGES for words in told_commands(page)]
    assert len(told) > 30
    faults = {f"{name}: tubelet {shlex.join(words)}": fault_of(words) for name, words in told}
    assert {line: fault for line, fault in faults.items() if fault} == {}


def test_every_command_beside_those_of_other_tools_is_understood() -> None:
    cells = re.findall(
        r"\| `(?:torchrun .*-m )?tubelet ([^`]+)` \|$", (DOCS / "coming-from.md").read_text(), re.MULTILINE
    )
    assert len(cells) > 20
    faults = {cell: fault_of(shlex.split(cell)) for cell in cells}
    assert {cell: fault for cell, fault in faults.items() if fault} == {}


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    assert fault_of(["predcit", "dog.mp4"])
    assert fault_of(["predict", "dog.mp4", "--outt", "out"])
    assert fault_of(["train", "default", "optim.lrr=1", "--out", "runs"])
    assert fault_of(["evaluate", "ytvs", "truth.json", "guesses.json"])


def unknown_names(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tubelet"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if not hasattr(module, alias.name) and not importlib.util.find_spec(submodule):
                    yield submodule
        direct = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tubelet"
        if direct and node.attr not in tubelet.__all__:
            yield f"tubelet.{node.attr}"


def test_every_name_that_python_examples_import_exists() -> None:
    told = [(page.name, code) for page in PAGES for code in blocks(page, "python")]
    assert len(told) > 10
    assert [f"{page}: {name}" for page, code in told for name in unknown_names(code)] == []


def test_the_examples_run_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "examples"}
    for number, code in enumerate(blocks(DOCS / "examples.md", "python"), start=1):
        exec(compile(code, f"examples.md, block {number}", "exec"), names)
    assert {"overlay.mp4", "predictions.json", "contact_sheet.png"} <= {path.name for path in Path("out").iterdir()}


def test_the_notebook_runs_from_top_to_bottom_and_holds_no_outputs(tmp_path: Path) -> None:
    path = DOCS / "notebook.ipynb"
    assert path.stat().st_size < 20_000
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    NotebookClient(
        notebook, startup_timeout=300, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)
    assert "right    {'AP': 1.0, 'IDF1': 1.0}" in printed
    assert (tmp_path / "notebook-out" / "overlay.mp4").is_file()


def script(name: str) -> Any:
    """A program of docs/ that is no part of the package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_results_are_those_of_the_kept_summaries() -> None:
    written = (DOCS / "results.md").read_text(encoding="utf-8")
    assert written == script("make_results").page(), "run python docs/make_results.py"
    assert written.count("| MaskTrack R-CNN |") >= 3


def test_the_table_of_recipes_is_that_of_the_recipes() -> None:
    written = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert written == script("make_recipes").page(), "run python docs/make_recipes.py"
    assert re.findall(r"^\| `([^`]+)`", written, re.MULTILINE) == recipes.names()


def test_the_page_of_commands_is_that_of_the_program() -> None:
    make_commands = script("make_commands")
    written = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert written == make_commands.page(), "run python docs/make_commands.py"
    assert set(re.findall(r"^## tubelet (.+)", written, re.MULTILINE)) == set(make_commands.EXAMPLES)


def test_every_option_has_an_example_that_is_understood() -> None:
    make_commands = script("make_commands")
    unused = set(make_commands.VALUES)
    for name, command in make_commands.commands():
        line = [*name.split(), *shlex.split(make_commands.EXAMPLES[name])]
        for option in command.params:
            if option.param_type_name == "option" and not option.hidden:
                words = make_commands.example(name, option)
                assert fault_of([*line, *shlex.split(words)]) is None, f"tubelet {name}: {words}"
                flag = option.opts[0]
                unused.discard(f"{name} {flag}" if f"{name} {flag}" in make_commands.VALUES else flag)
    assert unused == set()


def test_the_reference_names_everything_public() -> None:
    headings = set(re.findall(r"heading: (?:tubelet\.)?(\w+)", (DOCS / "api.md").read_text(encoding="utf-8")))
    assert set(tubelet.__all__) - {"__version__"} <= headings


class Fetched(HTMLParser):
    """The addresses that a browser asks for when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag != "a":
            self.addresses += [given[name] or "" for name in ("src", "srcset", "href", "data") if name in given]
        self.addresses += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every address of the network out of reach."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_asks_no_other_server_for_anything(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    outside = re.compile(r"(?:https?:)?//")
    for page in pages:
        fetched, text = Fetched(), page.read_text(encoding="utf-8")
        fetched.feed(text)
        assert [address for address in fetched.addresses if outside.match(address)] == [], page
        assert 'class="mermaid"' not in text, "the theme fetches the drawing of diagrams from a CDN"
    for style in site.rglob("*.css"):
        asked = re.findall(r"(?:url\(|@import )['\"]?([^'\")]+)", style.read_text(encoding="utf-8"))
        assert [address for address in asked if outside.match(address)] == [], style


def test_every_page_can_be_reached_and_found(site: Path) -> None:
    built = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")} - {"404"}
    assert built == {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert all(f'"location":"{name}.html"' in index for name in built)
    documents = json.loads(index)["docs"]
    for words, page in (("--threshold", "commands.html#tubelet-predict"), ("threshold", "api.html")):
        found = [entry["location"] for entry in documents if words in entry["text"] + entry["title"]]
        assert any(location.startswith(page) for location in found), words
    home = (site / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{name}.html"' in home for name in built - {"index"})


def test_the_reference_shows_signatures_and_docstrings(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    assert "tubelet.predict" in text
    assert "Find, outline, name and follow every object of a video." in text
    assert "threshold: float = 0.5" in text


def test_the_site_loads_no_web_fonts() -> None:
    theme = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["theme"]
    assert theme["font"] is False


@pytest.fixture(scope="module")
def metric_pictures() -> Any:
    """The script that draws them."""
    pytest.importorskip("matplotlib")
    return script("make_metric_pictures")


@pytest.mark.parametrize("name", ["overlap_of_tracks", "identity_switches", "region_and_boundary"])
def test_what_is_said_of_a_picture_of_metrics_is_what_it_shows(metric_pictures: Any, name: str) -> None:
    from matplotlib.text import Text

    figure = getattr(metric_pictures, name)()
    shown = " ".join(text.get_text() for text in figure.findobj(Text))
    said = re.search(rf"!\[([^]]*)\]\(pictures/{name}.png\)", (DOCS / "metrics.md").read_text(encoding="utf-8"))
    assert said is not None
    numbers = set(re.findall(r"\d+\.\d+|\d{3,}", said[1]))
    assert numbers
    assert numbers <= set(re.findall(r"\d+\.\d+|\d{3,}", shown)) | {"100"}
    assert (DOCS / "pictures" / f"{name}.png").stat().st_size < 40_000
