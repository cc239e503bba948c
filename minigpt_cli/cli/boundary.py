"""The one place where errors become messages."""

import signal
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from minigpt_cli.cli.help import (
    in_users_language,
    plain_parameters,
    translate_typer,
    usage_message,
    with_plain_help,
)
from minigpt_cli.cli.options import how_to_set
from minigpt_cli.cli.streams import OutputError, lacks_characters, silence
from minigpt_cli.errors import MinigptError
from minigpt_cli.io.text import printable_line
from minigpt_cli.language import _

INTERRUPTED = 130
ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""The signals that ask a program to end: Ctrl-C, `kill`, and a terminal that was closed."""
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # Typer does not export it


class ErrorBoundary(TyperGroup):
    """A group of commands that shows a user's error in one line.

    Anything else is a bug and keeps its traceback. A group inside another one needs this class
    too, so that its errors name the options of the command that was called.
    """

    def main(self, *args: Any, **settings: Any) -> Any:
        """Runs the program; it does not succeed unless all of its output is written."""
        result, ended = None, None
        try:
            try:
                result = super().main(*args, **settings)
            except SystemExit as exit:
                ended = exit
            sys.stdout.flush()
        except OutputError as error:
            status = self._output_failed(error)
            raise SystemExit((ended and ended.code) or status) from None
        if lacks_characters():
            _note_missing_characters()
        if ended is not None:
            raise ended
        return result

    def make_context(self, *args: Any, **settings: Any) -> Any:
        """Parses the arguments; a usage error shows them with control characters escaped."""
        try:
            return super().make_context(*args, **settings)
        except UsageError as error:
            raise _printable(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Runs a command and turns `MinigptError` into a message and exit code 1."""
        from minigpt_cli.cli.console import print_error

        words = list(ctx.args)
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if hasattr(error, "possibilities"):  # no such option
                _spell(error, words)
            raise _printable(error) from None
        except MinigptError as error:
            print_error(f"{error}{how_to_set(error.settings, self._options(ctx))}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    def _output_failed(self, error: OutputError) -> int:
        """Says why the output could not be written; returns the exit status."""
        from minigpt_cli.cli.console import print_error

        silence(sys.stdout)
        if error.reader_left:  # it closed the pipe, as in `| head -1`
            return 0
        print_error(
            _("cannot write the output ({error}); send it elsewhere or free some space").format(
                error=error
            )
        )
        return 1

    def get_command(self, ctx: Any, name: str) -> Any:
        """A command by its name, with plain help."""
        command = super().get_command(ctx, name)
        if isinstance(command, ErrorBoundary):
            in_users_language(command)
        if command is None or isinstance(command, ErrorBoundary):
            return command
        return with_plain_help(command)

    def get_params(self, ctx: Any) -> Any:
        """The group's own options, with plain help."""
        return plain_parameters(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that was typed; an unknown one is answered with what it is called here."""
        from minigpt_cli.cli.spelling import COMMANDS, did_you_mean_option

        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            if ctx.parent is None and (meant := COMMANDS.get(args[0])):
                message = str(getattr(error, "message", "")).rstrip(".")
                error.message = message + did_you_mean_option(f"minigpt {meant}")  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Shows the group's help, in the user's language."""
        in_users_language(self)
        translate_typer()
        super().format_help(ctx, formatter)

    def _options(self, ctx: Any) -> set[str]:
        """Every option of the command that ran."""
        command = self.commands.get(ctx.invoked_subcommand, self)
        return {option for parameter in command.params for option in parameter.opts}


def _spell(error: Any, words: list[str]) -> None:
    """Has a message about an unknown option say how the option is spelled here."""
    from minigpt_cli.cli.spelling import did_you_mean_option, right_spelling, typed_value

    context, option = error.ctx, error.option_name
    commands = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in {
            **context.find_root().command.commands, context.info_name: context.command
        }.items()
    }  # fmt: skip
    value = typed_value(option, words)
    if spelling := right_spelling(option, value, context.info_name, commands):
        error.message += did_you_mean_option(spelling)
        error.possibilities = None


def _printable(error: Any) -> Any:
    """A usage error whose message cannot control the terminal."""
    translate_typer()
    lines = error.format_message().replace("\n\t", " ")  # choices, one on each
    message = usage_message(printable_line(lines))
    error.format_message = lambda: message
    return error


def _note_missing_characters() -> None:
    from minigpt_cli.cli.console import print_note

    print_note(
        _(
            "This terminal's encoding ({encoding}) cannot show some characters, shown as ?; "
            "use a UTF-8 terminal, or redirect the output to a file."
        ).format(encoding=sys.stdout.encoding)
    )
