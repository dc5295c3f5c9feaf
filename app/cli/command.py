"""The base of all commands: options before or after the command, and plain help.

Options that all commands of a group have may also precede the command's name: they are handed on to
the command. Help is plain text, because rendering it would cost more than everything else.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from app.text.validation_messages import validation_message

_METAVARS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "FILE", list[str]: "TEXT"}
_OPTIONS = "Options"

# Its section, its name and its text.
_Row = tuple[str, str, str]

Options = Sequence[Any]


class Command(TyperCommand):
    """A command; subclasses have options besides its own."""

    shared: ClassVar[Options] = ()

    def __init__(self, name: str | None, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.params += self.shared
        _name_values(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            # Typer would convert values with pydantic.
            problems = getattr(error.__cause__, "errors", None)
            if problems is not None:
                error.message = validation_message(problems()[0])
            raise

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_defaults(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _format_parameters(self.get_params(ctx), ctx, formatter)


class Group(TyperGroup):
    """A group of commands; options before a command are handed on to it."""

    shared: ClassVar[Options] = ()
    """Options of its commands that may precede them."""

    default: ClassVar[Sequence[str]] = ()
    """The commands to try as the default; the first that exists runs if none is named."""

    def get_params(self, ctx: Any) -> list[Any]:
        # Shown and completed here, but parsed by the command.
        shared = self.shared if ctx.resilient_parsing else ()
        return [*_with_defaults(super().get_params(ctx)), *shared]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        moved, rest = self._split(args)
        if rest and rest[0] in self.commands:
            rest = [rest[0], *moved, *rest[1:]]
        elif self._default and not self._is_left_alone(ctx, rest):
            rest = [*self._default, *moved, *rest]
        return super().parse_args(ctx, rest)

    @property
    def _default(self) -> Sequence[str]:
        """The command that runs if none is named, if there is one."""
        return [each for each in self.default if each in self.commands][:1]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        if not (incomplete.startswith("-") and self._default):
            return super().shell_complete(ctx, incomplete)
        [name] = self._default
        command = self.commands[name]
        with command.make_context(name, [], parent=ctx, resilient_parsing=True) as of_default:
            return command.shell_complete(of_default, incomplete)

    def _split(self, args: list[str]) -> tuple[list[str], list[str]]:
        """Split off the leading options, which the group hands on."""
        options = {name: option for option in self.shared for name in option.opts}
        at = 0
        while at < len(args):
            name, has_value, _ = args[at].partition("=")
            option = options.get(name)
            if option is None:
                option = options.get(name[:2])  # -ojson
                has_value = name
            if option is None:
                break
            at += 1 if has_value or option.is_flag else 2
        return args[:at], args[at:]

    def _is_left_alone(self, ctx: Any, rest: list[str]) -> bool:
        """Whether the group itself responds: help, an unknown command, completion of a command."""
        if not rest:
            return bool(ctx.resilient_parsing)
        return not rest[0].startswith("-") or rest[0] in self.get_help_option_names(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        self.format_commands(ctx, formatter)
        _format_parameters([*self.get_params(ctx), *self.shared], ctx, formatter)

    def format_commands(self, _: Any, formatter: Any) -> None:
        """List the commands by section."""
        listed = [each for each in self.commands.values() if not each.hidden]
        width = max((len(each.name or "") for each in listed), default=0)
        rows: list[_Row] = [
            (
                _section(each, "Commands"),
                (each.name or "").ljust(width),
                each.get_short_help_str(100),
            )
            for each in listed
        ]
        _format_sections(rows, formatter)


def options(declaration: Callable[..., None]) -> Mapping[str, Any]:
    """The options that the parameters of *declaration* describe, by name."""
    app = typer.Typer(add_completion=False)
    app.command()(declaration)
    params = get_command(app).params
    _name_values(params)
    return {str(param.name): param for param in params}


def _with_defaults(params: list[Any]) -> list[Any]:
    """Flags that are not given are false: Typer would import pydantic to interpret None."""
    for param in params:
        if param.default is None and param.type_descriptor.annotation is bool:
            param.default = False
    return params


def _name_values(params: Sequence[Any]) -> None:
    """Show TEXT and NUMBER in the help instead of the names of Python types."""
    for param in params:
        if isinstance(param, TyperOption) and param.metavar is None:
            param.metavar = _METAVARS.get(param.type_descriptor.annotation)


def _format_parameters(params: Sequence[Any], ctx: Any, formatter: Any) -> None:
    """List arguments, own options and shared options, each in a section."""
    rows: list[_Row] = []
    for each in sorted(params, key=lambda each: each.rich_help_panel is not None):
        is_option = isinstance(each, TyperOption)
        if (record := each.get_help_record(ctx)) is not None:
            name, text = record
            # An argument's type is a word of Python.
            shown = name if is_option else name.partition(" ")[0]
            rows.append((_section(each, _OPTIONS if is_option else "Arguments"), shown, text))
    _format_sections(rows, formatter)


def _format_sections(rows: Sequence[_Row], formatter: Any) -> None:
    for section in dict.fromkeys(section for section, _, _ in rows):
        with formatter.section(section):
            formatter.write_dl([(name, text) for of, name, text in rows if of == section])


def _section(of: Any, default: str) -> str:
    return cast("str | None", of.rich_help_panel) or default
