"""The command line: parse, build a config, call one function.

Options are made from the fields of the config dataclasses, so that a name, its default and its help stand in one place.
Nothing heavy is imported before a command runs: `--help` stays fast.
"""

import functools
import os
import tomllib
import types
import typing
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from medsass import __version__, files
from medsass.config import (
    DemoConfig,
    EvaluateConfig,
    ExperimentConfig,
    ExportConfig,
    InfoConfig,
    LabelConfig,
    PredictConfig,
    ProbeConfig,
    ShardConfig,
    TrainConfig,
    TuneConfig,
    VerifyConfig,
    is_argument,
)  # fmt: skip

C = TypeVar("C")

EXPECTED = (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    MemoryError,
)  # what a user can mend; anything else is a bug and shows its trace


class OneLine(click.Group):
    """A group whose commands answer what the user can mend with one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with MEDSASS_TRACE=1 in the environment errors keep their traceback."""
        try:
            return super().invoke(ctx)
        except EXPECTED as error:
            if os.environ.get("MEDSASS_TRACE") == "1":
                raise
            click.echo(f"medsass: {_one_line(error)}", err=True)
            ctx.exit(2)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@click.group(
    cls=OneLine,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(__version__, prog_name="medsass")
def main() -> None:
    """Segment medical images without labels: shards, DALI, one labelling kernel, U-Net."""


class Location(click.ParamType[Path]):
    """A path, or an address such as s3://bucket/folder."""

    name = "path"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Path:
        """The value as `Path` or, for addresses, what reads like one."""
        return value if not isinstance(value, str) else files.location(value)


def options(kind: type[C]) -> Callable[[Callable[[C], None]], Callable[..., None]]:
    """Give a command the arguments and options of a config dataclass, and call it with one made of their values."""

    def decorate(function: Callable[[C], None]) -> Callable[..., None]:
        @click.pass_context
        @functools.wraps(function)
        def command(ctx: click.Context, /, **values: Any) -> None:
            function(kind(**_complete(ctx, values)))

        wrapped: Any = command
        for item in reversed(fields(kind)):  # type: ignore[arg-type]
            wrapped = _parameter(item, typing.get_type_hints(kind)[item.name])(wrapped)
        return typing.cast(Callable[..., None], wrapped)

    return decorate


def _parameter(item: "Field[Any]", hint: Any) -> Callable[[Any], Any]:
    """The click argument or option of one dataclass field."""
    if typing.get_origin(hint) is types.UnionType:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    several = typing.get_origin(hint) is tuple
    kind: Any = typing.get_args(hint)[0] if several else hint
    kind = Location() if kind is Path else kind
    if is_argument(item):
        return click.argument(item.name, type=kind, nargs=-1 if several else 1, required=True)
    name = item.name.replace("_", "-")
    choices = item.metadata["choices"]
    text = item.metadata["help"] + (f" [{'|'.join(map(str, choices))}]" if choices else "")
    if kind is bool:
        flag = f"--{name}/--no-{name}" if item.default else f"--{name}"
        return click.option(flag, item.name, is_flag=True, default=item.default, help=text)
    return click.option(
        f"--{name}", item.name, type=kind, default=item.default, help=text, metavar="TEXT" if choices else None
    )


def _complete(ctx: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """With --resume of a training, options that were not given take the values of the run that is resumed."""
    if not values.get("resume") or "run" not in values:
        return values
    from medsass.runs import run_directory

    old, _ = run_directory.stored(values["run"])
    given = {name for name in values if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    return {name: value if name in given else getattr(old, name) for name, value in values.items()}


def _read_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Take a TOML file's values as defaults, so that options on the command line go before them."""
    if path is None:
        return
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise click.UsageError(f"--config {path}: {error.strerror}") from error
    except ValueError as error:
        raise click.UsageError(f"--config {path}: not a TOML file: {error}") from error
    known = {item.name for item in ctx.command.params if isinstance(item, click.Option) and item.expose_value}
    values = {key.replace("-", "_"): value for key, value in table.items()}
    unknown = sorted(set(values) - known)
    if unknown:
        raise click.UsageError(f"--config {path}: unknown option '{unknown[0]}'; known: {', '.join(sorted(known))}")
    ctx.default_map = values


config_file = click.option(
    "--config", type=click.Path(path_type=Path), callback=_read_config, is_eager=True, expose_value=False,
    help="TOML file of these options, such as epochs = 20; the command line goes before it",
)  # fmt: skip


@main.command()
@options(ShardConfig)
def shard(config: ShardConfig) -> None:
    """Turn a dataset, the folder SOURCE, into WebDataset shards in OUT."""
    from medsass.data.sharding import shard as run
    from medsass.runs import console, info

    if config.dry_run:
        info.show_plan(run.plan(config))
        return
    with console.progress("shard") as bar:
        dataset = run.write(config, bar.reach)
    info.show(dataset)
    info.show_rejected(config.out, dataset)
    kept = sum(split.samples for split in dataset.splits.values())
    console.out.print(f"{kept} images written to {config.out}, {dataset.rejected} files left out")


@main.command()
@options(VerifyConfig)
def verify(config: VerifyConfig) -> None:
    """Check every byte of SHARDS against the manifest, and say what is wrong and where."""
    from medsass.data.shards import remote
    from medsass.data.shards.verify import verify as run
    from medsass.runs import console

    with console.progress("verify") as bar, remote.one_line(config.shards):
        problems = run(config.shards, bar.reach)
    for problem in problems:
        click.echo(f"medsass: {problem}", err=True)
    if problems:
        raise click.exceptions.Exit(2)
    console.out.print(f"{config.shards}: as the manifest says, every byte")


@main.command()
@options(InfoConfig)
def info(config: InfoConfig) -> None:
    """Say what the shards hold, and draw a contact sheet."""
    from medsass.runs.info import info as run

    run(config)


@main.command()
@options(TuneConfig)
def tune(config: TuneConfig) -> None:
    """Choose threshold, polarity and refinement for SHARDS without their masks, as a TOML file for train."""
    from medsass.runs.tuning.tune import tune as run

    run(config)


@main.command()
@config_file
@options(TrainConfig)
def train(config: TrainConfig) -> None:
    """Train on SHARDS into the run directory RUN; without labels, unless --method supervised."""
    from medsass.runs.training.train import train as run

    run(config)


@main.command()
@options(EvaluateConfig)
def evaluate(config: EvaluateConfig) -> None:
    """Score RUN against the masks of SHARDS, beside the bare labels on the same images."""
    from medsass.runs.scoring import evaluate as run

    run.show(run.evaluate(config))


@main.command()
@options(ProbeConfig)
def probe(config: ProbeConfig) -> None:
    """Score RUN's frozen encoder by a linear classifier of SHARDS' class labels."""
    from medsass.runs.scoring import probe as run

    run.show(run.probe(config))


@main.command()
@options(ExportConfig)
def export(config: ExportConfig) -> None:
    """Write RUN's weights for smp, timm or ONNX, checked, with a model card."""
    from medsass.runs.export.export import export as run

    run(config)


@main.command()
@options(ExperimentConfig)
def experiment(config: ExperimentConfig) -> None:
    """Run every cell of the TOML file GRID into OUT, and write the paper's tables and figures of them."""
    from medsass.runs.experiment.experiment import experiment as run

    run(config)


@main.command()
@options(LabelConfig)
def label(config: LabelConfig) -> None:
    """Write the pseudo-labels of a folder of images, or of shards, and their thresholds as CSV."""
    from medsass.runs.label import label as run

    _report_left_out(run(config))


@main.command()
@options(PredictConfig)
def predict(config: PredictConfig) -> None:
    """Write masks for images, or folders of images, at their own size."""
    from medsass.runs.prediction.predict import predict as run

    _report_left_out(run(config))


def _report_left_out(failed: "list[tuple[Path, str]]") -> None:
    """Name what could not be read; what could is written. Exit code 2 where there was any."""
    for path, reason in failed:
        click.echo(f"medsass: {path}: {reason}; left out", err=True)
    if failed:
        raise click.exceptions.Exit(2)


@main.command()
@options(DemoConfig)
def demo(config: DemoConfig) -> None:
    """Run the whole line on generated nuclei, in OUT: one to three minutes on two cores."""
    from medsass.runs.demo import demo as run

    run(config)


@main.command()
def doctor() -> None:
    """Say what works here, and which path each command will take."""
    from medsass import doctor as check
    from medsass.runs import console

    found = check.findings()
    for item in found:
        console.out.print("ok " if item.works else "-- ", style="green" if item.works else "yellow", end="")
        console.out.print(f"{item.name}: {item.detail}")
    console.out.print()
    for command, path in check.paths(found):
        console.out.print(f"{command}: {path}")


if __name__ == "__main__":
    main()
