"""Runs of a program at many samples of its latent sites."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Trace
from sumout.effects.handlers import BlockMessenger, trace
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.messenger import level_outside
from sumout.effects.random_state import kept_rng_state
from sumout.effects.steps import is_lookback
from sumout.effects.trace import site_is_factor, site_is_subsample
from sumout.errors import ModelError, PlateError, SumoutError, nearest
from sumout.infer.collapsing.marked import with_marked_sites_collapsed
from sumout.infer.collapsing.settled import with_collapsed_drawn
from sumout.infer.collapsing.uncollapsed import Uncollapsed
from sumout.infer.programs.program import Rehearsal, check_declared, plate_nesting
from sumout.infer.sampling.plates import Given, SamplePlate, decisions_told, is_decision, samples_first
from sumout.infer.sampling.posterior import DiscretePosterior, check_program, replayed

Samples = Mapping[str, Tensor]
RETURN = "_RETURN"


class Predictive:
    """Runs a model once for each of many samples of its latent sites, and collects what its other sites draw.

    Without samples and guide the latent sites are drawn from the prior; those that ``collapse`` integrates out from
    their exact joint posterior, given the other sites and the observations.

    Args:
        model: a program.
        posterior_samples: values by name of site, the samples along dimension 0, e.g. ``mcmc.get_samples()``. Values
            of deterministic sites are passed over: they are computed anew.
        guide: a program that draws the model's latent sites, instead of ``posterior_samples``.
        num_samples: how many; that of ``posterior_samples`` where they are given.
        return_sites: the names of the sites that are wanted, ``"_RETURN"`` for what the model returns. By default all
            sample sites, deterministic ones included, that are not among ``posterior_samples``.
        parallel: whether all samples are taken in one run, along a dimension left of the plates. The model then has
            to be written for batches: elementwise operations, ``Vindex``, ``...``. If not, it runs once for each.
        infer_discrete: whether discrete latent sites that are not given are drawn from their exact joint posterior,
            given the sample and the observations, in the place of the prior; see ``sumout.infer.infer_discrete``.
        max_plate_nesting, enumeration: as in ``log_evidence``; the latter is for ``infer_discrete``.

    Calling it with the program's arguments gives a dictionary of tensors: ``num_samples`` values of each site, of
    shape ``(num_samples, *shape)``, where ``shape`` is that of the site's value in a plain run.

    Raises:
        ModelError: if ``model`` is no function, no number of samples is known, numbers differ, or, when called, a
            wanted site is not there or values of different runs have different shapes.
        ImpossibleEvidenceError, EnumerationError, PlanError, MemoryLimitError: with ``infer_discrete``, as there.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x=None):
    ...     rate = sumout.sample("rate", dist.Gamma(2.0, 1.0))
    ...     with sumout.plate("data", 3):
    ...         sumout.sample("x", dist.Poisson(rate), obs=x)
    >>> drawn = Predictive(model, {"rate": torch.full((100,), 5.0)}, parallel=True)()
    >>> list(drawn), drawn["x"].shape, bool((drawn["x"].mean() - 5).abs() < 0.6)
    (['x'], torch.Size([100, 3]), True)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        posterior_samples: Samples | None = None,
        guide: Callable[..., Any] | None = None,
        num_samples: int | None = None,
        return_sites: Collection[str] | None = None,
        parallel: bool = False,
        *,
        infer_discrete: bool = False,
        max_plate_nesting: int | None = None,
        enumeration: str = "parallel",
    ) -> None:
        check_program(model, "Predictive")
        if isinstance(return_sites, str):
            raise ModelError(f"return_sites is {return_sites!r}; it is a list of names: [{return_sites!r}].")
        self.model = model
        self._collapsed = with_marked_sites_collapsed(model)
        self.posterior_samples = {
            name: torch.as_tensor(value) for name, value in (posterior_samples or {}).items()
        }
        if guide is not None and self.posterior_samples:
            raise ModelError(
                "Predictive takes posterior_samples or a guide that draws them, and was given both."
            )
        self.guide = guide
        self.num_samples = _count(self.posterior_samples, num_samples)
        self.return_sites = None if return_sites is None or not len(return_sites) else tuple(return_sites)
        self.parallel = parallel
        self.infer_discrete = infer_discrete
        self.max_plate_nesting = max_plate_nesting
        self.enumeration = enumeration
        self._meant: set[str] = set()
        """Sites of the runs that another program need not have."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The samples, for the program's arguments."""
        with torch.no_grad():
            given = self._given(args, kwargs)
            if not self.parallel:
                return self._one_by_one(given, args, kwargs)
            with decisions_told():
                runs, single = self._at_once(given, args, kwargs)
            found = {}
            for name in self._wanted(runs, given):
                value = runs.nodes[name].value
                found[name] = samples_first(name, value, self.num_samples, _shape(single, name, value))
            return found

    def get_vectorized_trace(self, *args: Any, **kwargs: Any) -> Trace:
        """The trace of the run of all samples at once; its sites lie in one plate more, left of all others."""
        with torch.no_grad(), decisions_told():
            return self._at_once(self._given(args, kwargs), args, kwargs)[0]

    def _given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Samples:
        """The values that the model is given."""
        if self.guide is None:
            return self.posterior_samples
        drawn = Predictive(
            self.guide,
            num_samples=self.num_samples,
            parallel=self.parallel,
            max_plate_nesting=self.max_plate_nesting,
        )
        found = drawn(*args, **kwargs)
        self._meant = drawn._meant
        return found

    def _one_by_one(
        self, given: Samples, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        values: dict[str, list[Tensor]] = {}
        giving = Given(given)
        program = giving(self._collapsed)
        latent: dict[str, None] = {}
        posterior = DiscretePosterior(program, self.max_plate_nesting, enumeration=self.enumeration)
        for number in range(self.num_samples):
            giving.values = {name: value[number] for name, value in given.items()}
            each = replayed(program, posterior.trace(*args, **kwargs)) if self.infer_discrete else program
            run = with_collapsed_drawn(each, trace(each).get_trace(*args, **kwargs), args, kwargs)
            latent |= dict.fromkeys(_drawn(run))
            for name in self._wanted(run, given):
                values.setdefault(name, []).append(torch.as_tensor(run.nodes[name].value))
        self._refuse_unused(giving.unused, latent)
        for name, found in values.items():
            if len(found) < self.num_samples or any(value.shape != found[0].shape for value in found):
                shapes = sorted({tuple(value.shape) for value in found})
                raise ModelError(
                    f"Site {name!r} is in {len(found)} of {self.num_samples} runs, with values of shape "
                    f"{', '.join(map(str, shapes))}: they do not make one tensor. Leave it out of return_sites."
                )
        return {name: torch.stack(found) for name, found in values.items()}

    def _at_once(
        self, given: Samples, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Trace, Trace]:
        """The trace of all samples, and that of one."""
        first = {name: value[0] for name, value in given.items()}
        with kept_rng_state(), BlockMessenger(), Rehearsal(), Uncollapsed(), unused_names_allowed():
            giving = Given(first)
            single = trace(giving(self.model)).get_trace(*args, **kwargs)
            self._refuse_unused(giving.unused, _drawn(single))
            check_declared(single)
            nesting = plate_nesting(single) if self.max_plate_nesting is None else self.max_plate_nesting
            self._check_few(given, nesting, single, args, kwargs)
        program = SamplePlate(self.num_samples, dim=-1 - nesting)(Given(given, nesting)(self._collapsed))
        if self.infer_discrete:
            posterior = DiscretePosterior(program, nesting + 1, enumeration=self.enumeration)
            program = replayed(program, posterior.trace(*args, **kwargs))
        run = trace(program).get_trace(*args, **kwargs)
        return with_collapsed_drawn(program, run, args, kwargs), single

    def _check_few(
        self, given: Samples, nesting: int, single: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Runs the program for few samples: where it mixes them up, many would take much memory before that is seen."""
        sizes = {frame.size for site in single.nodes.values() for frame in site.cond_indep_stack}
        count = next(size for size in range(2, 3 + len(sizes)) if size not in sizes)
        few = {name: value[torch.arange(count) % len(value)] for name, value in given.items()}
        program = SamplePlate(count, dim=-1 - nesting)(Given(few, nesting)(self.model))
        try:
            run = trace(program).get_trace(*args, **kwargs)
            check_declared(run)
        except (RuntimeError, ValueError, IndexError) as error:
            plain = not isinstance(error, SumoutError)
            if is_decision(error) or not (plain or isinstance(error, PlateError)):
                raise
            raise ModelError(
                f"{str(error).splitlines()[0]} The program runs for {count} samples at once here, which lie along dim "
                f"{-1 - nesting}, left of the plates: keep them there (Vindex(table)[..., z] and .to_event() for "
                "tables of parameters help), or use parallel=False."
            ) from error
        for name in self._wanted(run, given):
            value = run.nodes[name].value
            samples_first(name, value, count, _shape(single, name, value))

    def _refuse_unused(self, unused: Collection[str], latent: Collection[str]) -> None:
        """Raises ``ModelError`` for samples that no site takes, with the latent sites that could have been meant.

        Of a guide's it warns, as objectives do.
        """
        if self.guide is not None:
            extra = [f"{name!r}.{nearest(name, latent)}" for name in sorted(set(unused) - self._meant)]
            if extra:
                warnings.warn(
                    f"The guide draws sites that the model never comes to: {' '.join(extra)} Mark them "
                    "infer={'is_auxiliary': True} if they are meant.",
                    stacklevel=level_outside(),
                )
            return
        if not unused:
            return
        told = [f"{name!r}.{nearest(name, latent)}" for name in self.posterior_samples if name in unused]
        drawn = f" Drawn by the model, not given: {', '.join(map(repr, latent))}." if latent else ""
        raise ModelError(
            f"posterior_samples has values for sites that the model never comes to: {' '.join(told)}{drawn} Correct "
            "the names (those of a reparameterized model are its own: give Predictive that model) or leave them out."
        )

    def _wanted(self, run: Trace, given: Samples) -> list[str]:
        self._meant |= {
            name
            for name, site in run.nodes.items()
            if site.infer.get("is_auxiliary") or site.infer.get("_deterministic")
        }
        if self.return_sites is not None:
            for name in self.return_sites:
                if name not in run.nodes:
                    raise ModelError(f"The model has no site {name!r}.{nearest(name, list(run.nodes))}")
                if not isinstance(run.nodes[name].value, Tensor):
                    found = type(run.nodes[name].value).__name__
                    raise ModelError(
                        f"{name!r} is no tensor but of type {found}. Leave it out of return_sites."
                    )
            return list(self.return_sites)
        left_out = {} if self.guide is not None else given
        return [
            name
            for name, site in run.nodes.items()
            if site.type == "sample"
            and (name not in left_out or site.infer.get("_deterministic"))
            and not site_is_subsample(site)
            and not site_is_factor(site)
            and not is_lookback(site)
        ]


def _drawn(run: Trace) -> list[str]:
    """The latent sites of a run that had no value."""
    return [
        name
        for name, site in run.nodes.items()
        if site.type == "sample" and not site.is_observed and not site_is_subsample(site)
    ]


def _count(samples: Samples, num_samples: int | None) -> int:
    counts = {name: len(value) if value.dim() else None for name, value in samples.items()}
    if num_samples is not None:
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise ModelError(f"num_samples is {num_samples!r}: it is a whole number of at least 1.")
        counts["num_samples"] = num_samples
    if not counts:
        raise ModelError("Predictive needs posterior_samples or a number of samples: num_samples=1000.")
    found = set(counts.values())
    if len(found) > 1 or None in found:
        told = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise ModelError(
            f"posterior_samples have the samples along dimension 0, as many for each site; there are {told}."
        )
    (count,) = found
    assert count is not None
    return count


def _shape(single: Trace, name: str, value: Any) -> torch.Size:
    if name not in single.nodes:
        raise ModelError(f"Site {name!r} is in the run of all samples and not in one of a single sample.")
    return torch.as_tensor(single.nodes[name].value).shape
