"""The command line: commands only, no logic. What needs torch is imported inside its command."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from medseg_gan import __version__
from medseg_gan.errors import MedsegError, WaitingForPerson
from medseg_gan.running.mistakes import show_value
from medseg_gan.running.recipe import list_recipes, recipe_folder
from medseg_gan.running.stages import Plan, Step, notice, slow_default
from medseg_gan.systems.plan import plan_recipe

_WordedByTyper: Any = typer.BadParameter.__mro__[2]  # typer brings its own click or takes the installed one


class _Commands(TyperGroup):
    """Every command's errors end here: one line each, an exit code, and a traceback only with `--debug`."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        """Run the command line; what typer finds wrong with it is one line too, not a box of them."""
        try:
            code = super().main(args, **{**extra, "standalone_mode": False})
        except _WordedByTyper as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                told = " ".join(error.format_message().replace("Value error, ", "").rstrip(".").split())
                path = error.ctx.command_path if error.ctx else "medseg-gan"
                typer.echo(f"error: {told[:1].lower()}{told[1:]}; see `{path} --help`", err=True)
            code = error.exit_code
        except typer.Abort:
            code = 1
        sys.exit(code or 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept `--debug` anywhere on the line."""
        ctx.obj = {"debug": "--debug" in args, "rerun": any(arg.startswith("--rerun") for arg in args)}
        return super().parse_args(ctx, [arg for arg in args if arg != "--debug"])

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            without = " without --rerun" if ctx.obj["rerun"] else ""
            typer.echo(f"interrupted; the same command{without} goes on", err=True)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                raise typer.Exit(1) from None
            if ctx.obj["debug"] or type(error).__module__.startswith("typer."):  # typer words its own usage errors
                raise
            code, lines = _words(error)
            for line in lines:
                typer.echo(line, err=True)
            raise typer.Exit(code) from None


def _nobody_reads() -> bool:
    """Whether who read our output has left, as `head` does; nothing more can be told there, nor need be."""
    output = select.poll()
    output.register(1, 0)  # which waits for nothing and yet tells of a pipe without a reader
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains on its way out
    return True


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Generative networks that label: train a GAN, label its images, train and judge segmenters.",
)


def main() -> None:
    """Entry point of `medseg-gan`."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; also accepted after a command.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Declared for --help; `_Commands` reads --debug."""


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="A recipe's name, or the path of a YAML file.")],
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Your volumes or pictures. Without it: a built-in phantom.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="Run folder.", show_default="runs/<recipe>-<profile>")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Named settings.", show_default="demo on the phantom, paper with --data")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="SETTING=VALUE", help="Such as train_gan.total_kimg=50.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to run.")] = None,
    rerun: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Make this stage and all later ones anew; old ones are moved.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and run nothing.")] = False,
) -> None:
    """Run a recipe; the same command again goes on where it stopped."""
    if dry_run:
        _show_plan(plan_recipe(name, data, out, profile, sets or (), device, until, rerun))
        return
    from medseg_gan.api import run_recipe
    from medseg_gan.machine.processes import is_first

    run = run_recipe(name, data, out, profile, sets or (), device, until, rerun, say=typer.echo)
    if not is_first():
        return
    page = run / "report" / "index.html"
    typer.echo(f"report: {page}" if page.is_file() else f"run folder: {run}")


@app.command()
def recipes() -> None:
    """List the recipes."""
    found = list_recipes()
    if not found:
        raise MedsegError(f"no recipes lie in {recipe_folder()}; the installation is incomplete")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    for column in ("system", "dataset", "source", "hours"):
        table.add_column(column, overflow="fold")
    for header in found:
        table.add_row(header.name, header.system, header.dataset, header.source, header.hours)
    Console().print(table)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Make a run's report anew."""
    from medseg_gan.api import rebuild_report

    rebuild_report(run, say=typer.echo)
    typer.echo(f"report: {run / 'report' / 'index.html'}")


@app.command("import-weights")
def import_weights(
    source: Annotated[
        Path, typer.Argument(metavar="NETWORK", help="network.pkl of StyleGAN2-ADA, or a rosinality .pt.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, such as G.pt.")],
    grey: Annotated[bool, typer.Option("--grey", help="Turn colour networks into grey ones (Rec. 601).")] = False,
) -> None:
    """Convert published StyleGAN2 weights into a safe file; nothing in them is executed."""
    from medseg_gan.weights.files import convert_weights, describe_networks

    typer.echo(f"{target}: {describe_networks(convert_weights(source, target, grey))}")


@app.command()
def generate(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A run folder, or a weight file: G_ema.pt, network.pkl, G.pt.")
    ],
    seeds: Annotated[str | None, typer.Option(help="Such as 0-63,70.", show_default="0-15")] = None,
    psi: Annotated[float, typer.Option(help="Truncation: 1 for none, 0 for the mean picture.")] = 1.0,
    psi_layers: Annotated[int | None, typer.Option(metavar="N", help="Truncate the first N layers only.")] = None,
    noise: Annotated[
        Literal["const", "random", "none"], typer.Option(help="Stored, drawn by seed, or none.")
    ] = "const",
    seed_convention: Annotated[
        Literal["nvidia", "ours"], typer.Option(help="As the official code, or the run's label factory.")
    ] = "nvidia",
    class_id: Annotated[int | None, typer.Option("--class", metavar="K", help="Of a conditional generator.")] = None,
    format: Annotated[
        Literal["png", "nii", "gif"] | None, typer.Option(help="nii: HU, for runs; gif: --interpolate only.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also one sheet of all pictures.")] = False,
    latents: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="projected.pt of `project`, drawn in place of seeds.")
    ] = None,
    mix: Annotated[
        tuple[str, str] | None, typer.Option(metavar="ROWS COLS", help="Seeds whose styles are mixed.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="What --mix takes from the columns.", show_default="the first half")
    ] = None,
    interpolate: Annotated[str | None, typer.Option(metavar="SEEDS", help="Go from seed to seed.")] = None,
    frames: Annotated[int, typer.Option(help="From one seed to the next.")] = 60,
    fps: Annotated[float, typer.Option(help="Frames per second of the GIF.")] = 25,
    loop: Annotated[bool, typer.Option("--loop", help="Then back to the first seed.")] = False,
    way: Annotated[Literal["w", "z"], typer.Option(help="Lines in w, or great circles in z.")] = "w",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write.", show_default="RUN/generated/seeds, ...")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
) -> None:
    """Draw pictures with a trained generator: of seeds, mixed styles, or the way between seeds."""
    from medseg_gan.api import generate_images

    folder = generate_images(
        source,
        seeds,
        out,
        psi=psi,
        psi_layers=psi_layers,
        noise=noise,
        seed_convention=seed_convention,
        class_id=class_id,
        format=format,
        grid=grid,
        latents=latents or (),
        mix=mix,
        layers=layers,
        interpolate=interpolate,
        frames=frames,
        fps=fps,
        loop=loop,
        way=way,
        device=device,
    )
    typer.echo(f"pictures: {folder}")


@app.command()
def project(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A run folder, or a weight file.")],
    image: Annotated[Path, typer.Argument(metavar="SLICE", help="A picture, or a volume with --index.")],
    space: Annotated[Literal["w", "w+"], typer.Option(help="One latent for all layers, or one for each.")] = "w",
    steps: Annotated[int, typer.Option(help="Of the search.")] = 500,
    index: Annotated[int | None, typer.Option(metavar="K", help="Slice of a volume, from 0 at the feet.")] = None,
    window: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="HU of a volume.", show_default="the run's")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search's random numbers.")] = 0,
    class_id: Annotated[int | None, typer.Option("--class", metavar="K", help="Of a conditional generator.")] = None,
    features: Annotated[
        Literal["random", "discriminator"], typer.Option(help="In which the two pictures are compared.")
    ] = "random",
    noise_maps: Annotated[bool, typer.Option(help="Search noise maps too, or keep the stored ones.")] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write.", show_default="RUN/projected/<digest>-<space>")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
) -> None:
    """Find the latent whose picture is nearest to a given slice."""
    from medseg_gan.api import project_image

    project_image(
        source,
        image,
        out,
        space=space,
        steps=steps,
        seed=seed,
        index=index,
        class_id=class_id,
        features=features,
        noise_maps=noise_maps,
        window=window,
        device=device,
        say=typer.echo,
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    to: Annotated[Literal["nnunet", "bundle", "dicom-seg", "onnx", "shards"], typer.Option("--to", help="Format.")],
    what: Annotated[
        Literal["synthetic", "real", "hybrid", "segmenter", "factory"] | None,
        typer.Option(help="Slices, or for bundle the segmenter or the factory.", show_default="synthetic or segmenter"),
    ] = None,
    row: Annotated[str | None, typer.Option(help="Training set of the segmenter.", show_default="hybrid")] = None,
    network: Annotated[str | None, typer.Option(help="Of the segmenter.", show_default="the recipe's first")] = None,
    dataset_id: Annotated[int, typer.Option(min=11, max=999, metavar="ID", help="For nnU-Net.")] = 500,
    format: Annotated[
        Literal["nii", "png"], typer.Option(help="For nnU-Net: HU as NIfTI, or the window as 8-bit PNG.")
    ] = "nii",
    num: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Generated pairs at most.", show_default="all")
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Terms to write on the card.")] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder to make; for nnunet, nnUNet_raw.", show_default="RUN/export/..."),
    ] = None,
) -> None:
    """Hand a run on: nnU-Net raw data, a MONAI bundle, DICOM with SEG, ONNX, or webdataset shards."""
    from medseg_gan.api import export_run

    choices = {"what": what, "row": row, "network": network, "dataset_id": dataset_id}
    folder = export_run(run, to, out, **choices, file_format=format, num=num, licence=licence)
    typer.echo(f"export: {folder}")


@app.command()
def synthesize(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    num: Annotated[int, typer.Option(metavar="N", help="Labelled pairs to make.")],
    to: Annotated[
        Literal["shards", "png", "nifti"], typer.Option("--to", help="webdataset tar files, or folders of files.")
    ] = "shards",
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder to fill.", show_default="RUN/synthesized/<format>")
    ] = None,
    start: Annotated[int, typer.Option(metavar="K", help="First pair; others than those of an earlier call.")] = 0,
    workers: Annotated[
        int, typer.Option(metavar="W", help="Processes on this machine; 0: one per core, on a GPU one.")
    ] = 0,
    part: Annotated[str, typer.Option(metavar="I/N", help="Of a job array: make every N-th shard, from the I-th.")] = (
        "1/1"
    ),
    shard: Annotated[int, typer.Option(metavar="N", help="Pairs of a shard.")] = 512,
    keep: Annotated[
        str | None,
        typer.Option(metavar="CLASSES", help="Of predicted quality, such as good,partial.", show_default="all"),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
) -> None:
    """Make any number of labelled pairs with a run's label factory; the same command again goes on."""
    from medseg_gan.api import synthesize_pairs
    from medseg_gan.machine.processes import is_first

    choices = {"to": to, "start": start, "workers": workers, "part": part, "shard": shard, "device": device}
    folder = synthesize_pairs(run, num, out, keep=() if keep is None else keep, **choices)
    if not is_first():
        return
    if (folder / "manifest.json").is_file():
        typer.echo(f"pairs: {folder / 'manifest.csv'}")
    else:
        typer.echo(f"part {part} is there; the last part to end writes {folder / 'manifest.csv'}")


@app.command()
def annotate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose stage annotate waits for a person.")],
    port: Annotated[int, typer.Option(min=1024, max=65535, help="On 127.0.0.1: no other machine reaches it.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the default browser.")] = True,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where interpreters for pre-labels are trained.")
    ] = "auto",
) -> None:
    """Paint a run's generated slices on a page of this machine; Ctrl-C ends it, what is saved stays."""
    typer.echo(f"annotate: opening the page for {run} ...")  # the imports take up to a minute on a busy machine
    from medseg_gan.api import annotate_run

    annotate_run(run, port=port, open_browser=browser, device=device, say=typer.echo)


# Further commands go here, each a few lines that call the package.


def _words(error: Exception) -> tuple[int, Sequence[str]]:
    """Exit code and lines of an error."""
    if isinstance(error, WaitingForPerson):
        return error.exit_code, str(error).splitlines()
    if isinstance(error, MedsegError):
        return error.exit_code, [f"error: {line}" for line in str(error).splitlines()]
    if isinstance(error, OSError) and error.filename is not None:
        return 1, [f"error: {error.filename}: {error.strerror}; check the path and its permissions, or see --debug"]
    text = " ".join(str(error).split())
    return 1, [f"error: {type(error).__name__}: {text}; run with --debug for the traceback"]


def _show_plan(plan: Plan) -> None:
    """Print what would be run."""
    recipe, run = plan.recipe, plan.recipe.settings.run
    steps = plan.steps()
    typer.echo(f"{recipe.header.name}: {recipe.header.source}")
    typer.echo(f"profile {recipe.profile}, data {plan.data or 'built-in phantom'}, device {plan.device}")
    typer.echo(f"run folder {plan.run}, seed {run.seed}, precision {plan.precision()}, threads {run.threads or 'all'}")
    if line := slow_default(plan, steps, plan.device):
        typer.echo(line)
    for number, step in enumerate(steps, start=1):
        typer.echo(f"\n{number}. {step.stage.name}: {_STATUS[step.status]}, {step.folder}")
        settings = ", ".join(_settings(step.section))
        if settings:
            typer.echo(f"   {settings}")
        if step.stage.expected:
            typer.echo(f"   expected: {step.stage.expected(recipe.settings)}")
        if step.status == "kept" and (line := notice(step)):
            typer.echo(f"   {line}")
    refused: Step | None = next((step for step in steps if step.status == "refuse"), None)
    if refused:
        raise refused.refusal


_STATUS = {
    "kept": "kept, it is finished",
    "resume": "resumed",
    "new": "new",
    "refuse": "refused, its settings changed or files are missing",
    "rerun": "made anew, the old one is moved to replaced/",
    "later": "not run, it comes after --until",
}


def _settings(section: Any, prefix: str = "") -> list[str]:
    """The settings that the recipe, its profile or `--set` give; all others have their defaults."""
    texts = []
    for name in type(section).model_fields:
        if name in section.model_fields_set:
            value = getattr(section, name)
            inner = hasattr(value, "model_fields_set")
            texts += _settings(value, f"{prefix}{name}.") if inner else [f"{prefix}{name} {show_value(value)}"]
    return texts
