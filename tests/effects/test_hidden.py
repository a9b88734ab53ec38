"""Values with hidden dimensions: every function gives, for each combination of values, what it gives for one."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout.effects.hidden import Axis, Hidden, hidden
from sumout.errors import ControlFlowError, EnumerationError, MemoryLimitError

AXES = tuple(Axis(number, f"s{number}", size) for number, size in enumerate([2, 3, 2]))
WORLDS = [
    dict(zip(AXES, states, strict=True)) for states in itertools.product(*[range(axis.size) for axis in AXES])
]


def numbers(axes: Any, shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 7 * len(shape) + len(axes))
    raw = torch.randn([axis.size for axis in axes] + list(shape), generator=generator, dtype=torch.float64)
    return hidden(raw.to(dtype), tuple(axes))


def states(axes: Any, shape: tuple[int, ...], size: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return hidden(
        torch.randint(size, [axis.size for axis in axes] + list(shape), generator=generator), tuple(axes)
    )


def in_world(value: Any, world: dict[Axis, int]) -> Any:
    """What a value is where each site has one of its values."""
    if isinstance(value, Hidden):
        return value.raw[tuple(world[axis] for axis in value.axes)]
    return value


def check(function: Callable[..., Any], *operands: Any) -> None:
    found = function(*operands)
    for world in WORLDS:
        expected = function(*[in_world(each, world) for each in operands])
        pairs = zip(found, expected, strict=True) if isinstance(found, (tuple, list)) else [(found, expected)]
        for one, other in pairs:
            one = in_world(one, world)
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


A, B, C = AXES
MATRIX = numbers([A, B], (3, 4))
VECTOR = numbers([B, C], (4,))
NUMBER = numbers([C], ())
SINGLE = numbers([A], (), torch.float32)
STATE = states([A], ())
STATES = states([B], (3,))
PLAIN = torch.linspace(-1.0, 2.0, 3, dtype=torch.float64).reshape(3, 1)

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "add": (lambda a, b: a + b, (MATRIX, VECTOR)),
    "with a plain tensor": (lambda a, b: a * b - b, (NUMBER, PLAIN)),
    "with a number": (lambda a: 1 - a / 2, (MATRIX,)),
    "power": (lambda a: 2**a, (STATE,)),
    "where": (lambda a, b, c: torch.where(a > 0, b, c), (NUMBER, MATRIX, VECTOR)),
    "clamp by a tensor": (lambda a, b: torch.clamp(a, min=b), (MATRIX, NUMBER)),
    "types, two numbers": (lambda a, b: a * b, (SINGLE, NUMBER)),
    "types, a plain number": (lambda a, b: a * b, (SINGLE, torch.tensor(1.5, dtype=torch.float64))),
    "types, a plain vector": (lambda a, b: a + b, (NUMBER, torch.ones(3))),
    "types, integers": (lambda a, b: a + b, (STATE, torch.ones(3))),
    "sum": (lambda a: a.sum(), (MATRIX,)),
    "sum along": (lambda a: (a.sum(0), a.sum(-1, keepdim=True), a.mean(dim=1)), (MATRIX,)),
    "sum along several": (lambda a: a.sum((0, 1)), (MATRIX,)),
    "maximum along": (lambda a: tuple(a.max(-1)), (MATRIX,)),
    "softmax": (lambda a: torch.softmax(a, -1), (MATRIX,)),
    "logsumexp": (lambda a: (a.logsumexp(-1), torch.logsumexp(a, (0, 1))), (MATRIX,)),
    "cumsum, all": (lambda a: (a.cumsum(0), (a > 9).all(-1), (a > 0).any(0)), (MATRIX,)),
    "a number's sum along its last dim": (lambda a: a.sum(-1), (NUMBER,)),
    "variance": (lambda a: a.var(-1), (MATRIX,)),
    "matrix product": (lambda a, b: a @ b, (MATRIX, VECTOR)),
    "einsum": (lambda a, b: torch.einsum("ij,j->i", a, b), (MATRIX, VECTOR)),
    "stack": (lambda a, b, c: torch.stack([a, b.double(), c], -1), (NUMBER, STATE, PLAIN[0, 0])),
    "cat": (lambda a, b: torch.cat([a, b.unsqueeze(0)]), (MATRIX, VECTOR)),
    "transpose": (lambda a: (a.T, a.permute(1, 0), a.transpose(0, 1)), (MATRIX,)),
    "expand": (lambda a: (a.expand(2, 3, 4), a.expand(-1, 4)), (MATRIX,)),
    "reshape": (lambda a: (a.reshape(-1), a.view(4, 3), a.reshape([2, 6]), a.flatten()), (MATRIX,)),
    "unsqueeze": (lambda a: (a.unsqueeze(0), a.unsqueeze(-1), a.unsqueeze(1), a[None]), (MATRIX,)),
    "squeeze": (lambda a: (a[:, :1].squeeze(), a[:, :1].squeeze(-1)), (MATRIX,)),
    "broadcast_tensors": (torch.broadcast_tensors, (MATRIX, NUMBER, PLAIN)),
    "gather": (lambda a, b: a.gather(-1, b.unsqueeze(-1)), (MATRIX, STATES)),
    "index_select": (lambda a, b: torch.index_select(a, 0, b), (PLAIN, STATES)),
    "one_hot": (lambda a: F.one_hot(a, 3), (STATE,)),
    "determinant": (lambda a: torch.det(a[:, :3]), (MATRIX,)),
    "unbind": (lambda a: a.unbind(0), (MATRIX,)),
    "iteration": (tuple, (MATRIX,)),
    "type of another": (lambda a, b: (a.to(b), a.type_as(b)), (STATE, NUMBER)),
    "a plain tensor in the type of another": (lambda a, b: a.to(b), (torch.arange(3), NUMBER)),
    "new ones": (lambda a: a.new_zeros(3) + torch.ones_like(a)[:, :1], (MATRIX,)),
    "rounding": (lambda a: (a + 3) // 2, (STATE,)),
    "negation": (lambda a: (~(a > 0), -a, abs(a)), (MATRIX,)),
    "cross entropy": (
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction="none"),
        (MATRIX, MATRIX.sigmoid()),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_for_each_value_what_it_gives_for_one(name: str) -> None:
    function, operands = FUNCTIONS[name]
    check(function, *operands)


PARTS = st.sampled_from(
    [
        STATE,
        STATES,
        states([B, C], (2, 1)),
        torch.tensor([0, 1, 1]),
        torch.tensor(1),
        0,
        slice(None),
        slice(0, 2),
        slice(1, 2),
        None,
        Ellipsis,
    ]
)
TABLES = st.sampled_from(
    [numbers([], (2, 3, 2, 4)), numbers([A, B], (2, 3, 2, 4)), numbers([C], (2, 2, 2)), numbers([B], (3,))]
)


@given(TABLES, st.lists(PARTS, min_size=1, max_size=4))
def test_indexing(table: Tensor, parts: list[Any]) -> None:
    def index(values: Tensor, *places: Any) -> Tensor:
        return values[places if len(places) > 1 else places[0]]

    assume(sum(part is Ellipsis for part in parts) < 2)  # torch takes more, and vmap takes them for others
    world = WORLDS[0]
    try:
        index(in_world(table, world), *[in_world(part, world) for part in parts])
    except (IndexError, RuntimeError):
        with pytest.raises((IndexError, RuntimeError, NotImplementedError)):
            assume(any(isinstance(each, Hidden) for each in (table, *parts)))
            index(table, *parts)
        return
    check(index, table, *parts)


def test_shapes_look_as_if_nothing_were_enumerated() -> None:
    assert MATRIX.shape == MATRIX.size() == (3, 4)
    assert (MATRIX.ndim, MATRIX.dim(), MATRIX.numel(), len(MATRIX), MATRIX.size(-1)) == (2, 2, 12, 3, 4)
    assert MATRIX.dtype is torch.float64
    assert MATRIX.is_floating_point()
    assert str(STATE) == repr(STATE) == "<torch.int64 of shape () for each value of s0 (2 values)>"
    assert f"{STATES}" == "<torch.int64 of shape (3,) for each value of s1 (3 values)>"


def test_gradients_flow_through_all_values() -> None:
    table = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    value = table[STATE].softmax(-1) * VECTOR.exp().sum()
    assert value.requires_grad
    expected = sum(
        (table[in_world(STATE, world)].softmax(-1) * in_world(VECTOR, world).exp().sum()) for world in WORLDS
    )
    (found,) = torch.autograd.grad(value.raw.pow(2).sum(), table)
    (by_world,) = torch.autograd.grad(
        sum(
            (table[in_world(STATE, world)].softmax(-1) * in_world(VECTOR, world).exp().sum()).pow(2).sum()
            for world in WORLDS
        ),
        table,
    )
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found, by_world)


@pytest.mark.parametrize(
    ("decide", "told"),
    [
        (bool, "if, while"),
        (int, "int()"),
        (float, "float()"),
        (lambda z: [1, 2, 3][z], "index of a list"),
        (lambda z: list(range(z)), "range()"),
        (lambda z: f"x_{z}", "f-string"),
        (lambda z: z.item(), "as item() does"),
        (lambda z: z.tolist(), "tolist()"),
        (lambda z: z.numpy(), "numpy()"),
        (lambda z: z.unsqueeze(0).nonzero(), "nonzero()"),
        (lambda z: torch.arange(3)[torch.arange(3) > z], "__getitem__()"),
        (lambda z: z in torch.tensor([0, 5]), "item()"),
        (lambda z: torch.equal(z, torch.tensor(1)), "if, while"),
        (lambda z: torch.zeros(z), "as zeros() does"),
        (torch.arange, "_local_scalar_dense"),
        (lambda z: torch.arange(3).repeat_interleave(z), "repeat_interleave"),
    ],
)
def test_a_decision_names_the_site_and_the_remedy(decide: Any, told: str) -> None:
    with pytest.raises(ControlFlowError) as caught:
        decide(STATE)
    for text in ("'s0'", told, "infer={'enumerate': 'auto'}", "torch.where"):
        assert text in str(caught.value)
    assert (caught.value.sites, caught.value.automatic) == (("s0",), frozenset())


def test_a_decision_that_is_the_same_for_all_values_is_no_decision() -> None:
    assert bool((STATE >= 0).all())
    assert not bool(STATE > 5)
    assert int(STATE * 0 + 3) == 3
    assert torch.equal(STATE, STATE)
    assert f"x_{STATE * 0}" == "x_0"


def test_what_may_be_sequential_is_told_only_of_all_sites() -> None:
    automatic = Axis(7, "t", 2, automatic=True)
    with pytest.raises(ControlFlowError) as caught:
        bool(hidden(torch.arange(2), (automatic,)))
    assert caught.value.automatic == {"t"}
    with pytest.raises(ControlFlowError, match="'s0' and 't'") as caught:
        bool(hidden(torch.arange(4).reshape(2, 2), (A, automatic)))
    assert caught.value.automatic == frozenset()


def test_changes_in_place() -> None:
    value = MATRIX.clone()
    value += 1
    value[0] = 5.0
    value.mul_(NUMBER.raw[0])
    row = value[1]
    row.zero_()
    for world in WORLDS:
        expected = in_world(MATRIX, world) + 1
        expected[0] = 5.0
        expected = expected * NUMBER.raw[0]
        expected[1] = 0.0
        torch.testing.assert_close(in_world(value, world), expected)
    with pytest.raises(EnumerationError, match="add_.*'s2'.*tensor that has one value"):
        torch.zeros(3).add_(NUMBER)
    with pytest.raises(EnumerationError, match="__setitem__"):
        torch.zeros(3)[0] = NUMBER
    with pytest.raises(EnumerationError, match="'s1'"):
        value.copy_(VECTOR)
    with pytest.raises(EnumerationError, match="exp"):
        torch.exp(NUMBER, out=torch.zeros(()))


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


def test_what_is_not_known_is_an_error() -> None:
    value = torch.rand(2, requires_grad=True)[STATE]
    with pytest.raises(EnumerationError, match=r"torch.autograd.Function"):
        _Doubled.apply(value) + 1  # type: ignore[no-untyped-call]
    with pytest.raises(ControlFlowError, match="'s0'.*exp"), torch._C.DisableTorchFunctionSubclass():
        value.exp()
    with pytest.raises(ControlFlowError, match="backward"):
        value.backward()  # type: ignore[no-untyped-call]
    with pytest.raises(ControlFlowError, match="grad"):
        torch.autograd.grad(value.sum(), value)
    with pytest.raises(TypeError, match="HiddenTensor"):
        value + _Other(torch.ones(()))


class _Other(Tensor):
    """Tensors with rules of their own, which may stand for something else than their numbers."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


def test_copies() -> None:
    torch.testing.assert_close(copy.deepcopy(NUMBER).raw, NUMBER.raw)
    with pytest.warns(UserWarning, match="copy construct"):
        copied = torch.tensor(NUMBER)
    torch.testing.assert_close(copied.raw, NUMBER.raw)  # type: ignore[attr-defined]
    pickled = pickle.loads(pickle.dumps(NUMBER))
    torch.testing.assert_close(pickled.raw, NUMBER.raw)  # type: ignore[attr-defined]
    assert isinstance(copy.copy(NUMBER), Hidden)
    assert STATE != None  # noqa: E711
    assert torch.as_tensor(NUMBER).axes == NUMBER.axes  # type: ignore[attr-defined]
    assert isinstance(NUMBER.detach(), Hidden)
    assert isinstance(NUMBER.data, Hidden)


def test_values_of_too_many_sites_at_once_are_refused_before_they_are_made() -> None:
    total: Any = 0
    with pytest.raises(MemoryLimitError, match=r"enumerated sites at once \('n0'.*partial sums"):
        for number in range(12):
            total = total + hidden(torch.zeros(10), (Axis(100 + number, f"n{number}", 10),))


@pytest.mark.parametrize(
    "make",
    [
        lambda m, v, n: dist.Normal(m, n.exp()).log_prob(v),
        lambda m, v, n: dist.Normal(m, n.exp()).to_event(1).log_prob(v),
        lambda m, v, n: dist.Categorical(logits=m).log_prob(torch.tensor(1)),
        lambda m, v, n: dist.Categorical(m.softmax(-1)).expand([2, 3]).log_prob(torch.tensor([0, 1, 2])),
        lambda m, v, n: dist.Bernoulli(logits=n).log_prob(torch.ones(3, dtype=torch.float64)),
        lambda m, v, n: dist.MultivariateNormal(m, torch.diag(v.exp())).log_prob(torch.zeros(4).double()),
        lambda m, v, n: dist.Dirichlet(m.exp()).log_prob(torch.full((4,), 0.25, dtype=torch.float64)),
        lambda m, v, n: dist.LogNormal(n, 1.0).log_prob(torch.tensor(0.5, dtype=torch.float64)),
        lambda m, v, n: dist.Gamma(n.exp(), v.exp()).log_prob(v.exp()),
        lambda m, v, n: dist.Poisson(m.exp()).log_prob(torch.tensor(3.0)),
        lambda m, v, n: dist.StudentT(3.0, n).mask(v > 0).log_prob(v),
        lambda m, v, n: dist.MixtureSameFamily(dist.Categorical(logits=v), dist.Normal(m, 1.0)).log_prob(n),
        lambda m, v, n: dist.Normal(n, 1.0).cdf(v),
        lambda m, v, n: dist.Multinomial(3, logits=m).log_prob(torch.tensor([1.0, 0.0, 2.0, 0.0]).double()),
        lambda m, v, n: dist.Beta(n.exp(), 2.0).expand([2]).log_prob(torch.tensor([0.2, 0.7]).double()),
    ],
)
def test_log_probabilities(make: Any) -> None:
    check(make, MATRIX, VECTOR, NUMBER)


def test_distributions_check_all_values_of_their_parameters() -> None:
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(0.0, hidden(torch.tensor([1.0, -1.0]), (A,)))
    with pytest.raises(ValueError, match="support"):
        dist.Bernoulli(0.5).log_prob(hidden(torch.tensor([1.0, 2.0]), (A,)))
