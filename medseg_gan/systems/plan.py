"""From a command to a plan: recipe, profile, data and folder. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.machine.atomic import read_json
from medseg_gan.running.plain_yaml import read_yaml
from medseg_gan.running.recipe import Header, import_object, load_recipe, read_header
from medseg_gan.running.record import data_manifest
from medseg_gan.running.stages import Plan
from medseg_gan.systems import SYSTEMS, System


def plan_recipe(
    name: str,
    data: str | Path | None = None,
    out: str | Path | None = None,
    profile: str | None = None,
    sets: Sequence[str] = (),
    device: str = "auto",
    until: str | None = None,
    rerun: str | None = None,
) -> Plan:
    """Plan a run.

    Args:
        name: A recipe's name, or the path of a YAML file.
        data: Folder of the user's data; None: the built-in phantom.
        out: Run folder; None: `runs/<recipe>-<profile>`.
        profile: A profile of the recipe; None: `demo` on the phantom, `paper` on the user's data.
        sets: Overrides such as `train_gan.lr=1e-3`.
        device: `auto`, `cpu` or `cuda`.
        until: Last stage to run.
        rerun: Stage to make anew, with all later ones.

    Raises:
        UsageError: every mistake in the recipe and its overrides, or a folder or stage that does not exist.
    """
    header = read_header(name)
    chosen = _default_profile(header, data) if profile is None else profile
    recipe = load_recipe(name, _recipe_classes(), chosen, sets)
    run = _folder("--out", out) or Path("runs") / f"{header.name}-{recipe.profile}"
    _check_same_recipe(run, header)
    folder = _folder("--data", data)
    if folder is not None:
        _check_data(folder, run)
    return Plan(
        recipe=recipe,
        stages=import_object(SYSTEMS[header.system].stages),
        run=run,
        data=folder,
        manifest=data_manifest(folder) if folder else None,
        device=device,
        until=until,
        rerun=rerun,
        profile_named=profile is not None or chosen is None,
    )


def open_run(run: str | Path) -> Plan:
    """The plan of a run folder as it was made, for reading from it.

    Raises:
        UsageError: the folder is no run.
    """
    run = Path(run).expanduser()
    if not (run / "recipe.yaml").is_file():
        raise UsageError(f"{run} is not a run folder: it has no recipe.yaml")
    recipe = load_recipe(str(run / "recipe.yaml"), _recipe_classes())
    return Plan(recipe, import_object(SYSTEMS[recipe.header.system].stages), run)


def plan_export(run: str | Path, out: str | Path | None = None) -> tuple[Plan, Path | None, Callable[..., Path]]:
    """A run, the folder to make, and its system's function `export(plan, to, out, **choices)`.

    Raises:
        UsageError: the folder is no run, its system has nothing to export, or `out` is a file or in a stage's folder.
    """
    plan = open_run(run)
    system = plan.recipe.header.system
    if not SYSTEMS[system].export:
        able = ", ".join(name for name, other in SYSTEMS.items() if other.export)
        raise UsageError(f"{plan.run} is a run of the system {system}, which exports nothing; wanted a run of {able}")
    folder = _folder("--out", out)
    if folder is not None:
        plan.check_out(folder)
    return plan, folder, import_object(SYSTEMS[system].export)


def plan_factory(run: str | Path, out: str | Path | None = None) -> tuple[Plan, Path | None, System]:
    """A run with a label factory, the folder to make, and its system.

    Raises:
        UsageError: the folder is no run, or its system has no label factory.
    """
    plan = open_run(run)
    system = plan.recipe.header.system
    if not SYSTEMS[system].factory:
        able = ", ".join(name for name, other in SYSTEMS.items() if other.factory)
        raise UsageError(f"{plan.run} is a run of the system {system}, which has no label factory; wanted {able}")
    return plan, _folder("--out", out), SYSTEMS[system]


def plan_annotation(run: str | Path) -> tuple[Plan, Callable[..., None]]:
    """A run and its system's function `annotate_on_page(plan, **choices)`.

    Raises:
        UsageError: the folder is no run, one whose settings this version does not know, or nobody paints for it.
    """
    plan = open_run(run)
    system = plan.recipe.header.system
    if not SYSTEMS[system].annotate:
        able = ", ".join(name for name, other in SYSTEMS.items() if other.annotate)
        raise UsageError(
            f"{plan.run} is a run of the system {system}, which needs no painted masks; wanted a run of {able}"
        )
    return plan, import_object(SYSTEMS[system].annotate)


def plan_report(run: str | Path) -> Plan:
    """Plan to make a finished run's report anew; the data need not be there any more.

    Raises:
        MedsegError: the folder is no run, or a stage before the report is not finished.
    """
    plan = open_run(run)
    recipe, stages, run = plan.recipe, plan.stages, plan.run
    first = plan.folder(stages[0]) / "started.json"
    manifest = read_json(first).get("data") if first.is_file() else None
    plan = Plan(recipe, stages, run, manifest=manifest, rerun="report")
    for step in plan.steps():
        if step.stage.name == "report":
            break
        if step.status == "refuse":
            raise step.refusal
        if step.status != "kept":
            raise MedsegError(f"{run}: {step.stage.name} is not finished; run the recipe's command again first")
    return plan


def _recipe_classes() -> dict[str, str]:
    return {name: system.recipe for name, system in SYSTEMS.items()}


def _default_profile(header: Header, data: str | Path | None) -> str | None:
    """`demo` on the phantom, `paper` on the user's data; a resolved recipe has no profiles and keeps its settings."""
    if not header.profiles:
        return None
    if data is not None:
        return "paper"
    if "demo" not in header.profiles:
        raise UsageError(f"{header.name} has no profile demo; give --profile, one of {', '.join(header.profiles)}")
    return "demo"


def _folder(option: str, given: str | Path | None) -> Path | None:
    """A folder given by the user; an empty text, most often an unset variable, is not the working folder."""
    if given is None:
        return None
    if not str(given).strip():
        raise UsageError(f"{option} is empty; name a folder, or leave the option out")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{option} {given}: there is no such home folder; give the path from the root") from error


def _check_same_recipe(run: Path, header: Header) -> None:
    """A run folder belongs to one recipe."""
    if (run / "recipe.yaml").is_file():
        try:
            name = read_yaml(run / "recipe.yaml", str(run / "recipe.yaml")).get("recipe")
        except UsageError as error:
            raise UsageError(f"{error}; remove the file, every run writes it anew") from error
        if name != header.name:
            raise UsageError(f"--out {run} holds a run of the recipe {name}, not of {header.name}; choose another")


def _check_data(data: Path, run: Path) -> None:
    """The data folder exists, and the run folder does not lie in it: what a run writes must not change its input."""
    if not data.exists():
        raise UsageError(f"--data {data} does not exist; give the folder with your data")
    if not data.is_dir():
        raise UsageError(f"--data {data} is a file, wanted a folder with volumes")
    if run.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"--out {run} lies inside --data {data}; choose a run folder outside your data")
