"""The command line: parse, call one function, print. No logic, and nothing imported before it is needed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="sonde",
    help="From a folder of data to a deep network that can be trusted in production.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")]
Change = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a setting of the recipe.")
]
Despite = Annotated[list[str] | None, typer.Option("--despite", metavar="CHECK", help="Go on though this check fails.")]


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from sonde import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Where to put it (default: sonde-demo).")] = None,
    as_json: AsJson = False,
) -> None:
    """The whole way on real handwritten digits, in about a minute."""
    from sonde.cli.progress import terminal
    from sonde.commands.demo import demo as run_demo

    with terminal() as progress:
        result = run_demo(out or Path("sonde-demo"), progress)
    _print(result.to_json() if as_json else result.to_text())


@app.command()
def new(
    path: Annotated[str, typer.Argument(help="A folder or a file of data, or a built-in such as sklearn:digits.")],
    target: Annotated[str | None, typer.Option(help="The field to learn.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="The kind of target, such as embedding, where it is not the one that is seen.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the recipe.")] = Path("recipe.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that is there.")] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Use no pretrained weights, though there are some.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at data and write a recipe, with comments."""
    from sonde.base.lazy import import_later

    import_later("torch")
    from sonde.commands.new import write_recipe

    found = write_recipe(path, out, target=target, kind=kind, force=force, pretrained=not from_scratch)
    _print(found.to_json() if as_json else found.to_text())


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    out: Annotated[Path | None, typer.Option(help="Write check.json and label_issues.csv to this new folder.")] = None,
    despite: Despite = None,
    preflight: Annotated[bool, typer.Option(help="Try the pipeline too, not the data alone.")] = True,
    change: Change = None,
    as_json: AsJson = False,
) -> None:
    """Audit the data and try the pipeline: pass, warn or fail; nothing is trained for good."""
    from sonde.cli.progress import terminal

    with terminal() as progress:
        progress.begin("start", 1)
        from sonde import checks
        from sonde.commands.check import check as run_check
        from sonde.recipe import Recipe

        found = run_check(Recipe.read(recipe, changes=change or []), out=out, preflight=preflight, progress=progress)
    _print(found.to_json() if as_json else found.to_text())
    checks.require(found.findings, despite or [])


@app.command()
def fit(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    out: Annotated[Path | None, typer.Option(help="The run folder (default: runs/NAME-TIME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on exactly where the run in --out stopped.")] = False,
    despite: Despite = None,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    change: Change = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe: data, training, scores, artifact."""
    from sonde.base.errors import UserError
    from sonde.cli.progress import terminal
    from sonde.training.run_folder import default_folder

    if resume and out is None:
        raise UserError("--resume needs the run to go on with", hint="--out RUN --resume")
    if "RANK" in os.environ and out is None:
        raise UserError("under torchrun the processes have to agree on a run folder", hint="--out RUN")
    with terminal() as progress:
        progress.begin("start", 1)
        from sonde.base import dist
        from sonde.recipe import Recipe
        from sonde.run import fit as run_fit

        read = Recipe.read(recipe, changes=change or [])
        folder = out or default_folder(recipe)
        # torchrun starts a job again by the same words.
        run = run_fit(read, out=folder, resume=resume or dist.restarted(), despite=despite or [], progress=progress)
        page = None
        if report and _rank() == 0:
            from sonde.report import write

            page = write(run.folder, run.folder / "report.html", progress)
    end = f"\n  report     {page}" if page else ""
    _print(run.to_json() if as_json else run.to_text() + end)


@app.command("report")
def report_of(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="The page (default: report.html in the run's folder).")] = None,
    as_json: AsJson = False,
) -> None:
    """One HTML page of a run: how good, how sure, where it fails, what to do next."""
    from sonde.cli.progress import terminal

    with terminal() as progress:
        progress.begin("start", 1)
        from sonde.report import write

        place = write(run, out or run / "report.html", progress)
    _print({"report": str(place)} if as_json else str(place))


@app.command()
def ladder(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    bar: Annotated[str | None, typer.Option(help='Stop at the first rung that reaches it: "roc_auc >= 0.9".')] = None,
    budget: Annotated[str | None, typer.Option(help="The most time for all rungs together: 30m, 2h.")] = None,
    out: Annotated[Path | None, typer.Option(help="The ladder's folder (default: runs/NAME-ladder-TIME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the ladder in --out stopped.")] = False,
    despite: Despite = None,
    change: Change = None,
    as_json: AsJson = False,
) -> None:
    """The cheapest approach that meets the bar, from the majority class to the recipe's network, with the evidence."""
    from sonde.base.errors import CheckFailed, UserError
    from sonde.cli.progress import terminal
    from sonde.training.run_folder import default_folder

    if resume and out is None:
        raise UserError("--resume needs the ladder to go on with", hint="--out LADDER --resume")
    with terminal() as progress:
        progress.begin("start", 1)
        from sonde.commands.ladder import ladder as run_ladder
        from sonde.recipe import Recipe

        asked = {"ladder.bar": bar, "ladder.budget": budget}
        changes = [*(change or []), *(f"{name}={json.dumps(value)}" for name, value in asked.items() if value)]
        read = Recipe.read(recipe, changes=changes)
        folder = out or default_folder(recipe.with_stem(f"{recipe.stem}-ladder"))
        found = run_ladder(read, out=folder, resume=resume, despite=despite or [], progress=progress)
    _print(found.to_json() if as_json else found.to_text())
    if found.meets_bar is False:
        raise CheckFailed(f"the bar is not met: {found.why()}")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run or an artifact.")],
    data: Annotated[Path | None, typer.Option(help="New records to judge it on, all of them.")] = None,
    split: Annotated[str | None, typer.Option(help="A split of the recipe's data (default: test).")] = None,
    against: Annotated[Path | None, typer.Option(help="Another model, on the same records.")] = None,
    attack: Annotated[
        bool, typer.Option("--attack", help="Change the inputs by a little, as an adversary would: FGSM, PGD.")
    ] = False,
    watts: Annotated[
        float | None, typer.Option(min=0, help="The power that the energy of the training is counted at.")
    ] = None,
    corrupt: Annotated[
        bool, typer.Option("--corrupt", help="Score corrupted inputs, too, at five severities.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Scores with intervals, what they cost, where errors gather, and whether one model is better than another."""
    from sonde.cli.progress import terminal

    with terminal() as progress:
        progress.begin("start", 1)
        from sonde.commands.evaluate import evaluate as run_evaluate

        found = run_evaluate(
            model,
            data=data,
            split=split,
            against=against,
            attack=attack,
            corrupt=corrupt,
            watts=watts,
            progress=progress,
        )
    _print(found.to_json() if as_json else found.to_text())


@app.command()
def predict(
    artifact: Annotated[Path, typer.Argument(help="An artifact, or a run that holds one.")],
    inputs: Annotated[
        list[Path] | None, typer.Argument(readable=False, help="Files, folders, or CSV, JSONL and Parquet tables.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the answers to this file: .csv, .tsv, .jsonl or .json.")
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option("--id", help="The column of a table that goes with the answers (default: the recipe's data.id)."),
    ] = None,
    draw: Annotated[Path | None, typer.Option(help="Draw the answers into this folder: boxes, masks.")] = None,
    count: Annotated[
        int | None, typer.Option(help="Make so many answers, for a model that makes pictures: no inputs then.")
    ] = None,
    first: Annotated[int, typer.Option(help="With --count: the number of the first one.")] = 0,
    given: Annotated[
        list[str] | None,
        typer.Option("--given", metavar="FIELD=VALUE", help="With --count: what they are made for, a class or a text."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="How answers are made: a setting of target.generate."),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Add the set of classes, or the interval, that holds the truth so often: 0.9."),
    ] = None,
    familiar: Annotated[
        bool, typer.Option("--familiar", help="Add whether the record is like those of training.")
    ] = False,
    files: Annotated[
        Path | None, typer.Option(help="Write the answers as files into this folder: masks as NIfTI or PNG.")
    ] = None,
) -> None:
    """Answer for any number of inputs, one line of JSON each.

    An input that cannot be read has an error in place of its answer; if there is any, the exit code is 2 at the end.
    """
    from sonde.base.errors import UserError
    from sonde.cli.progress import terminal
    from sonde.commands import answers as as_file

    if out is not None:
        as_file.check(out)
    with terminal() as progress:
        progress.begin("start", 1)
        from sonde.artifact import load
        from sonde.commands.make import make, settings
        from sonde.commands.predict import predict as run_predict

        asked = settings(inputs or [], count, given or [], change or [], id_field)
        model = load(artifact)
        if asked.changes:
            model = model.with_settings(asked.changes)
        if count is None:
            found = run_predict(
                model,
                inputs or [],
                progress,
                id_field=id_field,
                draw=draw,
                files=files,
                coverage=coverage,
                familiar=familiar,
            )
        else:
            found = make(model, count, progress, first=first, given=asked.given, draw=draw)
        answers = []
        for answer in found:
            answers.append(answer)
            if out is None:
                _print(answer)
    if out is not None:
        as_file.write(out, answers)
    bad = [one for one in answers if "error" in one]
    if bad:
        names = "; ".join(f"{one['input']}: {one['error']}" for one in bad[:5])
        raise UserError(
            f"{len(bad)} of {len(answers)} inputs could not be read: {names}{'; ...' if len(bad) > 5 else ''}",
            hint=f"the other answers are in {out}" if out and len(bad) < len(answers) else None,
        )


@app.command()
def prove(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    as_json: AsJson = False,
) -> None:
    """Try on a run what sonde claims: resumed = straight, served = evaluated, batched = single, and more."""
    from sonde.base.errors import CheckFailed
    from sonde.cli.progress import terminal

    with terminal() as progress:
        progress.begin("start", 1)
        from sonde.commands.prove import prove as run_prove

        proof = run_prove(run, progress=progress)
    _print(proof.to_json() if as_json else proof.to_text())
    if proof.failed:
        raise CheckFailed(f"not so for {run}: {'; '.join(proof.failed)}")


@app.command()
def kinds(as_json: AsJson = False) -> None:
    """List every kind of source, input, target and network."""
    from sonde.base import lookup

    found = {room: lookup.kinds(room) for room in lookup.ROOMS}
    if as_json:
        _print(found)
        return
    for room, listed in found.items():
        print(room)
        for name, line in listed.items():
            print(f"  {name:<14} {line}")


def _print(result: object) -> None:
    if _rank() == 0:
        print(
            result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, allow_nan=False), flush=True
        )


def _rank() -> int:
    """Which of the processes that torchrun started this is."""
    return int(os.environ.get("RANK", "0"))


def main() -> None:
    """Run a command; a `SondeError` becomes its message and its exit code."""
    from sonde.base.errors import SondeError
    from sonde.cli import waiting

    waiting.choose()
    try:
        app()
    except SondeError as error:
        who = f"process {_rank()}: " if "RANK" in os.environ else ""
        print(f"{who}error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
