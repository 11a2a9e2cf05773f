"""All commands in one Typer application, and what happens to the errors they raise."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import cagg
from cagg.cli import (
    assess,
    budget,
    demo,
    doctor,
    explain,
    forecast,
    init,
    ledger,
    maintain,
    meter,
    plan,
    run,
    store,
    zones,
)
from cagg.cli._output import try_json
from cagg.cli._voice import LastResort, drain, flush_all, open_streams, say, speaking
from cagg.errors import CaggError, InvalidInput, MustBeKept, NotProven

__all__ = ["CANNOT_ANSWER", "INTERRUPTED", "READER_LEFT", "app", "run_app"]

NO = 1
"""Exit status when the answer is no."""

CANNOT_ANSWER = 2
"""Exit status when no answer could be given."""

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells count it."""

READER_LEFT = 141
"""Exit status when the reader of an output without end has gone: 128 + SIGPIPE, as shells count it."""

_STARTS_COMMANDS = frozenset({"run", "meter"})
"""Commands whose last arguments belong to another program and may be any bytes."""

_NEGATIVE = re.compile(r"-[\d.]\S*")
_NUMBERED = frozenset({"explain", "prove", "consistency", "private", "redact"})
"""Commands that take the number of an entry, or the size of a checkpoint."""

# Typer 0.2x carries its own copy of click, older ones import the package; the class is in both this one's ancestors.
_UsageError: type[Any] = next(item for item in typer.BadParameter.__mro__ if item.__name__ == "ClickException")

app = typer.Typer(
    name="cagg",
    help="Carbon-aware governance gates: a carbon budget, a ledger and a gate in front of training and validation.",
    epilog="Every command takes --json. Exit status: 0 yes, 1 the answer is no, 2 no answer could be given; `cagg run` "
    "ends with the command's own status, and with 125 when it was not started, also for a wrong option.",
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
app.command("assess")(assess.assess)
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
    open_streams()
    with speaking():
        try:
            return _answered(list(arguments))
        finally:
            flush_all()


def _answered(arguments: list[str]) -> int:
    if _command(arguments) != "run":
        return _told(arguments, CANNOT_ANSWER)
    with LastResort("cagg run") as last:
        return _told(arguments, run.REFUSED)
    return _failed(last.sentence, type(last.error).__name__, arguments, run.REFUSED)


def _command(arguments: Sequence[str]) -> str:
    return next((word for word in arguments if not word.startswith("-")), "")


def _told(arguments: list[str], refusal: int) -> int:
    """Run one command; what it raises is told, and ends with the status that refuses."""
    try:
        if _command(arguments) not in _STARTS_COMMANDS:
            _check_text(arguments)
        status = app(arguments, prog_name="cagg", standalone_mode=False)
        sys.stdout.flush()
    except (NotProven, MustBeKept) as error:
        return _failed(str(error), type(error).__name__, arguments, NO)
    except CaggError as error:
        return _failed(str(error), type(error).__name__, arguments, refusal)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return _help(error)
        return _failed(_usage(error, arguments), "UsageError", arguments, refusal)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted.")
        return INTERRUPTED
    except SystemExit:
        return 0  # Rich ends so when the reader of a help text has gone
    except BrokenPipeError:
        drain(sys.stdout)
        return READER_LEFT
    except OSError as error:
        drain(sys.stdout)
        place = f" {error.filename!r}" if error.filename else ""
        sentence = f"the system refused{place}: {error.strerror or error}."
        return _failed(sentence, type(error).__name__, arguments, refusal)
    return status if isinstance(status, int) else 0


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are not text: no name in the ledger and no message could repeat them."""
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"the argument {word!r} holds bytes that are not UTF-8; write it in UTF-8.") from None


def _help(error: Any) -> int:
    try:
        sys.stdout.write(f"{error.format_message()}\n")  # `cagg budget` alone asks what there is
        sys.stdout.flush()
    except OSError:
        drain(sys.stdout)
    return 0


def _usage(error: Any, arguments: Sequence[str]) -> str:
    sentence = " ".join(str(error.format_message()).split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = "cagg" if context is None else context.command_path
    if type(error).__name__ == "NoSuchOption":
        negative = next((word for word in arguments if _NEGATIVE.fullmatch(word)), None)
        if negative is not None and negative.startswith(str(error.option_name)):
            counted = "numbers in a log begin at 0" if command.split()[-1] in _NUMBERED else "amounts are 0 or more"
            return f"{negative!r} is negative, or no option of this command; {counted}: `{command} --help`."
    return f"{sentence}; see `{command} --help`."


def _failed(sentence: str, kind: str, arguments: Sequence[str], status: int) -> int:
    sentence = " ".join(sentence.split())
    own = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    if "--json" in own:
        try_json({"error": {"kind": kind, "message": sentence}}, indent=None)
    say(sentence)
    return status
