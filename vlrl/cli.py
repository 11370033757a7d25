"""The command line: parses, calls the package, prints. Heavy imports wait for their command."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vlrl.config import ConfigError
from vlrl.evaluation.command import HELP, evaluate
from vlrl.native_memory import bound_caches
from vlrl.openmp import set_waiting
from vlrl.samplers.fleet.command import serve
from vlrl.sandbox.options import SandboxSettings, sandbox_config

app = typer.Typer(
    name="vlrl",
    help="Train Qwen-VL-style models with reinforcement learning from verifiable rewards.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    rich_markup_mode="rich",
)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Config keys to change.")
]
Model = Annotated[str, typer.Argument(help="A folder, a hub id, or a built-in model's name.")]
Root = Annotated[
    Path | None, typer.Option(help="A folder that stands in for the hub: DOMAIN/NAME/SPLIT.jsonl.")
]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, a preset's name, or a run's folder.")],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder CONFIG.")
    ] = False,
) -> None:
    """Train a policy and print Pass@1 per domain before and after.

    [bold]Examples[/bold]

    vlrl train quickstart

    vlrl train my.yaml model.path=Qwen/Qwen2.5-VL-3B-Instruct learner.lr=1e-6 out=runs/a

    vlrl train runs/a --resume steps=200
    """
    from vlrl.config import load
    from vlrl.resources import find_yaml
    from vlrl.train import train as run_training

    if resume:
        saved = Path(config) / "config.yaml"
        if not saved.is_file():
            raise ConfigError(f"{config}: no run to go on with: --resume wants a run's folder")
        # The folder may have been moved since: the run is where it is now.
        cfg = load(saved, overrides or []).model_copy(update={"out": Path(config)})
    elif Path(config).is_dir():
        raise ConfigError(f"{config} is a folder: to go on with the run in it, add --resume")
    else:
        cfg = load(find_yaml(config, "presets"), overrides or [])
    run_training(cfg, resume=resume)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[Path, typer.Argument(help="Where the Hugging Face checkpoint goes.")],
    step: Annotated[int | None, typer.Option(help="Of which step (default: the newest).")] = None,
) -> None:
    """Write one Hugging Face checkpoint of a run, also of one that several processes trained.

    [bold]Example[/bold]

    vlrl export runs/a policy --step 100
    """
    from vlrl.distributed.export import export as write

    print(f"{out}: the policy of {write(run, out, step=step)}")


@app.command()
def plan(
    config: Annotated[str, typer.Argument(help="A YAML file or a preset's name.")],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs.")] = 1,
    memory: Annotated[float, typer.Option(min=1, help="Memory of each in GiB.")] = 80.0,
    all_models: Annotated[
        bool, typer.Option("--all-models", help="A line for each model whose shape is known.")
    ] = False,
) -> None:
    """Say from shapes alone whether a run fits on GPUs; exit 1 if it doesn't. Needs no GPU.

    [bold]Example[/bold]

    vlrl plan my.yaml model.path=Qwen/Qwen3-VL-8B-Instruct --gpus 8 --memory 80
    """
    from rich.console import Console

    from vlrl.config import load
    from vlrl.plan.show import plan as show_plan
    from vlrl.resources import find_yaml

    cfg = load(find_yaml(config, "presets"), overrides or [])
    # A log file has no width of its own.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    fits = show_plan(cfg, num_gpus=gpus, memory_gib=memory, console=console, all_models=all_models)
    raise typer.Exit(0 if fits else 1)


app.command("eval", help=HELP)(evaluate)


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="A folder of transcripts, or one SUITE.jsonl.")],
    run_b: Annotated[Path, typer.Argument(help="Another evaluation of the same problems.")],
    out: Annotated[
        Path | None, typer.Option(help="A .json or .csv file: who won each problem.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the test, where signs are drawn.")] = 0,
) -> None:
    """Compare two evaluations problem by problem: difference, interval, p-value, who won.

    [bold]Example[/bold]

    vlrl compare runs/a/evals/step-000000 runs/a/evals/step-000500 --out won.csv
    """
    from rich.console import Console

    from vlrl.compare import compare as compare_runs
    from vlrl.report.comparison import check_form, show, write

    if out:
        check_form(out)
    found = compare_runs(run_a, run_b, seed=seed)
    # A log file has no width of its own.
    width = None if sys.stdout.isatty() else 110
    show(found, run_a, run_b, Console(highlight=False, width=width))
    if out:
        write(found, out)


@app.command()
def play(
    model: Model,
    recipe: Annotated[str | None, typer.Option(help="Take a problem from this recipe ...")] = None,
    index: Annotated[
        int, typer.Option(min=0, help="... the one at this place of its eval split.")
    ] = 0,
    domain: Annotated[str, typer.Option(help="Or ask your own: the domain that judges it,")] = "",
    question: Annotated[str, typer.Option(help="the question,")] = "",
    answer: Annotated[str, typer.Option(help="the right answer,")] = "",
    image: Annotated[list[Path] | None, typer.Option(help="and its images.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Responses.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each response.")] = 256,
    root: Root = None,
    sandbox: SandboxSettings = None,
) -> None:
    """Ask the model one problem; see its answers and their verdicts.

    [bold]Examples[/bold]

    vlrl play tiny-qwen3-vl --recipe easy_vqa --index 3 --n 4

    vlrl play runs/a/checkpoints/step-000100 --domain image_qa --image cat.png
    --question "What animal is it?" --answer cat
    """
    from vlrl.play import own_problem, play, recipe_problem
    from vlrl.sandbox import configure

    configure(sandbox_config(sandbox))
    if recipe:
        problem = recipe_problem(recipe, index, root)
    elif domain:
        problem = own_problem(domain, question, answer, image or [])
    else:
        raise typer.BadParameter("name --recipe, or --domain with --question and --answer")
    play(model, problem, n=n, max_tokens=max_tokens)


@app.command()
def grade(
    cases: Annotated[
        Path, typer.Argument(exists=True, help="A JSONL file of responses, or of programs.")
    ],
    out: Annotated[Path, typer.Option(help="Where the verdicts go, a line each.")],
    sandbox: SandboxSettings = None,
) -> None:
    """Judge responses that were made elsewhere; exit 1 if there are lines that can't be judged.

    Rows: {id, domain, gold, response}, or {id, program, entry: {type, tests, ...}}. Domains:
    math_qa, image_qa and logic, as in training; math, choice, text, count, number, bbox, point,
    json, similar_text and pattern, one judge each.

    [bold]Example[/bold]

    vlrl grade responses.jsonl --out verdicts.jsonl
    """
    from vlrl.grading.file import grade_file

    if not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    summary = grade_file(cases, out, sandbox_config(sandbox))
    typer.echo(str(summary))
    raise typer.Exit(1 if summary.bad_lines else 0)


verifier = typer.Typer(help="Verifiers of your own.", no_args_is_help=True)
app.add_typer(verifier, name="verifier")


@verifier.command("check")
def verifier_check(
    reference: Annotated[
        str,
        typer.Argument(metavar="MODULE:NAME", help="A function of (gold, response), or a task."),
    ],
    cases: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Your cases, a JSON object a line.")
    ],
    limit: Annotated[float, typer.Option(min=0.1, help="Seconds until a call is killed.")] = 10.0,
    slow: Annotated[float, typer.Option(min=0.001, help="Seconds from which one is slow.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="All findings, with whole responses, a line each.")
    ] = None,
) -> None:
    """Try a verifier on your cases and on hostile responses; exit 1 if anything got through.

    Cases: {"gold": "red", "response": "The answer is Red.", "expect": true}

    [bold]Example[/bold]

    vlrl verifier check my_module:my_verifier cases.jsonl
    """
    from rich.console import Console

    from vlrl.verifiers.check import check, show, write_findings

    report = check(reference, cases, limit_s=limit, slow_s=slow)
    if out:
        write_findings(report, out)
    raise typer.Exit(0 if show(report, Console()) else 1)


data = typer.Typer(help="Data recipes.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command("check")
def data_check(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or file.")],
    root: Root = None,
    json: Annotated[Path | None, typer.Option(help="All findings, as one JSON object.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of each split at most (endless ones: 500 without it)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Count questions in tokens of this model too.")
    ] = None,
) -> None:
    """Judge a recipe's golds and wrong answers; exit 1 if a gold fails or a wrong answer passes.

    [bold]Example[/bold]

    vlrl data check my.yaml --json report.json
    """
    from vlrl.recipes.check.command import run_check

    raise typer.Exit(0 if run_check(recipe, root, json, limit, model) else 1)


@data.command("build")
def data_build(
    mixture: Annotated[
        Path, typer.Argument(help="A YAML file of domains and recipes, or a manifest.json.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not be there.")],
    root: Root = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode images (default: all cores).")
    ] = None,
) -> None:
    """Build a training set: shares, duplicates, contamination, difficulty; Parquet and manifest.

    [bold]Example[/bold]

    vlrl data build mixture.yaml --out built/first
    """
    from rich.console import Console

    from vlrl.recipes.build.command import run_build

    run_build(mixture, out, root, workers, Console(highlight=False))


app.command()(serve)


@app.command()
def doctor(
    cluster: Annotated[
        str | None, typer.Option(help="Look at the servers and processes of this config instead.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what this machine has, what is missing, and the mend; or that of a run's machines.

    [bold]Examples[/bold]

    vlrl doctor

    vlrl doctor --cluster my.yaml
    """
    from rich.console import Console

    from vlrl.doctor import examine, show

    if cluster:
        from vlrl.config import load
        from vlrl.resources import find_yaml
        from vlrl.samplers.fleet.check import check_cluster

        cfg = load(find_yaml(cluster, "presets"), overrides or [])
        raise typer.Exit(0 if check_cluster(cfg, Console()) else 1)
    if overrides:
        raise typer.BadParameter(f"{overrides[0]}: config keys go with --cluster CONFIG")
    raise typer.Exit(0 if show(examine(), Console()) else 1)


def main() -> None:
    """Run the command line. An error that the user can mend is shown as one message, exit 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    set_waiting(os.environ)
    bound_caches(os.environ)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Engines warn about their own deprecations, which nobody here can mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except (ValueError, RuntimeError) as error:
        if not _is_for_users(error):
            raise
        _fail(str(error))
    except OSError as error:  # a folder that can't be written to, a file that is a folder ...
        if not error.filename:
            raise
        _fail(f"{error.filename}: {error.strerror}")


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _is_for_users(error: Exception) -> bool:
    """Our own error types carry a message for users; anything else is a bug and shows its trace."""
    return type(error).__module__.partition(".")[0] == "vlrl"


if __name__ == "__main__":
    main()
