"""``cagg demo``: a nightly validation on a local engine that is gated, deferred, metered, charged and recorded."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cagg.cli import demo_story
from cagg.cli._output import Json, answer, console, line
from cagg.cli.maintain import stop_requested
from cagg.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components

__all__ = ["demo", "environment_of", "prepare_folder"]

_MARKER = ".cagg-demo"
_POLL_SECONDS = 0.25
_SAY_EVERY = timedelta(minutes=30)
"""of the story"""


def demo(
    *,
    folder: Annotated[Path, typer.Option(help="Where everything is written; it is emptied first.")] = Path(".demo"),
    engine: Annotated[str | None, typer.Option(help="Engine that runs the job; default: the one installed.")] = None,
    json: Json = False,
) -> int:
    """See it work in a minute: a nightly job waits for a cleaner hour on a local engine, under a budget.

    Writes only below the folder. Exit status 0 when the job ran and the ledger verifies.
    """
    point = _engine(engine)
    folder = prepare_folder(folder)
    to = console(stderr=json)
    return _Demo(folder=folder, engine=point, to=to, json=json).play()


def _engine(name: str | None) -> EntryPoint:
    """Return the adapter to use; only its package's name is looked at, nothing of it is imported."""
    points = {point.name: point for point in entry_points(group="cagg.hosts") if _installed(point)}
    if name is not None and name not in points:
        raise MissingExtra(f"the engine {name!r} is not installed here; run: pip install 'cagg[{name}]'")
    if not points:
        raise MissingExtra("the demo needs an engine and none is installed here; run: pip install 'cagg[prefect]'")
    return points[name or min(points)]


def _installed(point: EntryPoint) -> bool:
    from importlib.util import find_spec

    return find_spec(point.name) is not None and find_spec(point.module.partition(".")[0]) is not None


def prepare_folder(folder: Path) -> Path:
    """Return the folder, empty but for its marker; only a folder that carries the marker is ever emptied.

    Raises:
        ConfigurationError: it is somebody else's, a link, or no folder.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigurationError(f"{folder} is no folder of its own; give the demo another one with --folder.")
    folder = folder.absolute()
    if folder.exists() and not (folder / _MARKER).is_file() and any(folder.iterdir()):
        raise ConfigurationError(
            f"{folder} is not empty and was not made by the demo; remove it, or give another one with --folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).write_text("Made by `cagg demo`, which empties this folder each time.\n", encoding="utf-8")
    for item in folder.iterdir():
        if item.name == _MARKER:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()
    return folder


def environment_of(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the demo's processes: nothing of the user's cagg, all state in the folder.

    The engine's own variables are its adapter's business.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith("CAGG_")}
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return kept | {
        "CAGG_HOME": str(folder / "home"),
        "CAGG_CONFIG": str(folder / "cagg.toml"),
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DO_NOT_TRACK": "1",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What an adapter's module ``demo`` says of itself; it imports no engine before it is run.

    Attributes:
        module: run as ``python -m MODULE FOLDER``.
        scale: SCALE, seconds of the story per second of the clock: an engine whose shortest wait is long plays slower.
        counts_down: COUNTS_DOWN, on a terminal the engine itself shows how long it waits.
        in_a_project: IN_A_PROJECT, what a reader does next.
        tidy: ends what the part has left running when it was stopped; gets the folder.
    """

    module: str
    scale: int = demo_story.SCALE
    counts_down: bool = False
    in_a_project: str = "a gate in front of a task of yours"
    tidy: Callable[[Path], None] = lambda _: None


def _part_of(engine: EntryPoint) -> _Part:
    name = f"{engine.module.partition('.')[0]}.demo"
    try:
        module = import_module(name)
    except ImportError:
        return _Part(module=name)  # running it fails too, and shows why
    said = {
        key.lower(): getattr(module, key) for key in ("SCALE", "COUNTS_DOWN", "IN_A_PROJECT") if hasattr(module, key)
    }
    if hasattr(module, "tidy"):
        said["tidy"] = module.tidy
    return _Part(module=name, **said)


class _Demo:
    """One performance."""

    def __init__(self, *, folder: Path, engine: EntryPoint, to: Console, json: bool) -> None:
        self._folder = folder
        self._engine = engine
        self._to = to
        self._json = json
        self._environment = environment_of(folder, os.environ)
        self._part = _part_of(engine)

    def play(self) -> int:
        """Play it from the budget to the verified ledger and return the exit status."""
        from cagg.cli import _demo_scenes as scenes

        to = self._to
        parts = self._parts(start=True)
        line(
            to, f"cagg demo: a nightly validation on {self._engine.name}, everything below {self._folder}", style="bold"
        )
        before = scenes.set_budgets(parts)
        scenes.tell_setting(to, self._part.scale)
        scenes.tell_budgets(to, "Budget before the run", before)
        line(to)
        line(to, f"Starting {self._engine.name} with a server of its own; the first start takes 10 to 20 seconds.")
        status = self._run()
        if status != 0:
            line(
                to, f"The {self._engine.name} run failed with status {status}; what it said stands above.", style="red"
            )
            return 2
        parts = self._parts(start=False)
        story = demo_story.read_story(self._folder)
        chapters = scenes.read_chapters(parts)
        scenes.tell_reading(to, chapters, story)
        after = scenes.budgets(parts)
        scenes.tell_budgets(to, "Budget after the run", after)
        report = scenes.maintain_and_verify(to, parts)
        scenes.tell_next(to, self._folder, self._part.in_a_project)
        document = scenes.document(self._folder, self._engine.name, chapters, before, after, report)
        status = 0 if report.verified and chapters.complete else 1
        return answer(document, lambda _: None, json=self._json, status=status)

    def _parts(self, *, start: bool) -> Components:
        from cagg.clock import SystemClock
        from cagg.composition import compose
        from cagg.settings import load_settings

        clock = SystemClock()
        if start:
            demo_story.begin(self._folder, clock.now(), self._part.scale)
        return compose(load_settings(environ=self._environment, start=self._folder), clock=clock)

    def _run(self) -> int:
        """Run the engine's part in a process of its own and tell the decisions as they are recorded."""
        process = subprocess.Popen(
            [sys.executable, "-m", self._part.module, str(self._folder)],
            cwd=self._folder,
            env=self._environment,
            stdout=2 if self._json else None,
            # A group of its own: Ctrl-C reaches us alone, and then its server ends together with it, without a word.
            start_new_session=True,
        )
        try:
            with stop_requested() as stop:
                for _ in self._watch(process):
                    if stop.is_set():
                        raise KeyboardInterrupt
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            self._part.tidy(self._folder)
        return process.wait()

    def _watch(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        from cagg.cli import _demo_scenes as scenes

        audience = scenes.Audience(
            to=self._to,
            folder=self._folder,
            say_every=_SAY_EVERY / self._part.scale,
            counted_down=self._part.counts_down and sys.stderr.isatty(),
        )
        parts = self._parts(start=False)
        while process.poll() is None:
            audience.look(parts)
            yield
            parts.clock.sleep(_POLL_SECONDS)
        audience.look(parts)
