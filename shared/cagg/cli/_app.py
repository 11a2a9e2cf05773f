"""All commands in one Typer application, and what happens to the errors they raise."""

from __future__ import annotations

import contextlib
import io
import json as json_module
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import cagg
from cagg.cli import budget, demo, doctor, explain, forecast, init, ledger, maintain, meter, plan, run, store, zones
from cagg.errors import CaggError

__all__ = ["CANNOT_ANSWER", "INTERRUPTED", "app", "run_app"]

CANNOT_ANSWER = 2
"""Exit status when no answer could be given."""

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells count it."""

# Typer 0.2x carries its own copy of click, older ones import the package; the class is in both this one's ancestors.
_UsageError: type[Any] = next(item for item in typer.BadParameter.__mro__ if item.__name__ == "ClickException")

app = typer.Typer(
    name="cagg",
    help="Carbon-aware governance gates: a carbon budget, a ledger and a gate in front of training and validation.",
    epilog="Every command takes --json. Exit status: 0 yes, 1 the answer is no, 2 no answer could be given.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: object) -> None:
    if value:
        typer.echo(f"cagg {cagg.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Carbon-aware governance gates."""


_VERBATIM = {"allow_interspersed_args": False}
"""After the first word of CMD everything belongs to CMD, also what looks like an option."""

app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.command("zones")(zones.zones)
app.command("forecast")(forecast.forecast)
app.command("plan")(plan.plan)
app.command("run", context_settings=_VERBATIM)(run.run)
app.command("meter", context_settings=_VERBATIM)(meter.meter)
app.add_typer(budget.app, name="budget")
app.add_typer(ledger.app, name="ledger")
app.command("explain")(explain.explain)
app.command("maintain")(maintain.maintain)
app.add_typer(store.app, name="store")
app.command("demo")(demo.demo)


def run_app(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; expected errors become one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows '?', it does not stop the command
    try:
        status = app(list(arguments), prog_name="cagg", standalone_mode=False)
        sys.stdout.flush()
    except CaggError as error:
        return _failed(str(error), type(error).__name__, arguments)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(f"{error.format_message()}\n")  # `cagg budget` alone asks what there is
            return 0
        return _failed(_usage(error), "UsageError", arguments)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("cagg: interrupted.\n")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone, for example `| head`; nothing more may be written at exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CANNOT_ANSWER
    except OSError as error:
        place = f" {error.filename!r}" if error.filename else ""
        return _failed(f"the system refused{place}: {error.strerror or error}.", type(error).__name__, arguments)
    return status if isinstance(status, int) else 0


def _usage(error: Any) -> str:
    sentence = " ".join(str(error.format_message()).split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = "cagg" if context is None else context.command_path
    return f"{sentence}; see `{command} --help`."


def _failed(sentence: str, kind: str, arguments: Sequence[str]) -> int:
    sentence = " ".join(sentence.split())
    own = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    if "--json" in own:
        document = {"error": {"kind": kind, "message": sentence}}
        sys.stdout.write(json_module.dumps(document, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"cagg: {sentence}\n")
    return CANNOT_ANSWER
