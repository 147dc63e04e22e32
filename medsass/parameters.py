"""Fields of config dataclasses -> arguments and options of the command line."""

import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any

import click

from medsass import files


class Once(click.Command):
    """A command whose options are refused where they are given twice and hold one value: the first would be lost unsaid."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line. Raises `click.UsageError`."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        seen = set[str]()
        for item in order if not ctx.resilient_parsing else ():
            single = isinstance(item, click.Option) and not (item.multiple or item.is_flag or item.count)
            if single and item.name in seen:
                raise click.UsageError(f"{item.opts[0]} is given twice; it holds one value", ctx)
            seen.add(item.name or "")
        return super().parse_args(ctx, args)


class Location(click.ParamType[Path]):
    """A path, or an address such as s3://bucket/folder."""

    name = "path"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Path:
        """Return a `Path` or, for an address, an object that reads like one."""
        return files.location(value) if isinstance(value, str) else value


def of(item: "Field[Any]", hint: Any) -> Callable[[Any], Any]:
    """Make the click argument or option of one dataclass field from its type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    several = typing.get_origin(hint) is tuple
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    kind: Any = type(choices[0]) if choices else typing.get_args(hint)[0] if several else hint
    kind = Location() if kind is Path else kind
    if item.default is MISSING:
        return click.argument(item.name, type=kind, nargs=-1 if several else 1, required=True)
    name = item.name.replace("_", "-")
    text = item.metadata["help"] + (f" [{'|'.join(map(str, choices))}]" if choices else "")
    if kind is bool:
        flag = f"--{name}/--no-{name}" if item.default else f"--{name}"
        return click.option(flag, item.name, is_flag=True, default=item.default, help=text)
    if item.metadata["several"]:
        return click.option(f"--{name}", item.name, multiple=True, callback=_joined, help=text)
    shown = "TEXT" if choices else None
    return click.option(f"--{name}", item.name, type=kind, default=item.default, help=text, metavar=shown)


def _joined(_ctx: click.Context, _parameter: click.Parameter, globs: tuple[str, ...]) -> str:
    """Return several globs as one with braces."""
    joined = ",".join(one if "{" in one else one.replace(",", "\\,") for one in globs)
    return f"{{{joined}}}" if len(globs) > 1 else "".join(globs)
