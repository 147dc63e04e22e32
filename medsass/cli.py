"""The command line: parse, build a config, call one function.

Options are made from the fields of the config dataclasses, so that a name, its default and its help stand in one place.
Nothing heavy is imported before a command runs: `--help` stays fast. Commands that need torch import it only after the
checks that do without (`preflight`).
"""

import functools
import math
import os
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from medsass import __version__, errors, foreign, parameters
from medsass import config as configs
from medsass.config import schema
from medsass.text import printable

C = TypeVar("C")


class OneLine(click.Group):
    """A group whose commands report an error that the user can mend, and an interrupt, in one line on stderr.

    The exit code is 2 after an error, and 130 after an interrupt.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with MEDSASS_TRACE=1 in the environment errors keep their traceback."""
        try:
            return super().invoke(ctx)
        except errors.Stopped as stop:
            if str(stop):
                click.echo(printable(str(stop)), err=True)
            ctx.exit(0)
        except errors.ElsewhereError:
            ctx.exit(2)
        except KeyboardInterrupt as stop:
            say(errors.interrupted(stop, ctx.invoked_subcommand or ""))
            ctx.exit(130)
        except click.ClickException as error:
            error.message = printable(error.message)  # type: ignore[misc]
            raise
        except Exception as error:
            text = errors.line(error, ctx.invoked_subcommand or "")
            if text is None or os.environ.get("MEDSASS_TRACE") == "1":
                raise
            say(text)
            ctx.exit(2)


def say(text: object) -> None:
    """Print a line on stderr."""
    click.echo(printable(f"medsass: {text}"), err=True)


@click.group(
    cls=OneLine,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(__version__, prog_name="medsass")
def main() -> None:
    """Segment medical images without labels: shards, DALI, one labelling kernel, U-Net."""


def command(
    kind: type[C], *more: Callable[[Any], Any], checked: bool = False
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a command: the fields of a config dataclass are its arguments and options, and `more` options follow.

    Where it is `checked`, the function also gets what the check of its name in `preflight` returned, before it imports torch.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.pass_context
        @functools.wraps(function)
        def run(ctx: click.Context, /, **values: Any) -> None:
            config = kind(**_complete(ctx, values))
            with foreign.caught():  # before anything makes threads
                if not checked:
                    return function(config)
                from medsass.runs import preflight

                return function(config, getattr(preflight, function.__name__)(config))

        made: Any = run
        hints = typing.get_type_hints(kind)
        for item in sorted(fields(kind), key=lambda item: item.kw_only is True)[::-1]:  # type: ignore[arg-type]
            made = parameters.of(item, hints[item.name])(made)
        for add in more:
            made = add(made)
        return main.command(cls=parameters.Once)(made)

    return decorate


def _complete(ctx: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Give the options of a resumed training that are not on the command line the values of its run."""
    if not values.get("resume") or "run" not in values:
        return values
    from medsass.runs import run_directory

    given = {name for name in values if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    old, note = run_directory.resumed(values["run"], given)
    if note and os.environ.get("RANK", "0") == "0":  # torchrun starts several
        say(note)
    return {name: value if name in given else old[name] for name, value in values.items()}


def _read_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Take the values of a TOML file as defaults, which options on the command line override."""
    if path is None:
        return
    try:
        table = schema.read_toml(path)
    except OSError as error:
        raise click.UsageError(f"--config {path}: {error.strerror}") from error
    except ValueError as error:
        raise click.UsageError(f"--config {path}: {error}") from error
    known = {item.name: item for item in ctx.command.params if isinstance(item, click.Option) and item.expose_value}
    values = {key.replace("-", "_"): value for key, value in table.items()}
    for name in sorted(values.keys() - known):
        near = schema.nearest(name, sorted(known))
        raise click.UsageError(f"--config {path}: unknown option '{name}'; {near}known: {', '.join(sorted(known))}")
    for name, value in values.items():
        item = known[name]
        several = value if item.multiple and isinstance(value, list) else [value]
        if not all(isinstance(one, bool) if item.is_flag else _is_plain(one) for one in several):
            wanted = "true or false" if item.is_flag else "a number or text"
            raise click.UsageError(f"--config {path}: '{name}' must be {wanted}; got {value!r:.80}")
    ctx.default_map = values


def _is_plain(value: Any) -> bool:
    """Tell whether click can read a value: text, or a number that fits a machine's."""
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


config_file = click.option(
    "--config", type=click.Path(path_type=Path), callback=_read_config, is_eager=True, expose_value=False,
    help="TOML file of these options, such as epochs = 20; the command line overrides it",
)  # fmt: skip


@command(configs.ShardConfig)
def shard(config: configs.ShardConfig) -> None:
    """Turn a dataset, the folder SOURCE or tar files with --recipe webdataset, into WebDataset shards in OUT."""
    from medsass.data.sharding import shard as run
    from medsass.runs import console, info

    if config.dry_run:
        info.show_plan(*run.plan(config))
        return
    with console.progress("shard") as bar:
        dataset = run.write(config, bar.reach)
    info.show(dataset)
    info.show_rejected(config.out, dataset)
    kept = sum(split.samples for split in dataset.splits.values())
    console.out.print(f"{kept} images written to {config.out}, {dataset.rejected} files left out")


@command(configs.VerifyConfig)
def verify(config: configs.VerifyConfig) -> None:
    """Check every byte of SHARDS against the manifest, and report what is wrong and where."""
    from medsass.data.shards import remote
    from medsass.data.shards.verify import verify as run
    from medsass.runs import console

    with console.progress("verify", unit="MiB") as bar, remote.one_line(config.shards):
        problems = run(config.shards, lambda done, total: bar.reach(done >> 20, total >> 20))
    _report(problems)
    console.out.print(f"{config.shards}: as the manifest says, every byte")


@command(configs.InfoConfig)
def info(config: configs.InfoConfig) -> None:
    """Show what the shards hold, and draw a contact sheet."""
    from medsass.runs.info import info as run

    run(config)


@command(configs.TuneConfig, checked=True)
def tune(config: configs.TuneConfig, found: Any) -> None:
    """Choose threshold, polarity and refinement for SHARDS without their masks, as a TOML file for train."""
    from medsass.runs.tuning.tune import tune as run

    run(config, found)


@command(configs.TrainConfig, config_file, checked=True)
def train(config: configs.TrainConfig, found: Any) -> None:
    """Train on SHARDS into the run directory RUN; without labels, unless --method supervised."""
    from medsass.runs.training.train import train as run

    run(config, found)


@command(configs.EvaluateConfig, checked=True)
def evaluate(config: configs.EvaluateConfig, found: Any) -> None:
    """Score RUN against the masks of SHARDS, beside the bare labels on the same images."""
    from medsass.runs.scoring import evaluate as run

    run.show(run.evaluate(config, found))


@command(configs.ProbeConfig, checked=True)
def probe(config: configs.ProbeConfig, found: Any) -> None:
    """Score RUN's frozen encoder by a linear classifier of SHARDS' class labels."""
    from medsass.runs.scoring import probe as run

    run.show(run.probe(config, found))


@command(configs.ExportConfig, checked=True)
def export(config: configs.ExportConfig, found: Any) -> None:
    """Write RUN's weights for smp, timm or ONNX, checked, with a model card."""
    from medsass.runs.export.export import export as run

    run(config, found)


@command(configs.ExperimentConfig)
def experiment(config: configs.ExperimentConfig) -> None:
    """Run every cell of the TOML file GRID into OUT, and write the paper's tables and figures from them."""
    from medsass.runs.experiment import prepare

    found = prepare.prepare(config)
    from medsass.runs.experiment.experiment import experiment as run

    run(config, found)


@command(configs.LabelConfig, checked=True)
def label(config: configs.LabelConfig, found: Any) -> None:
    """Write the pseudo-labels of a folder of images, or of shards, and their thresholds as CSV."""
    from medsass.runs.label import label as run

    _report([f"{path}: {reason}; left out" for path, reason in run(config, found)])


@command(configs.PredictConfig, checked=True)
def predict(config: configs.PredictConfig, found: Any) -> None:
    """Write masks for images, or folders of images, at their own size."""
    from medsass.runs.prediction.predict import predict as run

    _report([f"{path}: {reason}; left out" for path, reason in run(config, found)])


def _report(problems: Sequence[object]) -> None:
    """Print the problems, and end with exit code 2 if there are any."""
    for problem in problems:
        say(problem)
    if problems:
        raise click.exceptions.Exit(2)


@command(configs.DemoConfig)
def demo(config: configs.DemoConfig) -> None:
    """Run all steps on generated nuclei, in OUT: two to four minutes on two cores."""
    from medsass.runs.demo import demo as run

    run(config)


@main.command()
def doctor() -> None:
    """Show what works here, and which path each command will take."""
    from medsass import doctor as check
    from medsass.runs import console

    found = check.findings()
    for item in found:
        console.out.print("ok " if item.works else "-- ", style="green" if item.works else "yellow", end="")
        console.out.print(f"{item.name}: {item.detail}")
    console.out.print()
    for command, path in check.paths(found):
        console.out.print(f"{command}: {path}")
