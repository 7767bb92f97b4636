"""What holds the rooms apart, and what every module promises: read from the source, nothing is imported."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import tubelet

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tubelet"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the package that lies in a folder."""
    command = [sys.executable, "-c", LINT, str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


# rooms


def test_the_contracts_of_the_rooms_hold() -> None:
    done = lint(PACKAGE.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_every_contract_breaks_when_it_is_broken(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "tubelet", ignore=lambda _, names: [n for n in names if not is_source(n)])
    for room, forbidden in (
        ("core", "apps"),
        ("tracking", "attention"),
        ("training", "models"),
        ("inference", "models"),
        ("evaluation", "video"),
    ):
        (tmp_path / "tubelet" / room / "trespasser.py").write_text(f"import tubelet.{forbidden}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"0 kept, {len(CONTRACTS)} broken" in done.stdout, done.stdout + done.stderr


def is_source(name: str) -> bool:
    return name.endswith(".py") or ("." not in name and name != "__pycache__")


def test_every_room_has_its_layer() -> None:
    layers = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    named = {room.strip().removeprefix("tubelet.") for layer in layers for room in layer.split("|")}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert named == rooms


# modules


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Every module's name and source, parsed once."""
    return iter(_parsed().items())


@cache
def _parsed() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
    }


def called(tree: ast.Module) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Top-level packages that import statements name."""
    packages = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            packages.add(node.module.split(".")[0])
    return packages


# sockets

HOSTS = ("models/rcnn/model.py", "models/mask2former/model.py", "models/tags/model.py")
OTHERS_PACKAGES = {"nn", "torch", "timm", "os"}  # whose private names are a matter between them and us


def test_a_host_never_asks_what_a_plug_is() -> None:
    sources = dict(trees())
    assert [name for name in HOSTS if called(sources[name]) & {"isinstance", "issubclass", "type"}] == []
    assert [name for name in HOSTS if compared(sources[name]) & {"kind", "__class__", "__name__"}] == []


def compared(tree: ast.Module) -> set[str]:
    """Names of attributes that are compared with something."""
    sides = [
        side for node in ast.walk(tree) if isinstance(node, ast.Compare) for side in (node.left, *node.comparators)
    ]
    return {side.attr for side in sides if isinstance(side, ast.Attribute)}


def test_no_object_gets_another_class() -> None:
    written = [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "__class__" and isinstance(node.ctx, ast.Store)
    ]
    assert written == []


def test_inference_knows_what_a_model_can_do_by_its_traits() -> None:
    asked = {"getattr", "hasattr", "setattr", "vars", "dir"}
    assert [name for name, tree in trees() if name.startswith("inference/") and called(tree) & asked] == []


def test_private_names_of_models_are_private() -> None:
    foreign = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, tree in trees()
        if name.startswith(("models/", "inference/"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if ast.unparse(node.value) not in ("self", "cls", "super()")
        if ast.unparse(node).split(".")[0] not in OTHERS_PACKAGES
    ]
    assert foreign == []


def test_every_module_says_what_it_is_for() -> None:
    # an empty __init__ needs no words: the room's name says it
    silent = [name for name, tree in trees() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def unannotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    bare = [a.arg for a in named if a is not None and a.annotation is None and a.arg not in ("self", "cls")]
    return bool(bare) or function.returns is None


def test_every_function_is_annotated() -> None:
    bare = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and unannotated(node)
    ]
    assert bare == []


def test_nothing_from_outside_is_ever_unpickled_or_executed() -> None:
    calls = {"torch.load", "eval", "exec", "np.load", "numpy.load", "yaml.load", "os.system"}
    packages = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    unsafe = [n for n, tree in trees() if called(tree) & calls or imported(ast.walk(tree)) & packages]
    assert unsafe == []


def moves(tree: ast.Module) -> bool:
    """Whether a file is moved: os.rename and the like, or Path.rename and Path.replace, which take one argument."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    by_name = {
        "os.rename",
        "os.renames",
        "os.replace",
        "os.link",
        "shutil.move",
        "tempfile.mkstemp",
        "tempfile.mkdtemp",
    }
    return any(
        ast.unparse(call.func) in by_name
        or (isinstance(call.func, ast.Attribute) and call.func.attr in ("rename", "replace") and len(call.args) == 1)
        for call in calls
    )


def test_files_are_moved_into_their_place_in_one_module() -> None:
    # the page's server moves whole folders of its own store
    names = ("exports", "jobs/store", "jobs/tasks", "jobs/trainings", "jobs/own_models")
    store = [f"apps/web/{name}.py" for name in names]
    movers = [name for name, tree in trees() if moves(tree) and name not in store]
    assert movers == ["core/atomic.py"]


def test_media_are_opened_where_any_title_can_be_read() -> None:
    # the writers open what they write
    opening = [name for name, tree in trees() if called(tree) & {"av.open", "av.container.open"}]
    assert sorted(opening) == ["video/transparent.py", "video/writer.py"]


# the front door: what reads bytes from outside, and where else it may stand

DOOR = "core/untrusted/"
READERS = {
    "json.load", "json.loads", "msgspec.json.decode", "msgspec.json.Decoder", "cv2.imdecode", "cv2.imread",
    "Image.open", "np.fromfile", "np.loadtxt", "np.memmap", "safe_open", "load_file",
}  # fmt: skip
READING_METHODS = {"read_bytes", "read_text", "model_validate_json", "validate_json"}
PARSERS = {"zipfile", "tarfile", "gzip", "bz2", "lzma", "xml", "sqlite3", "csv", "yaml", "tomllib"}
ELSEWHERE = {
    "apps/batch/command.py": "writes its summary as CSV",
    "core/atomic.py": "reads what the system says of a process",
    "apps/web/": "the page's own room: what it reads, it has written",
    "formats/cvat/writing.py": "writes XML",
    "formats/files.py": "names the type of an archive that the door has opened",
    "formats/submission.py": "writes an archive",
    "inference/counts.py": "writes its counts as CSV",
    "training/checkpoint.py": "sorts the header of a file that it has just written",
    "video/": "films are decoded by FFmpeg, with its own protections",
}


def opens_for_reading(call: ast.Call) -> bool:
    """Whether this is `open(...)` or `path.open(...)` with a mode that reads."""
    name = ast.unparse(call.func)
    if name == "os.open" or name.rpartition(".")[2] != "open" or not (call.args or name == "open"):
        return False
    modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return not any(text and set(text) <= set("waxbt") for text in texts)


def readers(tree: ast.Module) -> set[str]:
    """What in a module reads bytes from outside by itself."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    # a method is an attribute; functions of these names are the door's own
    methods = {node.func.attr for node in calls if isinstance(node.func, ast.Attribute)} & READING_METHODS
    opened = {ast.unparse(node) for node in calls if opens_for_reading(node)}
    return called(tree) & READERS | methods | opened | imported(ast.walk(tree)) & PARSERS


def test_bytes_from_outside_come_in_by_one_door() -> None:
    allowed = (DOOR, *ELSEWHERE)
    found = {name: sorted(readers(tree)) for name, tree in trees() if not name.startswith(allowed) and readers(tree)}
    assert found == {}


def test_every_exception_to_the_door_is_needed() -> None:
    modules = dict(trees())
    for place in (DOOR, *ELSEWHERE):
        assert any(readers(tree) for name, tree in modules.items() if name.startswith(place)), place


def test_the_rule_of_the_door_sees_every_way_in() -> None:
    for line in (
        "import json; json.loads(x)",
        "from xml.etree import ElementTree",
        "import zipfile",
        "open(x)",
        "open(x, 'rb')",
        "x.open('r+b')",
        "x.read_text()",
        "Image.open(x)",
        "cv2.imdecode(x, 1)",
        "safe_open(x, 'pt')",
    ):
        assert readers(ast.parse(line)), line
    for line in ("open(x, 'w')", "x.open('ab')", "os.open(x, 0)", "json.dumps(x)", "read_text(x)", "jobs.open()"):
        assert not readers(ast.parse(line)), line


def test_libraries_do_not_print() -> None:
    assert [name for name, tree in trees() if "print" in called(tree) and not name.startswith("apps/")] == []


def test_matplotlib_waits_until_a_curve_is_drawn() -> None:
    assert [name for name, tree in trees() if "matplotlib" in imported(tree.body)] == []


def test_licences_that_would_bind_the_user_are_not_imported() -> None:
    packages = {"ultralytics", "albumentations", "boxmot", "trackeval"}
    assert [name for name, tree in trees() if imported(ast.walk(tree)) & packages] == []


def test_the_version_is_told_once() -> None:
    assert tubelet.__version__ == PROJECT["project"]["version"]


def test_configs_are_changed_through_their_one_door() -> None:
    """`model_copy(update=...)` checks nothing, so only the base of the configs may use it."""
    sources = [path for path in PACKAGE.rglob("*.py") if "model_copy(" in path.read_text()]
    assert sources == []


def test_recipes_are_typed_expressions() -> None:
    """Dotted strings belong to the command line: in a recipe a wrong field must fail at import."""
    sources = {path.name for path in (PACKAGE / "recipes").glob("*.py") if ".override(" in path.read_text()}
    assert sources == {"bundle.py", "training.py"}  # a command line of its own, and what reads the command line's words


# names and cycles


def test_public_classes_have_names_of_their_own() -> None:
    homes: dict[str, list[str]] = {}
    for name, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def edges() -> dict[str, set[str]]:
    """Which module imports which, for the type checker's sake too; the top of the package imports nothing itself."""
    modules = {module_name(path) for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, tree in trees():
        if name == "__init__.py":
            continue
        imports = found.setdefault(module_name(PACKAGE / name), set())
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                imports |= {whole if whole in modules else node.module} & modules
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("tubelet", *parts)).removesuffix(".__init__")


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter(edges()).prepare()  # raises CycleError, which names the cycle
