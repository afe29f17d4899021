"""Parts built by name, the leaves of a recipe: `{_target_: monai.losses.DiceLoss, include_background: false}`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medseg_gan.errors import did_you_mean

_LEAVES = ("torch.nn.", "torch.optim.", "torchvision.models.", "monai.networks.", "monai.losses.", "monai.transforms.")
_ALLOWED = (*_LEAVES, "medseg_gan.", "stylegan2_ada_pytorch.")


class Component(BaseModel):
    """A part built by name, `{_target_: monai.losses.DiceLoss, include_background: false}`, the leaf of a section.

    The arguments are checked against the target's signature when the recipe is read; only this leaf's module is
    imported. Only `torch.nn`, `torch.optim`, `torchvision.models`, MONAI's networks, losses and transforms and our
    own modules can be named: a recipe is data, it cannot call anything else.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    provided: ClassVar[tuple[str, ...]] = ()
    """Arguments that the code gives at `build`, for a subclass to name."""

    target: str = Field(alias="_target_", description="what to build, such as monai.losses.DiceLoss")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments written in the recipe."""
        return dict(self.model_extra or {})

    def build(self, **arguments: Any) -> Any:
        """Call the target with the recipe's arguments and these."""
        return self._import()(**self.arguments, **arguments)

    @model_validator(mode="after")
    def _fits_its_target(self) -> Component:
        signature = inspect.signature(self._import())
        parameters = signature.parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            for name in self.arguments:
                if name not in signature.parameters:
                    hint = did_you_mean(name, signature.parameters) or f"; wanted {', '.join(signature.parameters)}"
                    raise ValueError(f"{self.target} has no argument {name}{hint}")
        for p in parameters:
            needed = p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            if needed and p.name not in (*self.arguments, *self.provided):
                raise ValueError(f"{self.target} needs {p.name}")
        return self

    def _import(self) -> Any:
        module, _, name = self.target.rpartition(".")
        if not self.target.startswith(_ALLOWED):
            raise ValueError(f"{self.target} cannot be named in a recipe; wanted one of {', '.join(_ALLOWED)}")
        if module.split(".")[0] in ("monai", "torchvision"):
            # By name, because this module stays free of torch: plans and --help must answer at once.
            importlib.import_module("medseg_gan.machine.vision").torchvision()
        try:
            home = importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"{self.target} cannot be imported ({error})") from error
        found = getattr(home, name, None)
        if not callable(found) or not getattr(found, "__module__", "").startswith(_ALLOWED):
            raise ValueError(f"{module} has nothing to build called {name}{did_you_mean(name, dir(home))}")
        return found
