from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects import Message, NonlocalExit, Trace
from sumout.effects.handlers import enum, escape, trace
from sumout.effects.primitives import param, plate, sample
from sumout.effects.trace import all_escape, discrete_escape, enum_extend, mc_extend
from sumout.errors import DuplicateSiteError, EnumerationError
from sumout.poutine import util

COIN = dist.Bernoulli(torch.tensor([0.2, 0.7]))


def site(fn: Any = None, name: str | None = "z", **fields: Any) -> Message:
    return Message(type=fields.pop("type", "sample"), name=name, fn=fn, **fields)


def partial() -> Trace:
    return trace(lambda: sample("a", dist.Normal(0.0, 1.0))).get_trace()


def values(traces: list[Trace]) -> list[Any]:
    return [each.nodes["z"].value.tolist() for each in traces]


def left_at(program: Any, name: str) -> Message:
    with pytest.raises(NonlocalExit) as caught:
        escape(program, escape_fn=lambda site: site.name == name)()
    return caught.value.site


# -------------------------------------------------------------------------------------------- where to leave


@pytest.mark.parametrize(
    ("msg", "leave", "leave_discrete"),
    [
        (site(dist.Bernoulli(0.5)), True, True),
        (site(dist.Bernoulli(0.5).expand([2])), True, True),
        (site(dist.Normal(0.0, 1.0)), True, False),
        (site(torch.rand), True, False),
        (site(dist.Bernoulli(0.5), name="a"), False, False),
        (site(dist.Bernoulli(0.5), name=None), False, False),
        (site(dist.Bernoulli(0.5), is_observed=True), False, False),
        (site(dist.Bernoulli(0.5), type="param"), False, False),
    ],
)
def test_where_to_leave(msg: Message, leave: bool, leave_discrete: bool) -> None:
    for contents in (msg, dict(msg)):
        assert all_escape(partial(), contents) is leave  # type: ignore[arg-type]
        assert discrete_escape(partial(), contents) is leave_discrete  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ how to go on


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (None, [0, 1, 2]),
        (-1, [0, 1, 2]),
        (0, []),
        (1, [0]),
        (2, [0, 1]),
        (3, [0, 1, 2]),
        (9, [0, 1, 2]),
    ],
)
def test_at_most_num_samples_values(number: int | None, expected: list[int]) -> None:
    assert values(enum_extend(Trace(), site(dist.Categorical(torch.ones(3))), number)) == expected


def test_the_traces_are_copies_with_one_more_site() -> None:
    before = partial()
    for extend in (enum_extend, mc_extend):
        longer = extend(before, site(dist.Bernoulli(0.5), infer={"mark": 1}))
        assert list(before) == ["_INPUT", "a", "_RETURN"]
        for each in longer:
            assert [*before, "z"] == list(each)
            assert each.nodes["a"] is not before.nodes["a"]
            assert each.nodes["a"].value is before.nodes["a"].value
            assert each.nodes["z"].infer == {"mark": 1}
        assert len({id(each.nodes["z"].infer) for each in longer}) == len(longer)


def test_all_assignments_of_a_batched_site() -> None:
    assert values(enum_extend(Trace(), site(COIN))) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    shape = site(dist.Categorical(torch.ones(2, 2, 3)))
    found = values(enum_extend(Trace(), shape))
    expected = [[[a, b], [c, d]] for a, b, c, d in itertools.product(range(3), repeat=4)]
    assert found == expected
    assert values(enum_extend(Trace(), shape, num_samples=2)) == expected[:2]
    hot = enum_extend(Trace(), site(dist.OneHotCategorical(torch.ones(2, 3))))
    assert len(hot) == 9
    assert all(each.nodes["z"].value.shape == (2, 3) for each in hot)
    total = sum(each.log_prob_sum().exp() for each in enum_extend(Trace(), site(COIN)))  # type: ignore[union-attr]
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_a_site_is_taken_with_the_shape_of_its_plates() -> None:
    def program() -> None:
        with plate("data", 3):
            sample("z", dist.Bernoulli(0.5))

    msg = left_at(program, "z")
    assert len(enum_extend(Trace(), msg)) == 8
    assert [len(value) for value in values(mc_extend(Trace(), msg, 2))] == [3, 3]


def test_what_cannot_be_listed() -> None:
    with pytest.raises(EnumerationError, match="'z' cannot be enumerated: Normal"):
        enum_extend(Trace(), site(dist.Normal(0.0, 1.0)))
    with pytest.raises(EnumerationError, match="inhomogeneous|same for all"):
        enum_extend(Trace(), site(dist.Binomial(torch.tensor([1.0, 2.0]), 0.5)))


def test_a_site_that_is_there_already() -> None:
    for extend in (enum_extend, mc_extend):
        with pytest.raises(DuplicateSiteError, match="'a'"):
            extend(partial(), site(dist.Bernoulli(0.5), name="a"))


@pytest.mark.parametrize(("number", "count"), [(None, 1), (-1, 1), (0, 0), (1, 1), (3, 3)])
def test_drawn_values(number: int | None, count: int) -> None:
    found = values(mc_extend(Trace(), site(dist.Normal(0.0, 1.0)), number))
    assert len(set(found)) == len(found) == count


def test_values_are_drawn_by_the_arguments_of_the_site() -> None:
    with pytest.raises(NonlocalExit) as caught:
        escape(lambda: sample("z", torch.full, (2,), fill_value=3.0), escape_fn=lambda site: True)()
    drawn = mc_extend(Trace(), caught.value.site, num_samples=2)
    assert values(drawn) == [[3, 3], [3, 3]]
    assert drawn[0].nodes["z"].done


def test_the_moments_of_drawn_values() -> None:
    drawn = torch.tensor(values(mc_extend(Trace(), site(dist.Normal(2.0, 3.0)), 4000)))
    assert abs(drawn.mean() - 2) < 5 * 3 / 4000**0.5
    assert abs(drawn.var() - 9) < 5 * 9 * (2 / 4000) ** 0.5


def test_nothing_of_the_exit_is_left_and_the_trace_can_be_sent_away() -> None:
    def program() -> None:
        param("p", torch.tensor(1.0))
        sample("z", COIN)

    msg = left_at(program, "z")
    for extend in (enum_extend, mc_extend):
        for longer in extend(partial(), msg):
            found = longer.nodes["z"]
            assert (found.stop, found.continuation, found.done) == (False, None, True)
            again = pickle.loads(pickle.dumps(longer))
            assert list(again) == list(longer)
            assert torch.equal(again.nodes["z"].value, found.value)
            assert again.log_prob_sum() == longer.log_prob_sum()
    assert msg.stop  # the site itself is as it was


def test_a_value_chosen_here_is_not_enumerated_any_more() -> None:
    def program() -> None:
        sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    msg = left_at(enum(program, first_available_dim=-1), "z")
    assert [each.nodes["z"].enum_dim for each in enum_extend(Trace(), msg)] == [None, None]
    assert values(enum_extend(Trace(), msg)) == [0, 1]


def test_sites_that_are_plain_dictionaries() -> None:
    contents: Any = {
        "type": "sample",
        "name": "z",
        "fn": dist.Bernoulli(0.5),
        "is_observed": False,
        "colour": "red",
    }
    for extend in (enum_extend, mc_extend):
        assert extend(Trace(), contents)[0].nodes["z"]["colour"] == "red"
    assert "value" not in contents


def test_public_names() -> None:
    assert util.all_escape is all_escape
    assert util.discrete_escape is discrete_escape
    assert util.enum_extend is enum_extend
    assert util.mc_extend is mc_extend
