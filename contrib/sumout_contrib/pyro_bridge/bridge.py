"""The two handlers that join Pyro's stack to sumout's while a wrapped program runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyro.poutine.markov_messenger import MarkovMessenger
from pyro.poutine.messenger import Messenger as PyroMessenger
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK

from sumout.errors import EnumerationError, ModelError
from sumout.poutine import Messenger, block_messengers, get_mask, get_plates
from sumout.poutine.runtime import Message, apply_stack
from sumout_contrib.pyro_bridge.chains import Chains
from sumout_contrib.pyro_bridge.expansion import remembered_expansions
from sumout_contrib.pyro_bridge.messages import (
    PyroMessage,
    message_of,
    pyro_frames,
    site_of,
    update_message,
    update_site,
)

_SETTLED = ("type", "fn", "value", "is_observed", "scale", "mask", "cond_indep_stack")


class Bridge(PyroMessenger):  # type: ignore[misc]
    """On Pyro's stack: sends sites that Pyro's handlers inside have seen through sumout's stack.

    Pyro's handlers outside may watch the sites, as ``trace`` does, but not change them: sumout's have seen them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = len(_PYRO_STACK)
        self.crossing: Message | None = None
        """The site of Pyro's that is on its way through sumout's stack."""
        self._chains = Chains()

    @property
    def inside(self) -> list[PyroMessenger]:
        """Pyro's handlers inside, outermost first."""
        inside: list[PyroMessenger] = _PYRO_STACK[self.place + 1 :]
        return inside

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)
        finally:
            del _PYRO_STACK[self.place :]

    def _process_message(self, msg: PyroMessage) -> None:
        if msg["type"] == "inspect":
            _add_surroundings(msg)
            return
        site = site_of(msg)
        self.complete(site)
        plain = site.plain_fn
        before, self.crossing = self.crossing, site
        try:
            apply_stack(site)
        finally:
            self.crossing = before
        update_message(msg, site, plain)
        if self.place:
            msg["_settled"] = [msg[field] for field in _SETTLED], _wishes(site.infer)

    def _postprocess_message(self, msg: PyroMessage) -> None:
        """Looks whether handlers outside have changed what is settled."""
        if "_settled" not in msg:
            return
        settled, infer = msg.pop("_settled")
        changed = [field for field, value in zip(_SETTLED, settled, strict=True) if msg[field] is not value]
        if infer != _wishes(msg["infer"]):
            changed.append("infer")
        if changed:
            outside = ", ".join(type(frame).__name__ for frame in _PYRO_STACK[: self.place])
            raise ModelError(
                f"A Pyro handler outside of as_sumout ({outside}) changes {', '.join(changed)} of site "
                f"{msg['name']!r}, which sumout's handlers have seen without the change. Put the handler inside, "
                "e.g. as_sumout(pyro.poutine.condition(model, data=...)), or take sumout's."
            )

    def complete(self, site: Message) -> None:
        """Adds to ``infer`` what sumout's enumeration wants to know and Pyro's handlers inside did not say."""
        infer = site.infer
        if "_markov_scope" in infer:
            chains = [frame for frame in self.inside if isinstance(frame, MarkovMessenger)]
            self._chains.complete(site.name or "", infer, chains)
        if site.done and "_enumerate_dim" in infer:
            raise EnumerationError(
                f"Pyro's enum handler has enumerated site {site.name!r}, along a dimension that sumout does not know. "
                "Leave that handler out: sumout's queries and TraceEnum_ELBO enumerate."
            )


class Door(Messenger):
    """On sumout's stack: shows sites of sumout's own to Pyro's handlers inside.

    These are statements of a program that mixes both libraries, and sites that a handler of sumout's makes while a
    site of Pyro's passes, as ``reparam`` does: they are in the same plates and chains as that one.
    """

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._visits: dict[int, tuple[Message, PyroMessage, list[PyroMessenger]]] = {}
        """Sites on their way -> their form for Pyro's handlers, and the handlers that saw it, innermost first."""

    def _process_message(self, site: Message) -> None:
        if site is self._bridge.crossing or not self._bridge.inside:
            return
        if "_markov_scope" in site.infer:  # of sumout's chains inside; Pyro's go on counting
            site.infer["_markov_scope"] = Counter(site.infer["_markov_scope"])
        msg, visited = message_of(site), []
        fn = msg["fn"]
        for frame in reversed(self._bridge.inside):
            visited.append(frame)
            frame._process_message(msg)
            if msg["stop"]:
                break
        update_site(site, msg, fn)
        self._bridge.complete(site)
        if site.type == "get_mask":
            site.value = site.mask
        elif msg["continuation"] is not None:
            site.continuation = lambda site: msg["continuation"](msg)
        self._visits[id(site)] = site, msg, visited

    def _postprocess_message(self, site: Message) -> None:
        if id(site) not in self._visits:
            return
        _, msg, visited = self._visits.pop(id(site))
        if site.type == "get_plates":
            site.value = site.cond_indep_stack
        update_message(msg, site, site.plain_fn)
        for frame in reversed(visited):
            frame._postprocess_message(msg)
        site.value = msg["value"]


def is_bridged() -> bool:
    """Whether sites of Pyro's go through sumout's stack already."""
    return any(type(frame) is Bridge for frame in _PYRO_STACK)


@contextmanager
def bridged() -> Iterator[None]:
    """Sends the sites of a Pyro program in a ``with`` block through sumout's stack.

    The plates around it keep their tensor dimensions: the program's own plates are given others.
    """
    with ExitStack() as entered:
        for frame in get_plates():
            if frame.dim is not None:
                _DIM_ALLOCATOR.allocate(frame.name, frame.dim)
                entered.callback(_DIM_ALLOCATOR.free, frame.name, frame.dim)
        entered.enter_context(remembered_expansions())
        bridge = entered.enter_context(Bridge())
        entered.enter_context(Door(bridge))
        yield


def _add_surroundings(msg: PyroMessage) -> None:
    """Answers ``pyro.poutine.get_mask()`` and ``get_plates()``, to which Pyro's handlers inside have said theirs."""
    with block_messengers(lambda frame: isinstance(frame, Door)):
        mask, plates = get_mask(), get_plates()
    if mask is not None:
        msg["mask"] = mask if msg["mask"] is None else msg["mask"] & mask
    msg["cond_indep_stack"] = pyro_frames(plates) + msg["cond_indep_stack"]


def _wishes(infer: dict[str, Any]) -> dict[str, int]:
    """What ``infer`` asks for, without the notes of handlers; tensors are compared by identity."""
    return {key: id(value) for key, value in infer.items() if not key.startswith("_")}
