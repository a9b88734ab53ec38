"""Running a program again with the values of an earlier run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from sumout.distributions.families import is_distribution
from sumout.effects.finite import Finite
from sumout.effects.handlers.named import NamedMessenger, check_data, is_drawn
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.steps import assembled
from sumout.effects.trace import Nodes, Trace
from sumout.errors import ModelError, ReplayError

_OF_THE_RUN = ("_markov", "_chain", "_undrawable")


class ReplayMessenger(NamedMessenger):
    """Gives sample sites the values they have in a trace, and params the given values.

    Sites that are observed, or not in the trace, are left as they are. What the trace's site has in ``infer`` is
    added to a copy of the site's own; of two values for one key the trace's holds. Marks of ``markov``
    belong to a run and are not carried over. Under validation a run warns of latent sites of the trace, without
    auxiliary ones and plates, that it does not have, and of params that it does not have.

    In a chain that has a name, values of single steps and of many at once stand for each other: a guide may loop
    where the model takes many steps at once, or have another history.

    Args:
        trace: the earlier run.
        params: constrained values by name of ``param`` site, as the parameter store gives them.

    Raises:
        ModelError: if neither is given, or something else.
        ReplayError: at a site that the trace has as observed, or not as a sample.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     return sample("z", Normal(0.0, 1.0))
    >>> before = trace(model).get_trace()
    >>> bool(replay(model, trace=before)() == before.nodes["z"]["value"])
    True
    """

    def __init__(self, trace: Trace | None = None, params: Mapping[str, Tensor] | None = None) -> None:
        if trace is None and params is None:
            raise ModelError("replay takes values from a trace or from params, e.g. replay(model, trace=t).")
        _check(trace, params)
        super().__init__()
        self.trace = trace
        self.params = params
        self._kind = "param" if trace is None else "sample" if params is None else "sample or param"

    def _names(self) -> Iterable[str]:
        return [*(() if self.trace is None else self.trace.nodes), *(self.params or ())]

    def _expected(self, name: str) -> bool:
        return self.trace is None or name not in self.trace.nodes or is_drawn(self.trace, name)

    def _pyro_sample(self, msg: Message) -> None:
        if saw := self._run.saw:
            saw(msg.name)
        name = msg.name
        if self.trace is None or name is None:
            return
        if name not in self.trace.nodes:
            if "_chain" in msg.infer:
                self._replay_steps(msg, self.trace.nodes)
            return
        before = self.trace.nodes[name]
        # Where the values of the trace were enumerated, sites that follow from them have their dimensions too.
        if before.enum_dims is not None:
            msg.enum_dims = {**before.enum_dims, **(msg.enum_dims or {})}
        if msg.is_observed:
            return
        if before.type != "sample" or before.is_observed:
            kind = "an observed" if before.type == "sample" else f"a {before.type}"
            raise ReplayError(
                f"Site {name!r} must be sampled in the replayed trace, where it is {kind} site. "
                "Replay a trace without it, or observe it here too."
            )
        msg.value = before.value
        msg.done = True
        msg.enum_dim = before.enum_dim
        if isinstance(before.plain_fn, Finite) and is_distribution(msg.plain_fn):
            # All values at once were replayed, of which some may be out of the support of some elements.
            msg.plain_fn, msg._fn = Finite(msg.plain_fn, before.plain_fn.values), None
        if before.infer:
            carried = {key: value for key, value in before.infer.items() if not key.startswith(_OF_THE_RUN)}
            msg.infer = {**msg.infer, **carried}

    def _replay_steps(self, msg: Message, nodes: Mapping[str, Message]) -> None:
        """Replays a site of a chain whose steps the trace has under other names."""
        steps = None if msg.is_observed else assembled(msg, nodes)
        if steps is None:
            return
        msg.value, names = steps
        msg.done = True
        for name in names:
            if saw := self._run.saw:
                saw(name)
            if nodes[name].is_observed or nodes[name].enum_dim is not None:
                kind = "observed" if nodes[name].is_observed else "enumerated"
                raise ReplayError(
                    f"Site {msg.name!r} would take the value of {name!r}, which is {kind} in the replayed trace. "
                    "Loop over the chain in the same way in both programs."
                )

    def _pyro_param(self, msg: Message) -> None:
        if saw := self._run.saw:
            saw(msg.name)
        name = msg.name
        if self.params is None or name is None or name not in self.params:
            return
        value = self.params[name]
        if not hasattr(value, "unconstrained"):
            raise ModelError(
                f"The replayed value of param {msg.name!r} does not come from a parameter store: it has no "
                "unconstrained(). Take it from get_param_store() or from a trace's param site."
            )
        msg.value = value
        msg.done = True


def _check(trace: Any, params: Any) -> None:
    if trace is not None and not isinstance(trace, Trace):
        remedy = (
            "Take the trace itself, not its nodes."
            if isinstance(trace, Nodes)
            else "Take the .trace of what trace(program) gives, or run it: trace(program).get_trace(...)."
            if hasattr(trace, "get_trace")
            else "Values by name are given by condition(model, data=...); those of params by params=..."
        )
        raise ModelError(f"replay takes a Trace and was given {type(trace).__name__}. {remedy}")
    if isinstance(params, Trace):
        raise ModelError(
            "replay's params are values by name and it was given a Trace: replay(model, trace=t)."
        )
    if params is not None:
        check_data(ReplayMessenger, params, "replay(model, params=get_param_store())")


replay = wrap(ReplayMessenger)
