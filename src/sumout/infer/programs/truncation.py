"""How much probability is lost where counts without bound are cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sumout.effects.trace import sample_sites
from sumout.infer.programs.graphs import graphs_of
from sumout.infer.programs.program import EnumeratedProgram


def lost_mass(
    program: Callable[..., Any], *, max_plate_nesting: int | None = None, enumeration: str = "parallel"
) -> Callable[..., dict[str, float]]:
    """The prior probability beyond the largest value of each site with ``infer={"truncate": ...}``.

    What exact queries answer is exact for the values that are left. The evidence is too small by at most the sum of
    the lost masses (each times the number of elements of its plates) times the largest likelihood that the values left
    out could have.

    Args:
        program: a model.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments that returns the mass of each such site: the largest over the elements of
        its plates and the values of other sites, and at least what rounding leaves unknown (1e-12 in float64).

    Raises:
        EnumerationError: as ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(seen):
    ...     n = sumout.sample("n", dist.Poisson(torch.tensor(3.0).double()), infer={"truncate": 1e-6})
    ...     sumout.sample("seen", dist.Binomial(n, 0.5), obs=seen)
    >>> lost_mass(model)(torch.tensor(2.0))["n"] <= 1e-6
    True
    >>> found = sumout.infer.log_evidence(model)(torch.tensor(2.0).double())
    >>> bool((found - dist.Poisson(1.5).log_prob(torch.tensor(2.0))).abs() < 1e-5)  # thinned, it is Poisson again
    True
    """
    enumerated = EnumeratedProgram(program, max_plate_nesting, enumeration)

    def query(*args: Any, **kwargs: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for run in graphs_of(enumerated, args, kwargs):
            for site in sample_sites(run.trace) if run.trace is not None else ():
                if "lost_mass" in site.infer and site.name is not None:
                    found[site.name] = max(found.get(site.name, 0.0), site.infer["lost_mass"])
        return found

    return query
