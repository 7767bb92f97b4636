"""A wheel that works outside the repository: `make wheel` builds it, installs it and runs its demo in another folder.

The fresh environment has the wheel and, by a .pth file, the libraries of the environment that runs this, so nothing is
downloaded but the build's own tool.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

import matrix

WHERE = "import tubelet; print(tubelet.__file__)"
EXPECTED = ("overlay.mp4", "predictions.json")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tubelet-wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        check_content(wheel)

        environment = install(wheel, folder / "environment")
        check_demo(environment, folder / "elsewhere")
    matrix.say(f"{wheel.name} works outside the repository")


def build(folder: Path) -> Path:
    uv = matrix.find_uv(matrix.Python(version=sys.version_info[:3], path=sys.executable))
    matrix.call([uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(matrix.ROOT)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """The package with all its files, the licences, and nothing else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    strangers = {name for name in names if not name.startswith(("tubelet/", "tubelet-"))}
    assert not strangers, f"the wheel has {', '.join(sorted(strangers)[:3])}"

    source = matrix.ROOT / "src"
    tracked = subprocess.run(
        ["git", "ls-files", "tubelet"], cwd=source, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    missing = set(tracked) - names
    assert not missing, f"the wheel lacks {', '.join(sorted(missing)[:3])}"
    assert any(name.endswith("licenses/LICENSE") for name in names), "the wheel lacks the licence"


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel alone, which borrows the libraries of this one."""
    venv.create(folder, with_pip=False, symlinks=True)
    uv = matrix.find_uv(matrix.Python(version=sys.version_info[:3], path=sys.executable))
    python = folder / "bin" / "python"
    matrix.call([uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel)])

    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    libraries = sysconfig.get_path("purelib")
    (Path(own.stdout.strip()) / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    return folder


def check_demo(environment: Path, folder: Path) -> None:
    """Run what a user runs, where no source is."""
    folder.mkdir()
    settings = matrix.environment()
    where = subprocess.run(
        [environment / "bin" / "python", "-c", WHERE],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(environment), f"the demo would run {where.stdout.strip()}"

    subprocess.run([environment / "bin" / "tubelet", "demo", "--out", "demo"], cwd=folder, env=settings, check=True)
    missing = [name for name in EXPECTED if not (folder / "demo" / name).is_file()]
    assert not missing, f"the demo did not write {', '.join(missing)}"


if __name__ == "__main__":
    main()
