"""The command line: commands without logic. Commands that need torch import it when they run."""

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
from medseg_gan.errors import MedsegError, error_lines
from medseg_gan.running.dry_run import plan_lines
from medseg_gan.running.recipe import list_recipes, recipe_folder
from medseg_gan.systems.plan import plan_recipe

_WordedByTyper: Any = typer.BadParameter.__mro__[2]  # typer brings its own click or takes the installed one


class _Commands(TyperGroup):
    """Every command's errors end here: one line each, an exit code, and a traceback only with `--debug`."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        """Run the command line; a mistake that typer finds is one line too, not a box."""
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
            typer.echo(f"interrupted; the same command{without} continues", err=True)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                raise typer.Exit(1) from None
            if ctx.obj["debug"] or type(error).__module__.startswith("typer."):  # typer words its own usage errors
                raise
            code, lines = error_lines(error)
            for line in lines:
                typer.echo(line, err=True)
            raise typer.Exit(code) from None


def _nobody_reads() -> bool:
    """Whether the reader of our output has left, as `head` does."""
    output = select.poll()
    output.register(1, 0)  # waits for nothing, yet reports a pipe without a reader
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python complains at exit
    return True


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a GAN on images, label what it generates, and train and judge segmenters on these pairs.",
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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. Also accepted after a command.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Declared for --help; `_Commands` reads --debug."""


Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
Source = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A run folder, or a file of weights: G_ema.pt, network.pkl or G.pt.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="Compute on this device. auto takes a GPU where there is one.")
]
ClassId = Annotated[
    int | None, typer.Option("--class", metavar="K", help="Choose the class of a conditional generator.")
]


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or path of a YAML file.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Read your volumes or images here, not the built-in phantom."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="Write the run here.", show_default="runs/<recipe>-<profile>")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Use these named settings.", show_default="demo on the phantom, paper with --data"),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SETTING=VALUE", help="Change a setting, such as train_gan.total_kimg=50. Repeatable."
        ),
    ] = None,
    device: Device = "auto",
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    rerun: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Repeat this stage and all later ones. Their old folders are moved aside."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and run nothing.")] = False,
) -> None:
    """Run a recipe. The same command again continues where it stopped."""
    if dry_run:
        for line in plan_lines(plan_recipe(name, data, out, profile, sets or (), device, until, rerun)):
            typer.echo(line)
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
def report(run: Run) -> None:
    """Write the report of a run again."""
    from medseg_gan.api import rebuild_report

    rebuild_report(run, say=typer.echo)
    typer.echo(f"report: {run / 'report' / 'index.html'}")


@app.command("import-weights")
def import_weights(
    source: Annotated[
        Path, typer.Argument(metavar="NETWORK", help="A network.pkl of StyleGAN2-ADA, or a .pt file of rosinality.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, such as G.pt.")],
    grey: Annotated[
        bool, typer.Option("--grey", help="Turn colour networks into grey ones (weights of Rec. 601).")
    ] = False,
) -> None:
    """Convert published StyleGAN2 weights to a safe file. Nothing in them is executed."""
    from medseg_gan.weights.files import convert_weights, describe_networks

    typer.echo(f"{target}: {describe_networks(convert_weights(source, target, grey))}")


@app.command()
def generate(
    source: Source,
    seeds: Annotated[
        str | None,
        typer.Option(help="Generate one image for each of these seeds, such as 0-63,70.", show_default="0-15"),
    ] = None,
    psi: Annotated[float, typer.Option(help="Truncate: 1 changes nothing, 0 gives the mean image.")] = 1.0,
    psi_layers: Annotated[int | None, typer.Option(metavar="N", help="Truncate only the first N layers.")] = None,
    noise: Annotated[
        Literal["const", "random", "none"],
        typer.Option(help="Use the stored noise maps, draw them by seed, or use none."),
    ] = "const",
    seed_convention: Annotated[
        Literal["nvidia", "ours"],
        typer.Option(help="Turn seeds into latents as the official code does, or as the label factory of the run."),
    ] = "nvidia",
    class_id: ClassId = None,
    format: Annotated[
        Literal["png", "nii", "gif"] | None,
        typer.Option(help="Write this format. nii holds HU and needs a run; gif needs --interpolate."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write one grid of all images.")] = False,
    latents: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Use the latents of a projected.pt in place of seeds. Repeatable."),
    ] = None,
    mix: Annotated[
        tuple[str, str] | None, typer.Option(metavar="ROWS COLS", help="Mix the styles of these seeds in a grid.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Take these layers from the columns of --mix.", show_default="the first half"),
    ] = None,
    interpolate: Annotated[
        str | None, typer.Option(metavar="SEEDS", help="Move from seed to seed, one frame at a time.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Generate this many frames from one seed to the next.")] = 60,
    fps: Annotated[float, typer.Option(help="Show this many frames of the GIF per second.")] = 25,
    loop: Annotated[bool, typer.Option("--loop", help="Return to the first seed at the end.")] = False,
    way: Annotated[
        Literal["w", "z"], typer.Option(help="Interpolate along lines in w, or along great circles in z.")
    ] = "w",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write here.", show_default="RUN/generated/seeds, ...")
    ] = None,
    device: Device = "auto",
) -> None:
    """Generate images from seeds, mixed styles or interpolated latents."""
    from medseg_gan.api import generate_images

    look = {"psi": psi, "psi_layers": psi_layers, "noise": noise, "class_id": class_id, "format": format, "grid": grid}
    mixing = {"mix": mix, "layers": layers, "latents": latents or (), "seed_convention": seed_convention}
    moving = {"interpolate": interpolate, "frames": frames, "fps": fps, "loop": loop, "way": way}
    typer.echo(f"images: {generate_images(source, seeds, out, device=device, **look, **mixing, **moving)}")


@app.command()
def project(
    source: Source,
    image: Annotated[Path, typer.Argument(metavar="SLICE", help="An image, or a volume together with --index.")],
    space: Annotated[
        Literal["w", "w+"], typer.Option(help="Search one latent for all layers, or one for each layer.")
    ] = "w",
    steps: Annotated[int, typer.Option(help="Search for this many steps.")] = 500,
    index: Annotated[
        int | None, typer.Option(metavar="K", help="Take this slice of a volume, counted from 0 at the feet.")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Window a volume to this HU range.", show_default="the run's window"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed the random numbers of the search.")] = 0,
    class_id: ClassId = None,
    features: Annotated[
        Literal["random", "discriminator"],
        typer.Option(help="Compare the two images in features of a random network or of the discriminator."),
    ] = "random",
    noise_maps: Annotated[bool, typer.Option(help="Search the noise maps too, or keep the stored ones.")] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write here.", show_default="RUN/projected/<digest>-<space>")
    ] = None,
    device: Device = "auto",
) -> None:
    """Find the latent whose image is nearest to a given slice."""
    from medseg_gan.api import project_image

    search = {"space": space, "steps": steps, "seed": seed, "features": features, "noise_maps": noise_maps}
    target = {"index": index, "window": window, "class_id": class_id}
    project_image(source, image, out, **search, **target, device=device, say=typer.echo)


@app.command()
def export(
    run: Run,
    to: Annotated[
        Literal["nnunet", "bundle", "dicom-seg", "onnx", "shards", "dataset-zip"],
        typer.Option("--to", help="Write this format."),
    ],
    what: Annotated[
        Literal["synthetic", "real", "hybrid", "gan", "segmenter", "factory"] | None,
        typer.Option(
            help="Export these slices or, as a bundle, the segmenter or the label factory.",
            show_default="synthetic or segmenter",
        ),
    ] = None,
    row: Annotated[
        str | None, typer.Option(help="Take the segmenter of this training set.", show_default="hybrid")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Take the segmenter of this architecture.", show_default="the recipe's first")
    ] = None,
    dataset_id: Annotated[
        int, typer.Option(min=11, max=999, metavar="ID", help="Give nnU-Net's data set this number.")
    ] = 500,
    format: Annotated[
        Literal["nii", "png"], typer.Option(help="Write nnU-Net's files as NIfTI in HU, or as 8-bit PNG of the window.")
    ] = "nii",
    num: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Export at most N generated pairs.", show_default="all")
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="State these terms on the card.")] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write here. For nnunet, name nnUNet_raw.", show_default="RUN/export/..."),
    ] = None,
) -> None:
    """Export a run to nnU-Net, MONAI bundles, DICOM with DICOM SEG, ONNX, webdataset shards, or dataset.zip."""
    from medseg_gan.api import export_run

    choices = {"what": what, "row": row, "network": network, "dataset_id": dataset_id}
    folder = export_run(run, to, out, **choices, file_format=format, num=num, licence=licence)
    typer.echo(f"export: {folder}")


@app.command()
def synthesize(
    run: Run,
    num: Annotated[int, typer.Option(metavar="N", help="Make N labelled pairs.")],
    to: Annotated[
        Literal["shards", "png", "nifti"], typer.Option("--to", help="Write webdataset tar files, or folders of files.")
    ] = "shards",
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write here.", show_default="RUN/synthesized/<format>")
    ] = None,
    start: Annotated[
        int, typer.Option(metavar="K", help="Index of the first pair to make. An index always gives the same pair.")
    ] = 0,
    workers: Annotated[
        int, typer.Option(metavar="W", help="Use W processes. 0 takes one per CPU core, or a single one on a GPU.")
    ] = 0,
    part: Annotated[
        str, typer.Option(metavar="I/N", help="Make only the I-th of N parts, one per job of a job array.")
    ] = "1/1",
    shard: Annotated[int, typer.Option(metavar="N", help="Write N pairs to a shard.")] = 512,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="Keep only pairs of these quality classes, such as good,partial.",
            show_default="all",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Make any number of labelled pairs. The same command again continues where it stopped."""
    from medseg_gan.api import synthesize_pairs
    from medseg_gan.machine.processes import is_first

    choices = {"to": to, "start": start, "workers": workers, "part": part, "shard": shard, "device": device}
    folder = synthesize_pairs(run, num, out, keep=() if keep is None else keep, **choices)
    if not is_first():
        return
    if (folder / "manifest.json").is_file():
        typer.echo(f"pairs: {folder / 'manifest.csv'}")
    else:
        typer.echo(f"part {part} is finished; the part that finishes last writes {folder / 'manifest.csv'}")


@app.command()
def annotate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run whose stage annotate waits for your masks.")],
    port: Annotated[
        int, typer.Option(min=1024, max=65535, help="Serve the page on this port of 127.0.0.1, to this machine only.")
    ] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the default browser.")] = True,
    device: Device = "auto",
) -> None:
    """Paint masks on generated slices in your browser. Ctrl-C ends it; saved masks stay."""
    typer.echo(f"annotate: opening the page for {run} ...")  # the imports take up to a minute on a busy machine
    from medseg_gan.api import annotate_run

    annotate_run(run, port=port, open_browser=browser, device=device, say=typer.echo)
