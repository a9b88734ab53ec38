"""Running a program again with the values of an earlier run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sumout.errors import ModelError, nearest
from sumout.poutine.replay_messenger import ReplayMessenger
from sumout.poutine.trace_struct import Trace
from sumout_contrib.classic.poutine import Poutine, Program


class ReplayPoutine(Poutine, ReplayMessenger):
    """Replays a trace: its values are those of the sites.

    Args:
        fn: a program.
        guide_trace: the earlier run.
        sites: which sites are replayed; by default all that the trace has. Either their names, or a dict from the
            names in this program to those in the trace.

    Raises:
        ModelError: if ``sites`` is neither, or names a site that the trace has not, or an enumerated one under
            another name; at a site that the trace has as observed or not as a sample.

    >>> from sumout import sample
    >>> from sumout.distributions import Normal
    >>> from sumout_contrib.classic.trace_poutine import TracePoutine
    >>> def guide():
    ...     return sample("z_guide", Normal(0.0, 1.0))
    >>> def model():
    ...     return sample("z", Normal(0.0, 1.0))
    >>> guide_trace = TracePoutine(guide).get_trace()
    >>> replayed = ReplayPoutine(model, guide_trace, sites={"z": "z_guide"})
    >>> bool(replayed() == guide_trace.nodes["z_guide"]["value"])
    True
    """

    def __init__(
        self,
        fn: Program | None,
        guide_trace: Trace,
        sites: Mapping[str, str] | Iterable[str] | None = None,
    ) -> None:
        Poutine.__init__(self, fn)
        self.guide_trace = guide_trace
        self.sites = _as_mapping(guide_trace, sites)
        ReplayMessenger.__init__(
            self, trace=guide_trace if sites is None else _selected(guide_trace, self.sites)
        )


def _as_mapping(trace: Trace, sites: Mapping[str, str] | Iterable[str] | None) -> dict[str, str]:
    """Names in the program with the names in the trace that they stand for."""
    if isinstance(sites, str):
        raise ModelError(f"sites is {sites!r}; it holds several names: sites=[{sites!r}].")
    if isinstance(sites, Mapping):
        return dict(sites)
    try:
        return {name: name for name in (trace if sites is None else sites)}
    except TypeError:
        raise ModelError(
            f"sites is {sites!r}; it lists names of sites, or maps names in the program to names in the trace."
        ) from None


def _selected(trace: Trace, sites: Mapping[str, str]) -> Trace:
    """The replayed sites under their names in the program; the sites are those of the trace, not copies."""
    selected = Trace()
    for ours, theirs in sites.items():
        if theirs not in trace:
            raise ModelError(
                f"sites names {theirs!r}, which is not in the replayed trace.{nearest(theirs, trace)}"
            )
        site = trace.nodes[theirs]
        if site.enum_dim is not None and ours != theirs:
            raise ModelError(
                f"Site {theirs!r} of the replayed trace is enumerated, and its dimension goes by its name, so it "
                f"cannot be replayed as {ours!r}. Give the two one name."
            )
        selected.nodes[ours] = site
    return selected
