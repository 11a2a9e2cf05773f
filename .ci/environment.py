"""Make one of the checkout's virtual environments, or bring it up to date, and install the built wheel into it.

    python3 .ci/environment.py core|prefect|airflow|demo|demo-airflow

What an environment needs is written in pyproject.toml only: the package's dependencies, its extras and the
dependency groups. An environment keeps the list it was made from; a second run with the same list and the same
Python installs nothing. The wheel is built once per state of the sources. The network is used by pip alone, so the
user's pip configuration (index, proxy, certificates) holds. Needs nothing beyond Python's standard library.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, TOO_NEW = (3, 11), (3, 14)
ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / "build" / "wheels"
SOURCES = ("shared", "cagg_prefect", "cagg_airflow", "pyproject.toml", "README.md", "LICENSE")

ENVIRONMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # name: (extras, dependency groups)
    "core": (("postgres",), ("build", "lint", "test", "bench")),
    "prefect": (("prefect", "postgres"), ("build", "types", "test", "examples")),
    "airflow": (("airflow", "postgres"), ("build", "types", "test", "examples")),
    "demo": (("prefect",), ("build", "examples")),
    "demo-airflow": (("airflow",), ("build", "examples")),
}


def main(name: str) -> None:
    """Bring the environment up to date and say what was done."""
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"cagg needs Python 3.11, 3.12 or 3.13 and {sys.executable} is {found}; "
            "name another one, for example: make PYTHON=python3.12 test"
        )
    folder = ROOT / f".venv-{name}"
    requirements = requirements_of(name)
    python = folder / "bin" / "python"
    marker = folder / "requirements.txt"
    if not marker.exists() or marker.read_text() != requirements:
        print(f"{folder.name}: installing, once", flush=True)
        create(folder)
        wanted = folder / "requirements.wanted"
        wanted.write_text(requirements)
        pip(python, "install", "--quiet", "-r", str(wanted))
        wanted.replace(marker)
    state = state_of_sources()
    installed = folder / "installed-sources.txt"
    if not installed.exists() or installed.read_text() != state:
        wheel = built_wheel(python, state)
        pip(python, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
        installed.write_text(state)
        print(f"{folder.name}: {wheel.name} installed", flush=True)


def requirements_of(name: str) -> str:
    """Return pip's requirement file for an environment; its first line names the Python it was made with."""
    import tomllib  # Python 3.11 and later: the version was checked before

    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras, groups = ENVIRONMENTS[name]
    lines = list(document["project"]["dependencies"])
    for extra in extras:
        lines += document["project"]["optional-dependencies"][extra]
    for group in groups:
        lines += document["dependency-groups"][group]
    head = f"# {sys.implementation.name} {sys.version.split()[0]} at {sys.base_prefix} for {ROOT}"
    return "\n".join([head, *sorted(set(lines))]) + "\n"


def create(folder: Path) -> None:
    """Make an empty virtual environment in place of whatever is there."""
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False)
    if done.returncode != 0:
        sys.exit(
            f"{sys.executable} could not make the virtual environment {folder}; on Debian and Ubuntu install the "
            "package python3-venv, then run make again."
        )


def pip(python: Path, *arguments: str) -> None:
    """Run the environment's own pip; its messages and the user's pip configuration stay as they are."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        sys.exit(f"pip failed (its message stands above): {' '.join(command)}")


def state_of_sources() -> str:
    """Return a digest of every file that goes into the wheel."""
    digest = hashlib.sha256()
    for top in SOURCES:
        path = ROOT / top
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def built_wheel(python: Path, state: str) -> Path:
    """Return the wheel of these sources; built with the environment's own hatchling unless it exists."""
    folder = WHEELS / state[:16]
    found = list(folder.glob("cagg-*.whl"))
    if not found:
        shutil.rmtree(WHEELS, ignore_errors=True)
        folder.mkdir(parents=True)
        pip(python, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
        found = list(folder.glob("cagg-*.whl"))
    return found[0]


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ENVIRONMENTS:
        sys.exit(f"usage: {Path(sys.argv[0]).name} {'|'.join(ENVIRONMENTS)}")
    main(sys.argv[1])
