"""The record of one run of a program: its sites in order, and what depends on what."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from sumout.effects.message import Message
from sumout.effects.trace.edges import Edges, topological_order
from sumout.effects.trace.packing import Symbols, pack_site
from sumout.effects.trace.shapes import append_to_message, format_shapes
from sumout.effects.trace.sites import allow_all_sites, site_is_subsample
from sumout.errors import DuplicateSiteError, ModelError
from sumout.settings import settings

SiteFilter = Callable[[str, Message], bool]


class Nodes(OrderedDict[str, Message]):
    """Sites by name, in the order of the run. A plain dictionary that is stored here becomes a site."""

    def __setitem__(self, name: str, site: Mapping[str, Any]) -> None:
        super().__setitem__(name, site if isinstance(site, Message) else Message.of(site))

    # OrderedDict's own gives the dictionary back, and not the site that it became.
    def setdefault(self, name: str, default: Mapping[str, Any] | None = None) -> Message:
        """The site of this name; where there is none, ``default`` becomes it, or an empty site."""
        if name not in self:
            self[name] = {"name": name} if default is None else default
        return self[name]


class Trace:
    """The sites of one run of a program, in order, with the edges between them.

    ``nodes`` maps names to sites and may be edited; log-probabilities are computed from the sites when they
    are asked for, so they follow every edit.

    Args:
        graph_type: ``"flat"``, or ``"dense"`` for edges between all sites not known to be independent.

    Raises:
        ModelError: if the graph type is neither.

    >>> trace = Trace()
    >>> trace.add_node("z", name="z", type="sample", value=torch.tensor(0.5))
    >>> list(trace), trace.nodes["z"]["value"], trace.stochastic_nodes
    (['z'], tensor(0.5000), ['z'])
    """

    def __init__(self, graph_type: Literal["flat", "dense"] = "flat") -> None:
        if graph_type not in ("flat", "dense"):
            raise ModelError(f"graph_type is 'flat' or 'dense', not {graph_type!r}.")
        self.graph_type = graph_type
        self.nodes = Nodes()
        self._successors: Edges = {}

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"Trace({', '.join(self.nodes)})"

    # ------------------------------------------------------------------------------------- sites and edges

    def record(self, site: Message) -> None:
        """Stores a copy of a site under its name.

        Raises:
            DuplicateSiteError: if the name is taken; only a ``param`` may be met again.
        """
        name = site.name
        if name is None:
            raise ModelError(f"A {site.type} site without a name cannot be recorded. Give it one.")
        if name in self.nodes:
            self._check_repetition(name, site)
        OrderedDict.__setitem__(self.nodes, name, site.copy())

    def _check_repetition(self, name: str, site: Message) -> None:
        kind, present = site.type, self.nodes[name].type
        if present != kind:
            raise DuplicateSiteError(
                f"{name!r} is already in this trace as a {present} site, so no {kind} site can have "
                "that name. Rename one of them."
            )
        if site_is_subsample(site) and site_is_subsample(self.nodes[name]):
            raise DuplicateSiteError(
                f"Plate {name!r} is made twice in one run. Make it once and use it twice, "
                f"p = plate({name!r}, ...); with p: ...; or give the second another name."
            )
        if kind != "param":
            raise DuplicateSiteError(
                f"Multiple {kind} sites named {name!r} in one run: every site needs a name of its own. "
                f"In a loop, number them: f'{name}_{{i}}'."
            )

    def add_node(self, site_name: str, **kwargs: Any) -> None:
        """Adds a site, given by its fields.

        Raises:
            DuplicateSiteError: if the name is taken; only a ``param`` may be added again.
        """
        site = Message.of({"name": site_name, **kwargs})
        if site_name in self.nodes:
            self._check_repetition(site_name, site)
        self.nodes[site_name] = site

    def remove_node(self, site_name: str) -> None:
        """Removes a site with its edges."""
        del self.nodes[site_name]
        self._successors.pop(site_name, None)
        for targets in self._successors.values():
            targets.pop(site_name, None)

    def add_edge(self, site1: str, site2: str) -> None:
        """Notes that ``site2`` depends on ``site1``; a name that is not in the trace gets an empty site."""
        for name in (site1, site2):
            if name not in self.nodes:
                self.add_node(name)
        self._successors.setdefault(site1, {})[site2] = None

    @property
    def edges(self) -> Iterator[tuple[str, str]]:
        """All pairs (site, a site that depends on it)."""
        return ((name, target) for name in self.nodes for target in self._successors.get(name, ()))

    def successors(self, site_name: str) -> set[str]:
        """The sites that depend on this one."""
        self.nodes[site_name]
        return set(self._successors.get(site_name, ()))

    def predecessors(self, site_name: str) -> set[str]:
        """The sites that this one depends on."""
        self.nodes[site_name]
        return {name for name, targets in self._successors.items() if site_name in targets}

    def topological_sort(self, reverse: bool = False) -> list[str]:
        """The names with every edge leading forwards (backwards if ``reverse``), else in order of the run."""
        order = topological_order(list(self.nodes), self._successors)
        return order[::-1] if reverse else order

    def copy(self) -> Trace:
        """A trace with sites and edges of its own; the values in the sites are shared."""
        new = self.shallow_copy()
        for name, site in self.nodes.items():
            new.nodes[name] = site.copy()
        return new

    def shallow_copy(self) -> Trace:
        """A container and edges of its own around the same sites."""
        new = Trace(self.graph_type)
        store, nodes = OrderedDict.__setitem__, new.nodes
        for name, site in self.nodes.items():
            store(nodes, name, site)
        new._successors = {name: targets.copy() for name, targets in self._successors.items()}
        return new

    def detach_(self) -> None:
        """Cuts the gradient of every sampled and observed value, in place."""
        for site in self.nodes.values():
            if site.type == "sample" and isinstance(site.value, Tensor):
                site.value = site.value.detach()

    # ----------------------------------------------------------------------------------- log-probabilities

    def log_prob_sum(self, site_filter: SiteFilter = allow_all_sites) -> Tensor | float:
        """The log-probability of all sample sites that pass the filter; 0.0 where there is none.

        Raises:
            ValueError: what the distribution of a site says about its value, with the table of shapes.
        """
        total: Tensor | float = 0.0
        for site in self._sample_sites(site_filter):
            total = total + self._computed(site, "log_prob_sum")
        return total

    def compute_log_prob(self, site_filter: SiteFilter = allow_all_sites) -> None:
        """Puts ``unscaled_log_prob``, ``log_prob`` (batch shape), ``log_prob_sum`` (scalar) into the sites.

        Raises:
            ValueError: as ``log_prob_sum``.
        """
        for site in self._sample_sites(site_filter):
            self._computed(site, "log_prob_sum")

    def compute_score_parts(self) -> None:
        """Puts ``score_parts``, the pieces of a gradient estimator, and log-probabilities into the sites.

        Raises:
            ValueError: as ``log_prob_sum``.
        """
        for site in self._sample_sites(allow_all_sites):
            self._computed(site, "score_parts")
            self._computed(site, "log_prob_sum")

    def _sample_sites(self, site_filter: SiteFilter) -> Iterator[Message]:
        return (
            site for name, site in self.nodes.items() if site.type == "sample" and site_filter(name, site)
        )

    def _computed(self, site: Message, key: str) -> Any:
        known = key in site
        try:
            result = site[key]
        except ValueError as error:
            append_to_message(error, self.format_shapes(last_site=site.name))
            raise
        if not known and key == "log_prob_sum" and settings.validation:
            _warn_if_not_finite(result, site.name)
        return result

    def pack_tensors(self, plate_to_symbol: dict[str, str] | None = None) -> None:
        """Puts ``packed`` into the sites: the known log-probabilities without their broadcast dimensions.

        Each packed tensor has an attribute ``_pyro_dims``, one letter a dimension.

        Args:
            plate_to_symbol: the letters of plates; those of further plates are added to it.

        Raises:
            ModelError: if a tensor has a dimension that is neither a plate's nor an enumerated site's.
        """
        symbols = Symbols(plate_to_symbol)
        for site in self._sample_sites(allow_all_sites):
            site["packed"] = pack_site(site, symbols.of(site))

    # ---------------------------------------------------------------------------------------------- reading

    def format_shapes(self, title: str = "Trace Shapes:", last_site: str | None = None) -> str:
        """A table of the shapes of distributions, values and known log-probabilities up to ``last_site``."""
        return format_shapes(self.nodes, title, last_site)

    def iter_stochastic_nodes(self) -> Iterator[tuple[str, Message]]:
        """The sample sites that are not observed, with their names."""
        return ((name, site) for name, site in self.nodes.items() if _is_latent(site))

    @property
    def stochastic_nodes(self) -> list[str]:
        """The names of the sample sites that are not observed."""
        return [name for name, _ in self.iter_stochastic_nodes()]

    @property
    def observation_nodes(self) -> list[str]:
        """The names of the observed sites."""
        return [name for name, site in self.nodes.items() if site.type == "sample" and site.is_observed]

    @property
    def param_nodes(self) -> list[str]:
        """The names of the ``param`` sites."""
        return [name for name, site in self.nodes.items() if site.type == "param"]

    @property
    def reparameterized_nodes(self) -> list[str]:
        """The names of the sample sites whose values carry gradients to their distribution's parameters."""
        return [name for name, site in self.iter_stochastic_nodes() if _is_reparameterized(site)]

    @property
    def nonreparam_stochastic_nodes(self) -> list[str]:
        """The names of the unobserved sample sites whose values do not carry gradients."""
        return [name for name, site in self.iter_stochastic_nodes() if not _is_reparameterized(site)]


def sample_sites(trace: Trace) -> list[Message]:
    """The sample sites of a trace, without the indices that subsampling plates drew."""
    # As ``site_is_subsample``, written out: all sites of a run are asked several times.
    return [
        site
        for site in trace.nodes.values()
        if site.type == "sample" and type(site.plain_fn).__name__ != "_Subsample"
    ]


def prune_subsample_sites(trace: Trace) -> Trace:
    """A copy without the sites that hold the indices of subsampled plates."""
    pruned = trace.copy()
    for name in [name for name, site in trace.nodes.items() if site_is_subsample(site)]:
        pruned.remove_node(name)
    return pruned


def _is_latent(site: Message) -> bool:
    return site.type == "sample" and not site.is_observed


def _is_reparameterized(site: Message) -> bool:
    return bool(getattr(site.fn, "has_rsample", False))


def _warn_if_not_finite(log_prob_sum: Any, name: str | None) -> None:
    number = torch.as_tensor(log_prob_sum)
    # -inf is the log of an impossible value, which is a fair answer.
    if torch.isnan(number).any() or torch.isposinf(number).any():
        warnings.warn(f"The log-probability of site {name!r} sums to {number.item()}.", stacklevel=4)
