"""What is in reach of a step, written out by hand."""

from __future__ import annotations

from collections import Counter

import pytest

import sumout.distributions as dist
from sumout.effects import Message, Messenger, am_i_wrapped
from sumout.effects.handlers import MarkovMessenger
from sumout.effects.primitives import markov, plate, sample
from sumout.effects.stack import state
from sumout.errors import ModelError


class Reach(Messenger):
    """For every site, its depth and the names in reach and nearly so."""

    def __init__(self) -> None:
        self.depth: dict[str, int | None] = {}
        self.scope: dict[str, str] = {}
        self.near: dict[str, str] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        name = msg.name or ""
        self.depth[name] = msg.infer.get("_markov_depth")
        for found, key in ((self.scope, "_markov_scope"), (self.near, "_markov_near_scope")):
            found[name] = " ".join(sorted(Counter(msg.infer.get(key, {})).elements()))


def site(name: str) -> None:
    sample(name, dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("history", "scope", "near"),
    [
        (0, "a3", "a2 a3 b2"),
        (1, "a2 a3 b2", "a1 a2 a3 b1 b2"),
        (2, "a1 a2 a3 b1 b2", "a0 a1 a2 a3 b0 b1 b2"),
        (3, "a0 a1 a2 a3 b0 b1 b2", "a0 a1 a2 a3 b0 b1 b2"),
    ],
)
def test_a_step_reaches_as_far_as_its_history(history: int, scope: str, near: str) -> None:
    with Reach() as reach:
        for t in markov(range(4), history=history):
            site(f"a{t}")
            site(f"b{t}")
    assert reach.scope["a0"] == ""
    assert reach.scope["b3"] == scope
    assert reach.near["b3"] == near
    assert set(reach.depth.values()) == {1}


def test_outside_nothing_is_noted() -> None:
    with Reach() as reach:
        for t in markov(range(2)):
            site(f"a{t}")
        sample("z", dist.Normal(0.0, 1.0), infer={"mine": 1})
    assert reach.depth["z"] is None
    assert state.stack == []


def grown(keep: bool) -> Reach:
    @markov(keep=keep)
    def grow(name: str, depth: int) -> None:
        """A doc."""
        site(name)
        if depth:
            grow(name + "0", depth - 1)
            grow(name + "1", depth - 1)

    assert grow.__name__ == "grow"
    assert grow.__doc__ == "A doc."
    with Reach() as reach:
        grow("r", 2)
    return reach


def test_branches_do_not_see_each_other() -> None:
    reach = grown(keep=False)
    assert reach.scope["r1"] == "r"
    assert reach.scope["r10"] == "r1"
    assert reach.scope["r11"] == "r1"
    assert "r0" in reach.near["r1"].split()


def test_kept_branches_of_one_level_see_each_other() -> None:
    reach = grown(keep=True)
    assert reach.scope["r1"] == "r r0"
    assert reach.scope["r11"] == "r0 r00 r01 r1 r10"


def test_a_site_of_nested_chains_counts_in_each() -> None:
    with Reach() as reach:
        for s in markov(range(2)):
            site(f"s{s}")
            for t in markov(range(2)):
                site(f"t{s}{t}")
    assert reach.depth["t11"] == 2
    # The inner chain of the first step is over: its sites are in reach of the outer chain alone.
    assert reach.scope["t11"] == "s0 s1 t00 t01 t10 t10"


def test_one_messenger_entered_step_by_step() -> None:
    steps = MarkovMessenger(history=1)
    with Reach() as reach, steps:
        site("a")
        with steps:
            site("b")
            with steps:
                site("c")
    assert reach.scope == {"a": "", "b": "a", "c": "b"}


def test_the_choice_of_a_subsample_is_in_no_scope() -> None:
    with Reach() as reach:
        for t in markov(range(2)):
            with plate(f"p{t}", 3):
                site(f"a{t}")
    assert reach.depth["p1"] is None
    assert reach.scope["a1"] == "a0"


def test_a_loop_left_early_leaves_nothing_behind() -> None:
    for _ in markov(range(3)):
        break
    assert state.stack == []


def test_values_are_handed_through() -> None:
    assert list(markov(["x", "y"])) == ["x", "y"]
    assert list(markov(i for i in range(3))) == [0, 1, 2]
    assert list(markov([])) == []


def test_bad_arguments_are_said() -> None:
    with pytest.raises(ValueError, match="history=-1"):
        markov(range(3), history=-1)
    for wrong in (1.5, "1", None):
        for steps in (range(3), None, len):
            with pytest.raises(ModelError, match=f"history={wrong!r}; it counts earlier steps"):
                markov(steps, history=wrong)
        with pytest.raises(ModelError, match="counts earlier steps"):
            markov(range(3), history=wrong, dim=-1, name="time")
    with pytest.raises(ModelError, match="no name"):
        markov(range(3), dim=-1)
    with pytest.raises(ModelError, match="is no loop"), MarkovMessenger(dim=-1, name="chain"):
        pass
    with pytest.raises(ValueError, match="was given 3.*by keyword"):
        markov(3)  # type: ignore[call-overload]


def test_interleaved_chains_are_refused_and_leave_nothing_behind() -> None:
    with pytest.raises(ValueError, match="nest"):
        for _ in zip(markov(range(3)), markov(range(3)), strict=True):
            pass
    assert not am_i_wrapped()
