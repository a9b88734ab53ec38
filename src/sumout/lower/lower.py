"""From the record of a program's run to a lazy factor graph.

Every sample site becomes a factor: its log-probability, as a table over the enumerated sites and the plates
that it really depends on. The plates around the site are the factor's ordinal. Every enumerated site becomes
a variable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from sumout.effects import Message
from sumout.effects.steps import is_lookback, names_in_loop, unrolled_step
from sumout.effects.trace import Trace, sample_sites, tensor_plates
from sumout.errors import EnumerationError, PlateError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.lower.log_prob import Table, log_probs, plate_weight
from sumout.lower.scorers import layout_of
from sumout.lower.unroll import unroll


def lower(
    trace: Trace,
    given: Mapping[str, Variable] | None = None,
    *,
    multiplied: bool = True,
    sampled: bool = False,
    powers: dict[str, Factor] | None = None,
) -> FactorGraph:
    """The factor graph of a trace.

    Args:
        trace: recorded under ``enum``, or without it where nothing is to be eliminated.
        given: variables of another graph, that of a guide: tables may depend on them, and sites of these names are no
            variables to be eliminated. A site that is masked is then masked, as one that is observed.
        multiplied: whether factors are multiplied out over plates that none of their variables lives in.
        sampled: whether samples may stand for the values of a variable.
        powers: filled with scales that differ from element to element, of factors with variables: a graph has no
            place for them.

    Returns:
        A graph with one factor for each sample site, named after it, and one variable for each enumerated
        site. A factor is multiplied out over plates that none of its variables lives in. The weight of a
        subsampled plate is kept with the plate, any other ``scale`` with the factor.

    Raises:
        EnumerationError: if a site depends on an enumerated site that it must not see, for instance one
            further back than the ``history`` of its ``markov`` context; or if samples stand for its values.
        PlateError: if a tensor dimension at a site belongs to no plate, or a site depends on one of a plate that
            it is not in.

    >>> import torch
    >>> from sumout.effects.handlers import enum, trace
    >>> from sumout.effects.primitives import plate, sample
    >>> import sumout.distributions as dist
    >>> def model():
    ...     with plate("data", 3):
    ...         z = sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    ...         sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3))
    >>> graph = lower(trace(enum(model, first_available_dim=-2)).get_trace())
    >>> [(factor.name, factor.inputs, sorted(factor.plates)) for factor in graph.factors]
    [('z', ('z',), ['data']), ('x', ('z', 'data'), ['data'])]
    """
    sites = sample_sites(trace)
    given = given or {}
    if given:
        sites = [_as_given(site) if _is_given(site, given) else site for site in sites]
    scored = [site for site in sites if not is_lookback(site)]
    variables: dict[str, Variable] = {}
    plates: dict[str, Plate] = {}
    for site in sites:
        for frame in site.cond_indep_stack:
            if frame.dim is not None:
                if frame.size < 0:  # A plate that was made without a size has that of its sites.
                    size = max(_size_along(site, frame.dim), plates.get(frame.name, Plate(1)).size)
                    plates[frame.name] = Plate(size, frame.scale)
                elif frame.name not in plates:
                    plates[frame.name] = Plate(frame.size, frame.scale)
        if site.enum_dim is not None:
            assert site.name is not None
            if site.infer.get("num_samples") is not None and not sampled:
                raise EnumerationError(
                    f"Site {site.name!r} is replaced by num_samples={site.infer['num_samples']} samples, which exact "
                    "inference cannot take for all of its values. Leave num_samples out to enumerate exactly."
                )
            size = site.value.shape[site.enum_dim - len(site.plain_fn.event_shape)]
            variables[site.name] = Variable(size, _ordinal(site))
    known = {**given, **_steps_given(sites, given), **variables} if given else variables
    order = {name: place for place, name in enumerate(known)}
    homes = {name: variable.plates for name, variable in known.items()}
    tables = _of_one_dtype(log_probs(scored, homes if multiplied else None, variables))
    factors = [
        _factor(site, table, order, variables, powers) for site, table in zip(scored, tables, strict=True)
    ]
    for site, factor in zip(scored, factors, strict=True):
        for name in factor.inputs:
            if name in homes and not homes[name] <= factor.plates:
                raise _outside(site, name, homes[name] - factor.plates)
    graph = FactorGraph(tuple(factors), variables, plates)
    return unroll(graph, sites, given) if any(map(unrolled_step, sites)) else graph


def _is_given(site: Message, given: Mapping[str, Variable]) -> bool:
    return site.enum_dim is not None and names_in_loop(site)[0] in given


def _as_given(site: Message) -> Message:
    """The site as one that has its value, which happens to run along a dimension."""
    site = site.copy()
    site.enum_dim = None
    return site


def _steps_given(sites: list[Message], given: Mapping[str, Variable]) -> dict[str, Variable]:
    """The given variables that a chain takes many steps of at once, under the names of its sites."""
    found = {}
    for site in sites:
        if unrolled_step(site) is not None and names_in_loop(site)[0] in given:
            found[site.name or ""] = Variable(given[names_in_loop(site)[0]].size, _ordinal(site))
    return found


def lower_site(site: Message) -> Factor:
    """The factor of a single site, over all that its log-probability really depends on; ``.term`` is its funsor.

    Inputs are in the order of their tensor dimensions, leftmost first.

    >>> import torch
    >>> from sumout.effects.handlers import trace
    >>> from sumout.effects.primitives import plate, sample
    >>> import sumout.distributions as dist
    >>> def model():
    ...     with plate("data", 3):
    ...         sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(3))
    >>> lower_site(trace(model).get_trace().nodes["x"]).inputs
    ('data',)
    """
    return _factor(site, log_probs([site])[0], {}, ())


def lower_tensor(site: Message, tensor: Tensor) -> Factor:
    """A tensor of the batch shape of a site, its dimensions named, without those of size one.

    >>> import torch
    >>> from sumout.effects.handlers import trace
    >>> from sumout.effects.primitives import plate, sample
    >>> import sumout.distributions as dist
    >>> def model():
    ...     with plate("rows", 2, dim=-2), plate("data", 3):
    ...         sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(3))
    >>> factor = lower_tensor(trace(model).get_trace().nodes["x"], torch.ones(1, 3))
    >>> factor.inputs, sorted(factor.plates)
    (('data',), ['data', 'rows'])
    """
    layout = layout_of((tensor.shape,), 0)
    data = tensor.reshape(layout.shapes[0])
    return Factor(site.name or "", tuple(_names(site, data, layout.dims)), data, _ordinal(site))


def _of_one_dtype(tables: list[Table]) -> list[Table]:
    """All tables in the widest of their types: a program may mix float32 literals with float64 data."""
    dtypes = {table.log_prob.dtype for table in tables}
    if len(dtypes) < 2:
        return tables
    widest = reduce(torch.promote_types, dtypes)
    return [table._replace(log_prob=table.log_prob.to(widest)) for table in tables]


def _size_along(site: Message, dim: int) -> int:
    shapes = site.batch_shape, site.value.shape[: site.value.ndim - site.plain_fn.event_dim]
    return max((shape[dim] for shape in shapes if len(shape) >= -dim), default=1)


def _ordinal(site: Message) -> frozenset[str]:
    return frozenset([frame.name for frame in tensor_plates(site).values()])


def _factor(
    site: Message,
    table: Table,
    order: Mapping[str, int],
    summed: Collection[str],
    powers: dict[str, Factor] | None = None,
) -> Factor:
    """Names the dimensions that a site's log-probability really has."""
    log_prob, dims, product_over = table
    ordinal = [
        frame.name
        for frame in site.cond_indep_stack
        if frame.dim is not None and frame.name not in product_over
    ]
    inputs = _names(site, log_prob, dims)
    # Variables in the order in which the program draws them, then plates: equal steps of a chain look equal.
    places = [order.get(name, len(order)) for name in inputs]
    if places != sorted(places):
        wanted = sorted(range(len(inputs)), key=places.__getitem__)
        log_prob = log_prob.permute(wanted)
        inputs = [inputs[place] for place in wanted]
    return Factor(
        site.name or "", tuple(inputs), log_prob, frozenset(ordinal), _power(site, inputs, summed, powers)
    )


def _names(site: Message, table: Tensor, dims: tuple[int, ...]) -> list[str]:
    """The plates and enumerated sites that a table's dimensions belong to."""
    owners = site.enum_dims or {}
    plates = {frame.dim: frame.name for frame in site.cond_indep_stack if frame.dim is not None}
    names = []
    for place, dim in enumerate(dims):
        name = plates.get(dim) or owners.get(dim)
        if name is None:
            raise _unowned(site, dim, table.shape[place], {**owners, **plates})
        names.append(name)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise EnumerationError(
            f"Site {site.name!r} depends on {twice!r} along two dims, as a guide and a model that loop over a chain in "
            "different ways have it. Loop in the same way in both."
        )
    return names


def _power(
    site: Message, inputs: list[str], summed: Collection[str], powers: dict[str, Factor] | None
) -> float:
    """A site's scale, but for the weight of its plates' elements, which stays with the plates."""
    scale = site.scale
    weight = plate_weight(site)
    if isinstance(scale, Tensor):
        if scale.numel() > 1:
            if any(name in summed for name in inputs):
                if powers is None:
                    raise PlateError(
                        f"Site {site.name!r} has a scale of shape {tuple(scale.shape)}; variables can be summed out "
                        "only under a scale that is one number. Use a plate with a subsample size for weights of its "
                        "elements."
                    )
                powers.update(dict.fromkeys(names_in_loop(site), _weights(site, scale / weight)))
            return 1.0
        scale = float(scale)
    # Rounding must not make a power of the quotient: 14 digits of it are kept, however small it is.
    return 1.0 if scale == weight else float(f"{scale / weight:.14g}")


def _weights(site: Message, scale: Tensor) -> Factor:
    """A scale that differs along plates; the same for all steps of a vectorized chain."""
    found = lower_tensor(site, scale)
    step = unrolled_step(site)
    if step is not None and step.chain in found.inputs:
        raise PlateError(
            f"Site {site.name!r} has a scale for each step of chain {step.chain!r}: what is summed out is all steps "
            "together, and takes one scale. Give a scale along other plates, or none."
        )
    return found if step is None else replace(found, plates=found.plates - {step.chain})


def _outside(site: Message, name: str, plates: Collection[str]) -> PlateError:
    listed = ", ".join(map(repr, sorted(plates)))
    return PlateError(
        f"Site {site.name!r} depends on site {name!r}, which lives in plate {listed}, and is outside of it: each "
        "element has a value of its own, and none is the one that is meant. Put both into one plate (make it once, "
        "p = plate(...), and enter it twice), or loop over the plate's elements."
    )


def _unowned(site: Message, dim: int, size: int, names: Mapping[int, str]) -> Exception:
    known = ", ".join(f"{each}: {name!r}" for each, name in sorted(names.items(), reverse=True)) or "none"
    if "_markov_scope" in site.infer and dim < min(tensor_plates(site), default=0):
        return EnumerationError(
            f"Site {site.name!r} varies along dim {dim} (size {size}), which no enumerated site that it may see "
            f"owns (owned: {known}). Inside markov a site sees only `history` steps back: raise `history` if the "
            "dependence is meant. Otherwise declare the dim with a plate, or with .to_event()."
        )
    return PlateError(
        f"Site {site.name!r} varies along dim {dim} (size {size}), which belongs to no plate (owned: {known}). "
        "Declare it with a plate, or make it part of the event with .to_event(). Where it comes of enumerated values "
        "that are summed or moved along a plate, as z.sum(-1) is, mark their site infer={'enumerate': 'auto'}."
    )
