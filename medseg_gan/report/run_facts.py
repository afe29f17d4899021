"""What every report says of how its run was made: machine, versions, stages with time and memory, settings."""

from __future__ import annotations

from typing import Any

from medseg_gan.machine.atomic import read_json
from medseg_gan.running.stages import Inputs


def run_facts(inputs: Inputs, phantom: bool) -> dict[str, Any]:
    """The fields of a `Document` about the run, from the records of the stages that the report reads.

    Returns:
        `recipe`, `profile`, `command`, `machine`, `precision`, `versions`, `settings`, and `stages`: `name`, `seconds`,
        `peak_mb`, the largest memory of the process or of any of its workers by the stage's end.
    """
    done = {name: read_json(folder / "done.json") for name, folder in inputs.folders.items()}
    last = done["evaluate"]
    return {
        "recipe": inputs.recipe,
        "profile": inputs.profile,
        "command": inputs.nameless_command(phantom=phantom),
        "machine": last["processor"] + (f", {last['gpu']}" if "gpu" in last else ""),
        "precision": inputs.precision,
        "versions": {"medseg-gan": last["medseg_gan"], "commit": last["commit"] or "", **last["versions"]},
        "stages": [
            {"name": name, "seconds": record["total_seconds"], "peak_mb": record["peak_mb"]}
            for name, record in done.items()
        ],
        "settings": (inputs.run / "recipe.yaml").read_text(encoding="utf-8"),
    }
