"""A program as a function of unconstrained numbers, as Hamiltonian Monte Carlo wants it.

With unconstrained ``u`` and the sites' values ``x = T(u)``, the potential is ``-log Σ_z p(x, z, y) - log |det dT/du|``:
observed ``y``, and all discrete latent sites ``z`` summed out exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sumout.distributions import biject_to
from sumout.effects import Message, Trace, am_i_wrapped
from sumout.effects.handlers import BlockMessenger, TraceMessenger
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.handlers.sequential import is_sequential
from sumout.effects.primitives import validation_enabled
from sumout.effects.random_state import kept_rng_state
from sumout.effects.steps import is_lookback
from sumout.effects.trace import site_is_subsample
from sumout.effects.trace.types import types_told
from sumout.errors import ModelError, nearest
from sumout.infer.collapsing.marked import with_marked_sites_collapsed
from sumout.infer.potential.chains import ValueWithGradient, check_mapped, one_by_one, values_and_gradients
from sumout.infer.potential.initial import Init, init_to_uniform
from sumout.infer.potential.starting import Starting, refuse_subsamples
from sumout.infer.potential.unconstrained import Params, Unconstrained
from sumout.infer.programs.graphs import graph_of_run, graph_of_trace, refuse_powers
from sumout.infer.programs.program import EnumeratedProgram, Rehearsal, check_declared, plate_nesting
from sumout.infer.programs.sequential import sequential_runs
from sumout.infer.solving.solve import solve

_TRIES = 100
_MOST_TOLD = 20
"""So many sites of a kind are printed."""


class Potential:
    """The negative log joint density of a model's continuous latent sites, as a function of unconstrained values.

    Calling it with a dictionary of unconstrained tensors gives a scalar with a gradient, ``inf`` where the density is
    zero. ``potential_fn`` makes one.

    Attributes:
        initial_params: unconstrained values to begin a chain at, by name of site.
        initial_vector: the same as one vector.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        init: Init = init_to_uniform,
        max_plate_nesting: int | None = None,
        enumeration: str = "parallel",
    ) -> None:
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.init = init
        self._max_plate_nesting = max_plate_nesting
        self._enumeration = enumeration
        self._given = Unconstrained()
        self._collapsed = with_marked_sites_collapsed(model)
        self._program = self._given(self._collapsed)  # One object, by which checks are remembered.
        self._transforms: dict[str, Any] = {}
        """From unconstrained to constrained, of sites whose support is always the same."""
        self._mapped: bool | None = None
        """Whether the program can be run for several chains at once; ``None`` if that was not tried."""
        self._begin()

    def __call__(self, params: Params) -> Tensor:
        """The potential at unconstrained values, a scalar; a vector if all have several chains along dimension 0.

        Raises:
            ModelError: if a site is missing, or some values only have several chains.
            EnumerationError, PlanError, MemoryLimitError: as ``log_evidence``.
        """
        if params.keys() != self.initial_params.keys():
            self._refuse_names(params)
        if self._stacked(params):
            return self.flat(self.flatten(params))
        with _alone(), validation_enabled(False):
            if not self._steering:
                return -self._log_density(params)
            runs = sequential_runs(lambda: self._log_density(params), self._steering)
            return -torch.logsumexp(torch.stack([run.result for run in runs]), 0)

    def _stacked(self, params: Params) -> bool:
        """Whether there are values for several chains."""
        more = {value.dim() - self.initial_params[name].dim() for name, value in params.items()}
        if more <= {0}:
            return False
        if len(more) > 1 or min(more) < 0:
            found = ", ".join(f"{name}: {tuple(value.shape)}" for name, value in params.items())
            own = ", ".join(f"{name}: {tuple(value.shape)}" for name, value in self.initial_params.items())
            raise ModelError(
                f"Values have shapes {found}; a chain has {own}. Give all sites that, or all with chains along dim 0."
            )
        return True

    def _log_density(self, params: Params) -> Tensor:
        """The log-density of unconstrained values, in one run."""
        with self._given.at(params, self._transforms) as given:
            trace = self._enumerated.run(*self.args, **self.kwargs)
        for name, site in trace.nodes.items():
            if name in params:
                # As of an enumerated site, a mask means that nothing is learnt from the site, not that its values are
                # all alike: no chain would stay anywhere.
                site.mask = None
            elif _is_unknown(site):
                raise ModelError(
                    f"Site {name!r} has no value: it is in some runs of the program only. A potential has the same "
                    "parameters in all runs: draw it always, and use it where it is wanted."
                )
        return solve(graph_of_trace(trace)).value + given.log_det

    def _refuse_names(self, params: Params) -> None:
        known = ", ".join(map(repr, self.initial_params)) or "none"
        for name in params:
            if name not in self.initial_params:
                hint = nearest(name, self.initial_params)
                raise ModelError(f"There is no site {name!r} among those of the potential: {known}.{hint}")
        missing = [name for name in self.initial_params if name not in params]
        raise ModelError(f"Site {missing[0]!r} has no value: give those of {known}.")

    @property
    def transforms(self) -> dict[str, Any]:
        """From constrained to unconstrained values by name of site: ``torch.distributions`` transforms.

        Raises:
            ModelError: if the support of a site depends on other sites, so that no transform is always right.
        """
        for name in self.initial_params:
            if name not in self._transforms:
                raise ModelError(
                    f"The support of site {name!r} depends on other sites, so it has no transform of its own. Run the "
                    "sampler without transforms and use constrain on the samples."
                )
        return {name: self._transforms[name].inv for name in self.initial_params}

    def constrain(self, params: Params) -> dict[str, Tensor]:
        """Values of the sites from unconstrained ones; samples may be stacked along dimension 0 of all tensors."""
        if all(name in self._transforms for name in params):
            return {name: self._transforms[name](value) for name, value in params.items()}
        stacked = {value.dim() - self.initial_params[name].dim() for name, value in params.items()}
        if stacked == {0}:
            with kept_rng_state(), _alone(), TraceMessenger() as recorder:
                with self._given.at(params, self._transforms):
                    self._program(*self.args, **self.kwargs)
            return {name: recorder.trace.nodes[name].value for name in params}
        count = len(next(iter(params.values())))
        rows = [self.constrain({name: value[row] for name, value in params.items()}) for row in range(count)]
        return {name: torch.stack([row[name] for row in rows]) for name in params}

    # --------------------------------------------------------------------------------------------- as vectors

    def flatten(self, params: Params) -> Tensor:
        """Unconstrained values by name as one vector, in the order of ``initial_params``; samples stay first."""
        parts = []
        for name, like in self.initial_params.items():
            value = params[name]
            lead = value.shape[: value.dim() - like.dim()]
            parts.append(value.reshape(*lead, like.numel()))
        return torch.cat(parts, -1)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """What ``flatten`` was given."""
        found = {}
        start = 0
        for name, like in self.initial_params.items():
            part = vector[..., start : start + like.numel()]
            found[name] = part.reshape(vector.shape[:-1] + like.shape)
            start += like.numel()
        return found

    def flat(self, vector: Tensor) -> Tensor:
        """The potential at a vector of unconstrained values, a scalar; or at several, shape ``vector.shape[:-1]``.

        Of several vectors it can be differentiated once.
        """
        if vector.dim() == 1:
            return self(self.unflatten(vector))
        value: Tensor = ValueWithGradient.apply(vector, self)  # type: ignore[no-untyped-call]
        return value

    def value_and_grad(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The potential at a vector, and its gradient, both without history: what samplers outside torch ask for.

        Args:
            vector: shape ``initial_vector.shape``, or several chains before that, which are taken in one run of the
                program. Programs for which that cannot be done, as they look at values, are run once for each.

        Raises:
            ModelError: if several chains at once give something else than one by one.
        """
        if vector.dim() > 1:
            rows = vector.detach().reshape(-1, vector.shape[-1])
            values, gradients = self._of_chains(rows)
            return values.reshape(vector.shape[:-1]), gradients.reshape(vector.shape)
        with torch.enable_grad():
            leaf = vector.detach().requires_grad_()
            value = self.flat(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    def _of_chains(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        if self._mapped is False or not len(vectors):
            return one_by_one(self, vectors)
        try:
            values, gradients = values_and_gradients(self, vectors)
        except RuntimeError:  # torch's, of what cannot be mapped; an error of the program comes again
            if self._mapped:
                raise
            self._mapped = False
            return one_by_one(self, vectors)
        if self._mapped is None:
            check_mapped(self, vectors, values)
            self._mapped = True
        return values, gradients

    # ------------------------------------------------------------------------------------------ the beginning

    def _begin(self) -> None:
        """Finds the latent sites, and values at which the density is not zero."""
        found = "no finite value"
        for _ in range(_TRIES):
            starting = Starting(self.init)
            with (
                _alone(),
                TraceMessenger() as recorder,
                Rehearsal(),
                unused_names_allowed(),
                types_told(recorder, self.args, self.kwargs),
            ):
                starting(self._collapsed)(*self.args, **self.kwargs)
            run = recorder.trace
            refuse_subsamples(run)
            check_declared(run)
            if self._max_plate_nesting is None:
                self._max_plate_nesting = plate_nesting(run)
            self._enumerated = EnumeratedProgram(self._program, self._max_plate_nesting, self._enumeration)
            self._transforms = starting.fixed
            self._integrated_out = tuple(starting.integrated_out)
            self.initial_params = {name: value.detach() for name, value in starting.unconstrained.items()}
            self.initial_vector = self.flatten(self.initial_params) if self.initial_params else torch.zeros(0)
            self._check_supports(self._runs(), run)
            if not self.initial_params:
                return
            value, gradient = self.value_and_grad(self.initial_vector)
            if math.isfinite(value.item()) and bool(gradient.isfinite().all()):
                return
            found = f"{value.item()}, gradient {gradient.tolist()[:8]}"
        raise ModelError(
            f"No values to begin at were found in {_TRIES} tries: at the last the potential is {found}. Give values "
            "that are possible: init=init_to_value(values={...})."
        )

    def _runs(self) -> list[Trace]:
        """Runs with all discrete values at once, compared with plain ones."""
        with _alone(), torch.no_grad(), self._given.at(self.initial_params, self._transforms):
            runs = sequential_runs(
                lambda: graph_of_run(self._enumerated, self.args, self.kwargs, refuse=False)
            )
        if len(runs) > 1:
            refuse_powers([(run.result[0], run.sites) for run in runs], "a potential")
        self._steering = frozenset([name for run in runs for name in run.sites])
        summed_out = {name: None for run in runs for name in (*run.sites, *run.result[0].variables)}
        self._left_out = {"summed out": tuple(summed_out), "integrated out": self._integrated_out}
        return [run.result[1] for run in runs]

    def _check_supports(self, traces: list[Trace], plain: Trace) -> None:
        """The supports have to be those of the plain run."""
        for trace, name in itertools.product(traces, self.initial_params):
            if name not in trace.nodes:
                raise ModelError(
                    f"Site {name!r} is in some runs of the program only, as another site decides. A potential has the "
                    "same parameters in all runs: draw it always, and use it where it is wanted."
                )
            expected = plain.nodes[name].value
            value = biject_to(trace.nodes[name].fn.support)(self.initial_params[name])
            if value.shape != expected.shape or not torch.allclose(value, expected.to(value), equal_nan=True):
                raise ModelError(
                    f"The support of site {name!r} depends on sites that are summed out, so there is no one region "
                    "to sample it in. Give it a support that holds all its values."
                )

    def __repr__(self) -> str:
        name, size = getattr(self.model, "__name__", type(self.model).__name__), self.initial_vector.numel()
        shapes = [f"{site} {tuple(value.shape)}" for site, value in self.initial_params.items()]
        lines = [f"{type(self).__name__} of {name}, {size} unconstrained dimension{'s' * (size != 1)}"]
        for title, told in {"sites": shapes, **self._left_out}.items():
            if told:
                more = [f"{len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
                lines.append(f"  {title}: {', '.join([*told[:_MOST_TOLD], *more])}")
        return "\n".join(lines)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._runs()  # What was found of the program is remembered in one process only.


def _is_unknown(site: Message) -> bool:
    """Whether a latent site is neither summed out nor known from elsewhere."""
    if site.type != "sample" or site.is_observed or site.enum_dim is not None:
        return False
    return not (site_is_subsample(site) or is_sequential(site) or is_lookback(site))


def _alone() -> AbstractContextManager[Any]:
    """Handlers around a call do not see its runs: a potential is a function of its argument."""
    return BlockMessenger() if am_i_wrapped() else nullcontext()
