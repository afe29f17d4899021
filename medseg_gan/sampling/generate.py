"""Generate images for a person to look at: from seeds, stored latents, mixed styles, or interpolation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from medseg_gan.errors import UsageError
from medseg_gan.sampling.drawing import draw
from medseg_gan.sampling.files import Manifest, save_gif, save_picture, save_sheet, save_synthetic_nifti
from medseg_gan.sampling.latents import (
    Drawing,
    NoiseMode,
    SeedConvention,
    Way,
    as_seeds,
    check_drawing,
    check_truncation,
    mix_styles,
    parse_numbers,
    seed_to_ws,
    truncate,
    way_between,
)
from medseg_gan.sampling.source import Source, open_source
from medseg_gan.sampling.stored_latents import load_latents
from medseg_gan.training.log import progress, say

Format = Literal["png", "nii", "gif"]
KINDS = {"--seeds": "seeds", "--latents": "latents", "--mix": "mixing", "--interpolate": "interpolation"}
MOST_FRAMES = 100_000


def generate_images(
    source: str | Path,
    seeds: str | Sequence[int] | None = None,
    out: str | Path | None = None,
    *,
    psi: float = 1.0,
    psi_layers: int | None = None,
    noise: NoiseMode = "const",
    seed_convention: SeedConvention = "nvidia",
    class_id: int | None = None,
    format: Format | None = None,
    grid: bool = False,
    latents: Sequence[str | Path] = (),
    mix: tuple[str | Sequence[int], str | Sequence[int]] | None = None,
    layers: str | None = None,
    interpolate: str | Sequence[int] | None = None,
    frames: int = 60,
    fps: float = 25,
    loop: bool = False,
    way: Way = "w",
    device: str = "auto",
) -> Path:
    """Draw pictures with a trained generator: of `seeds`, or of one of `latents`, `mix`, `interpolate`.

    Args:
        source: a run folder or a weight file, see `open_source`.
        seeds: such as `0-63,70` or a list of numbers; 0 to 15 when nothing else is asked for.
        out: folder of the pictures; None: `generated/seeds` (`latents`, `mixing`, `interpolation`) in the run, or in
            the working folder for a weight file. Pictures of the same settings join those already there.
        psi: truncation: 1 for none, 0 for the mean picture.
        psi_layers: number of leading layers that are truncated; None for all.
        noise: `const` (the generator's stored noise), `random` (drawn from the seed) or `none`.
        seed_convention: `nvidia` or `ours`, see `Drawing`.
        class_id: of a conditional generator.
        format: `png`, `nii` (one slice in HU; runs alone) or `gif` (interpolation alone, its default).
        grid: also write `sheet.png` with all pictures.
        latents: files of `project_image`, drawn in place of seeds.
        mix: seeds of rows and of columns; writes the sheet of all their mixtures.
        layers: layers that mixtures take from the column, such as `4-9`; None: the first half; empty: none.
        interpolate: seeds to go through.
        frames: steps from one seed to the next.
        fps: frames per second of the GIF.
        loop: go back to the first seed.
        way: `w` or `z`, see `way_between`.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The folder, with `manifest.json`.

    Raises:
        UsageError: arguments that contradict each other or the generator.
        MedsegError: an unusable file.

    Example:
        folder = generate_images("runs/segthor_datasetgan-demo", "0-63", psi=0.7, grid=True)
    """
    asked = {"--seeds": seeds, "--latents": latents or None, "--mix": mix, "--interpolate": interpolate}
    named = [option for option, value in asked.items() if value is not None] or ["--seeds"]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} exclude each other; choose one")
    _check_options(named[0], format, noise, grid, layers, frames, fps, loop)
    found = open_source(source, device)
    drawing = Drawing(psi, psi_layers, noise, seed_convention, class_id)
    folder = out_folder(source, out, f"generated/{KINDS[named[0]]}")
    if not latents:
        check_drawing(found, drawing)
    if latents:
        _draw_latents(found, folder, [Path(path) for path in latents], drawing, format or "png", grid)
    elif mix is not None:
        _draw_mixtures(found, folder, mix, layers, drawing)
    elif interpolate is not None:
        _draw_way(
            found, folder, as_seeds(interpolate, "--interpolate"), drawing, format or "gif", frames, fps, loop, way
        )
    else:
        _draw_seeds(found, folder, as_seeds("0-15" if seeds is None else seeds), drawing, format or "png", grid)
    return folder


def out_folder(source: str | Path, out: str | Path | None, name: str) -> Path:
    """Where results go: as asked, else inside the run, else in the working folder."""
    if out is not None:
        if not str(out).strip():
            raise UsageError("--out is empty; name a folder, or leave the option out")
        return Path(out).expanduser()
    given = Path(source).expanduser()
    return given / name if given.is_dir() else Path(name)


def _check_options(
    job: str,
    format: Format | None,
    noise: NoiseMode,
    grid: bool,
    layers: str | None,
    frames: int,
    fps: float,
    loop: bool,
) -> None:
    """Refuse options of another job."""
    if layers is not None and job != "--mix":
        raise UsageError("--layers says what --mix takes from the columns; give --mix ROWS COLS")
    if job != "--interpolate" and (format == "gif" or loop):
        raise UsageError(f"{'--format gif' if format == 'gif' else '--loop'} belongs to --interpolate; give its seeds")
    if format == "nii" and job in ("--mix", "--interpolate"):
        raise UsageError(f"--format nii is for single images; leave {job} out")
    if grid and job in ("--mix", "--interpolate"):
        raise UsageError(f"--grid is for --seeds and --latents; leave it out with {job}")
    if job == "--interpolate" and noise == "random":
        raise UsageError("--noise random would flicker between frames; use const or none with --interpolate")
    if not 1 <= frames <= MOST_FRAMES or not 0 < fps <= 50:
        raise UsageError(f"--frames {frames}, --fps {fps:g}: wanted 1 to {MOST_FRAMES} frames and up to 50 a second")


def _draw_seeds(
    source: Source, folder: Path, seeds: Sequence[int], drawing: Drawing, format: Format, grid: bool
) -> None:
    manifest = Manifest(folder, source, "seeds", drawing.as_plain())
    _check_format(source, format)
    kept: list[Tensor] = []
    for seed in progress(seeds, "generate", "image"):
        image = draw(source, seed_to_ws(source, seed, drawing), drawing.noise, seed)
        kept += [image] * grid
        name = _save(source, folder, f"seed{seed:04d}", image, format, f"seed {seed}")
        manifest.add(name, seed=seed)
    _finish(manifest, folder, kept, seeds=list(seeds))


def _draw_latents(
    source: Source, folder: Path, paths: Sequence[Path], drawing: Drawing, format: Format, grid: bool
) -> None:
    if drawing.class_id is not None or drawing.seed_convention != "nvidia":
        raise UsageError("--class and --seed-convention belong to seeds; leave them out with --latents")
    check_truncation(source, drawing)
    stored = [load_latents(path, source) for path in paths]
    digests = [item.sha256 for item in stored]
    settings = {"psi": drawing.psi, "psi_layers": drawing.psi_layers, "noise": drawing.noise, "latents": digests}
    manifest = Manifest(folder, source, "latents", settings)
    _check_format(source, format)
    kept: list[Tensor] = []
    for path, item in zip(paths, stored, strict=True):
        if not item.same_source:
            say(f"{path} was projected with another generator file; the image may differ from the projection")
        for row, ws in enumerate(item.ws.split(1)):
            image = draw(source, truncate(source, ws, drawing), drawing.noise, f"{item.sha256}/{row}", item.noise)
            kept.append(image)
            name = _save(source, folder, f"latents{len(kept) - 1:04d}", image, format, f"latents {item.sha256[:8]}")
            manifest.add(name, latents=item.sha256, row=row)
    _finish(manifest, folder, kept if grid else [])


def _draw_mixtures(
    source: Source,
    folder: Path,
    mix: tuple[str | Sequence[int], str | Sequence[int]],
    layers: str | None,
    drawing: Drawing,
) -> None:
    rows, columns = as_seeds(mix[0], "--mix ROWS"), as_seeds(mix[1], "--mix COLS")
    taken = layers_of(layers, source.G.num_ws)
    settings = {**drawing.as_plain(), "rows": rows, "columns": columns, "layers": taken}
    manifest = Manifest(folder, source, "mixing", settings)
    latents = {seed: seed_to_ws(source, seed, drawing) for seed in dict.fromkeys([*rows, *columns])}
    pictures: dict[int, Tensor] = {}
    for seed, ws in latents.items():
        pictures[seed] = draw(source, ws, drawing.noise, seed)
        manifest.add(_save(source, folder, f"seed{seed:04d}", pictures[seed], "png", ""), seed=seed)
    corner = pictures[rows[0]].new_full(pictures[rows[0]].shape, -1)
    sheet = [corner, *(pictures[seed] for seed in columns)]
    for row in progress(rows, "generate: mixtures", "row"):
        sheet.append(pictures[row])
        for column in columns:
            image = draw(source, mix_styles(latents[row], latents[column], taken), drawing.noise, row)
            sheet.append(image)
            name = _save(source, folder, f"row{row:04d}-column{column:04d}", image, "png", "")
            manifest.add(name, row=row, column=column)
    save_sheet(folder / "mixing.png", sheet, len(columns) + 1)
    manifest.add("mixing.png")
    manifest.save()


def _draw_way(
    source: Source,
    folder: Path,
    seeds: Sequence[int],
    drawing: Drawing,
    format: Format,
    frames: int,
    fps: float,
    loop: bool,
    way: Way,
) -> None:
    if len(seeds) < 2:
        raise UsageError(f"--interpolate {seeds[0]}: wanted at least two different seeds, such as 0,5,9")
    settings = {**drawing.as_plain(), "seeds": list(seeds), "frames": frames, "loop": loop, "way": way}
    total = frames * (len(seeds) - 1 + loop) + (not loop)
    if total > MOST_FRAMES:
        raise UsageError(f"--frames {frames}: that makes {total} frames, wanted at most {MOST_FRAMES}")
    if format == "gif":
        settings["fps"] = fps
    manifest = Manifest(folder, source, "interpolation", {**settings, "format": format})

    def pictures() -> Iterator[Tensor]:
        for ws in progress(way_between(source, seeds, frames, loop, way, drawing), "generate: frames", "frame", total):
            yield draw(source, ws, drawing.noise)

    if format == "gif":
        save_gif(folder / "interpolation.gif", pictures(), fps)
        manifest.add("interpolation.gif", frames=total)
    else:
        for number, image in enumerate(pictures()):
            manifest.add(_save(source, folder, f"frame{number:05d}", image, "png", ""), frame=number)
    manifest.save()


def layers_of(text: str | None, num_ws: int) -> list[int]:
    """Layers from text such as `4-9`; None: the first half; empty: none.

    Raises:
        UsageError: it names no layers of this generator.
    """
    if text is None:
        return list(range(num_ws // 2))
    return parse_numbers(text, "--layers", num_ws - 1) if text.strip() else []


def _check_format(source: Source, format: Format) -> None:
    if format != "nii":
        return
    if source.slices is None:
        raise UsageError(
            "--format nii needs the window and spacing of a run folder with its 01-prepare; give the run, or use png"
        )
    if source.G.img_channels != 1:
        raise UsageError("--format nii holds HU, and this generator makes colour images; use png")


def _save(source: Source, folder: Path, stem: str, image: Tensor, format: Format, what: str) -> str:
    name = f"{stem}.nii.gz" if format == "nii" else f"{stem}.png"
    if format == "nii":
        assert source.slices is not None
        save_synthetic_nifti(folder / name, image, source.slices, what)
    else:
        save_picture(folder / name, image)
    return name


def _finish(manifest: Manifest, folder: Path, kept: Sequence[Tensor], **what: Any) -> None:
    """The sheet, if pictures were kept for it, and the record."""
    if kept:
        save_sheet(folder / "sheet.png", kept, math.ceil(math.sqrt(len(kept))))
        manifest.add("sheet.png", **what)
    manifest.save()
