"""Baselines: what the costs of a draw are expected to be, so that its score multiplies what is left only.

A score's mean is zero, so a number that does not depend on the draw may be taken from the costs that it multiplies; the
estimate stays unbiased and varies less, the more so the better the costs are foretold (Mnih and Gregor, *Neural
variational inference and learning in belief networks*, 2014, section 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.effects import Message
from sumout.effects.primitives import get_param_store
from sumout.errors import ModelError, nearest
from sumout.infer.objectives.terms import Table

_KEYS = ("baseline_value", "nn_baseline", "nn_baseline_input", "use_decaying_avg_baseline", "baseline_beta")


class Baseline(NamedTuple):
    """A site's ``infer["baseline"]``; ``named`` gives the dimensions of a tensor of the site's batch shape names.

    It may have ``baseline_value``, a tensor; ``nn_baseline`` and ``nn_baseline_input``, a module and its input;
    ``use_decaying_avg_baseline`` and ``baseline_beta``, for the running mean of the costs. All that are there are
    added up.
    """

    site: str
    told: Mapping[str, Any]
    named: Callable[[Tensor], Table]

    def around(self, costs: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """The costs less what is expected of them, and a loss that trains the expectation.

        Args:
            costs: over the plates of the site.
            names: of their dimensions.

        Raises:
            ModelError: if a baseline is no tensor, or varies where the costs do not.
        """
        expected: list[Tensor] = []
        trained: list[Tensor] = []
        if "nn_baseline" in self.told:
            inputs = self.told["nn_baseline_input"]
            found = self._aligned(self.told["nn_baseline"](inputs.detach()), names)
            trained.append(found)
            expected.append(found.detach())
        if "baseline_value" in self.told:
            found = self._aligned(self.told["baseline_value"], names)
            if found.requires_grad:
                trained.append(found)
            expected.append(found.detach())
        if self.told.get("use_decaying_avg_baseline"):
            expected.append(self._mean_so_far(costs))
        total: Tensor = torch.stack(torch.broadcast_tensors(costs, *expected))[1:].sum(0)  # type: ignore[no-untyped-call]
        loss = None
        if trained:
            rest = total - sum(each.detach() for each in trained)
            loss = (costs - rest - sum(trained)).square().sum()
        return costs - total, loss

    def _aligned(self, value: Any, names: Sequence[str]) -> Tensor:
        if not isinstance(value, Tensor):
            raise ModelError(
                f"The baseline of site {self.site!r} is {type(value).__name__}; it is a tensor of the shape of the "
                "site's "
                "plates, or a scalar."
            )
        table = self.named(value.squeeze(-1) if value.dim() and "nn_baseline" in self.told else value)
        if not set(table.names) <= set(names):
            raise ModelError(
                f"The baseline of site {self.site!r} has shape {tuple(value.shape)}, which varies along more than the "
                "plates of the site. Give a tensor of their shape, or a scalar."
            )
        return table.along(tuple(names))

    def _mean_so_far(self, costs: Tensor) -> Tensor:
        name = f"_baseline of {self.site}"
        store = get_param_store()
        before = store.setdefault(name, torch.zeros_like(costs)).detach()
        beta = self.told.get("baseline_beta", 0.9)
        store[name] = (1 - beta) * costs + beta * before
        return before


def baseline_of(site: Message, named: Callable[[Tensor], Table]) -> Baseline | None:
    """A site's baseline, if it has one.

    Raises:
        ModelError: if it is told in another way.
    """
    told = site.infer.get("baseline")
    if not told:
        return None
    unknown = [key for key in told if key not in _KEYS]
    if unknown:
        raise ModelError(
            f"The baseline of site {site.name!r} has {unknown[0]!r}; it may have {', '.join(map(repr, _KEYS))}."
            f"{nearest(unknown[0], _KEYS)}"
        )
    if "nn_baseline" in told and "nn_baseline_input" not in told:
        raise ModelError(
            f"The baseline of site {site.name!r} is a module without an input. Give nn_baseline_input too."
        )
    return Baseline(site.name or "", told, named)
