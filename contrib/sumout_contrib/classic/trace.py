"""The record of a run as a graph of networkx."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sumout.errors import MissingExtraError, ModelError
from sumout.poutine.runtime import Message
from sumout.poutine.trace_struct import Trace as PlainTrace
from sumout.poutine.trace_struct import allow_all_sites
from sumout_contrib.classic.site import Site

try:
    import networkx
except ImportError as error:
    raise MissingExtraError("networkx", "classic", "sumout_contrib.classic") from error


class Trace(networkx.DiGraph, PlainTrace):  # type: ignore[misc]  # networkx is untyped
    """A ``networkx.DiGraph`` of the sites of a run, in their order; the attributes of a node are its site.

    What networkx can do works on it: ``topological_sort``, ``ancestors``, ``moral_graph``, subgraphs, pictures. Where
    other graphs copy the data of nodes, copies of a trace share the values, as a value with a gradient can have no
    copy. It is a trace of sumout too, which every handler takes. An edge says that its end may depend on its
    beginning.

    Args:
        incoming_graph_data: what networkx makes graphs of, or a trace of sumout.
        graph_type: ``"flat"``, or ``"dense"`` where edges were recorded; by default that of the incoming trace.
        attr: attributes of the graph.

    Raises:
        ModelError: if the graph type is neither.

    >>> trace = Trace(graph_type="dense")
    >>> trace.add_node("a", type="sample", value=torch.tensor(0.5))
    >>> trace.add_node("b", type="sample", value=torch.tensor(1.0), is_observed=True)
    >>> trace.add_edge("a", "b")
    >>> trace.nodes["a"]["value"], list(networkx.ancestors(trace, "b")), trace.observation_nodes
    (tensor(0.5000), ['a'], ['b'])
    """

    node_dict_factory = OrderedDict
    node_attr_dict_factory = Site

    def __init__(self, incoming_graph_data: Any = None, **attr: Any) -> None:
        data = incoming_graph_data
        if isinstance(data, PlainTrace):
            super().__init__()
            self.graph.update({"graph_type": data.graph_type} | getattr(data, "graph", {}) | attr)
            for name, site in data.nodes.items():
                self._put(name, Site.taking_over(site.copy()))
            self.add_edges_from(_edges(data))
        else:
            super().__init__(data, **attr)
        self.graph_type = self.graph_type

    @property
    def graph_type(self) -> Any:
        """Whether edges were recorded: ``"dense"`` or ``"flat"``; kept in ``graph``, as subgraphs share it."""
        return self.graph.get("graph_type", "flat")

    @graph_type.setter
    def graph_type(self, graph_type: Any) -> None:
        if graph_type not in ("flat", "dense"):
            raise ModelError(f"graph_type is 'flat' or 'dense', not {graph_type!r}.")
        self.graph["graph_type"] = graph_type

    # ----------------------------------------------------------------------------------------------- sites

    def add_node(self, site_name: str, *args: Any, **kwargs: Any) -> None:
        """Adds a site, given by its fields.

        Raises:
            DuplicateSiteError: if the name is taken; only a ``param`` may be added again.
        """
        site = Site.of({"name": site_name, **kwargs})
        if site_name in self:
            self._check_repetition(site_name, site)
        self._put(site_name, site, *args)

    def record(self, site: Message) -> None:
        """Adds a copy of a site under its name; raises as ``add_node`` does."""
        name = site.name
        if name is None:
            raise ModelError(f"A {site.type} site without a name cannot be recorded. Give it one.")
        if name in self:
            self._check_repetition(name, site)
        self._put(name, Site.taking_over(site.copy()))

    def _put(self, name: str, site: Message, *args: Any) -> None:
        super().add_node(name, *args)
        self._node[name] = site

    def copy(self, as_view: bool = False) -> Trace:
        """A trace with nodes and edges of its own, of the same graph type; the values in the sites are shared.

        Args:
            as_view: as in networkx, whether to get a view that cannot be edited.
        """
        if as_view:
            view: Trace = networkx.DiGraph.copy(self, as_view=True)
            return view
        return type(self)(self)

    def shallow_copy(self) -> Trace:
        """A graph of its own around the same sites."""
        new = type(self)()
        new.graph.update(self.graph)
        for name, site in self.nodes.items():
            new._put(name, site)
        new.add_edges_from(_edges(self))
        return new

    # networkx would copy the sites deeply here, which torch refuses for values with a gradient.

    def reverse(self, copy: bool = True) -> Trace:
        """The trace with every edge turned round; ``copy=False`` gives a view, as in networkx."""
        view: Trace = networkx.DiGraph.reverse(self, copy=False)
        return view.copy() if copy else view

    def to_directed(self, as_view: bool = False) -> Trace:
        """A copy, or a view, as in networkx."""
        return self.copy(as_view)

    def to_undirected(self, reciprocal: bool = False, as_view: bool = False) -> Any:
        """The ``networkx.Graph`` of the same sites and edges.

        Args:
            reciprocal: whether only edges that lead both ways are kept.
            as_view: whether to get a view that cannot be edited.
        """
        kept = self
        if reciprocal:
            kept = networkx.subgraph_view(self, filter_edge=lambda one, other: self.has_edge(other, one))
        view = networkx.DiGraph.to_undirected(kept, as_view=True)
        return view if as_view else view.copy()

    def topological_sort(self, reverse: bool = False) -> list[str]:
        """The names with every edge leading forwards (backwards if ``reverse``), else in order of the run.

        Raises:
            ModelError: if the edges form a cycle.
        """
        position = {name: place for place, name in enumerate(self.nodes)}
        try:
            order = list(networkx.lexicographical_topological_sort(self, key=position.__getitem__))
        except networkx.NetworkXUnfeasible:
            cycle = [earlier for earlier, _ in networkx.find_cycle(self)]
            raise ModelError(f"The edges among {cycle} form a cycle, so there is no order.") from None
        return order[::-1] if reverse else order

    # ----------------------------------------------------------------------------------- log-probabilities

    def log_pdf(self, site_filter: Any = allow_all_sites) -> Tensor:
        """The log-probability of all sample sites that pass the filter, a scalar.

        The local ones are then under ``trace.nodes[name]["log_pdf"]``. They are computed once, and again after
        an edit of the site.

        Args:
            site_filter: told a name and a site.

        Raises:
            ValueError: what the distribution of a site says about its value, with the table of shapes.
        """
        return torch.as_tensor(self.log_prob_sum(site_filter))

    def batch_log_pdf(self, site_filter: Any = allow_all_sites) -> Tensor:
        """The log-probabilities of all sample sites that pass the filter, added as tensors that broadcast.

        The local ones are then under ``"batch_log_pdf"`` and ``"log_pdf"`` in the sites.

        Raises:
            ValueError: as ``log_pdf``.
            ModelError: if the batch shapes do not broadcast.
        """
        self.compute_batch_log_pdf(site_filter)
        total = torch.zeros(())
        for name, site in self.nodes.items():
            if site.type == "sample" and site_filter(name, site):
                local = site["batch_log_pdf"]
                try:
                    total = total + local
                except RuntimeError:
                    raise ModelError(
                        f"Site {name!r} has log-probabilities of shape {tuple(local.shape)}, and those before it "
                        f"{tuple(total.shape)}: they do not broadcast. Add up fewer sites (site_filter), or take "
                        "log_pdf()."
                    ) from None
        return total

    def compute_batch_log_pdf(self, site_filter: Any = allow_all_sites) -> None:
        """Puts ``batch_log_pdf`` and ``log_pdf`` into the sample sites that pass the filter.

        Raises:
            ValueError: as ``log_pdf``.
        """
        self.compute_log_prob(site_filter)


def _edges(trace: Any) -> Iterator[tuple[Any, ...]]:
    """The edges of a trace of either kind; with their attributes where there are any."""
    if isinstance(trace, networkx.Graph):
        return ((*pair, attributes.copy()) for *pair, attributes in trace.edges(data=True))
    return iter(trace.edges)
