"""What torch's functions make of delayed values, against what they make of numbers.

A result in a form that is kept tells its value for *any* values of the sites; these are compared with the function's
own result there. All other functions have to say that they are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from sumout.effects.delayed import Delayed

D = torch.float64
EXACT = {"rtol": 1e-12, "atol": 1e-12}
W = torch.linspace(-1.0, 2.0, 12, dtype=D).reshape(3, 4)
SQUARE = W[:, :3] + 3 * torch.eye(3, dtype=D)
HOT = torch.tensor([True, False, True])
COLUMN = torch.tensor([2, 0, 1, 2])

Function = Callable[[Any, Any], Any]
"""Of a matrix (3, 4) and a vector (3,)."""

AFFINE: dict[str, Function] = {
    "numbers": lambda m, v: 2 * m - 3 + m / 4 + (1 - m) - (-m) + +m,
    "integers": lambda m, v: m * torch.tensor(3) / torch.tensor(7) + torch.tensor(1),
    "alpha": lambda m, v: torch.add(m, v.unsqueeze(-1), alpha=2) - torch.sub(W, m, alpha=0.5),
    "broadcast": lambda m, v: v.unsqueeze(-1) * W + W * m,
    "cancel": lambda m, v: (m - m) + 0 * m,
    "twice": lambda m, v: torch.stack([v, v, v + v]),
    "cat twice": lambda m, v: torch.cat([v, m[:, 0], v]),
    "stack dim": lambda m, v: torch.stack([v, W[:, 0], m[:, 1]], dim=-1),
    "stack by keyword": lambda m, v: torch.stack(tensors=[v, m[:, 2]], dim=1),
    "hstack": lambda m, v: torch.hstack([m, v.unsqueeze(-1)]),
    "column_stack": lambda m, v: torch.column_stack([v, m]),
    "where": lambda m, v: torch.where(W > 0, m, v.unsqueeze(-1)),
    "where number": lambda m, v: torch.where(W > 0, m, 1.5) + torch.where(W > 0, 2, m),
    "where keyword": lambda m, v: torch.where(W > 0, input=m, other=torch.tensor(1.5, dtype=D)),
    "where method": lambda m, v: m.where(W > 0, W) + W.where(W > 0, m),
    "where twice": lambda m, v: torch.where(W > 0, m, m),
    "where of other entries": lambda m, v: torch.where(W > 0, m.roll(1, 0), 2 * m.flip(-1)),
    "where of two sites": lambda m, v: torch.where(W > 0, m + v.unsqueeze(-1), v.unsqueeze(-1) - m),
    "sum": lambda m, v: m.sum(),
    "sum dim": lambda m, v: m.sum(0) + m.sum(dim=(0, 1)) + torch.sum(m, dim=1, keepdim=True),
    "sum axis": lambda m, v: m.sum(axis=-1),
    "sum of no dim": lambda m, v: m.sum(dim=[]),
    "mean": lambda m, v: m.mean() + m.mean(-1, keepdim=True) + torch.mean(v),
    "matmul": lambda m, v: W.T @ m + (W.T @ v).unsqueeze(-1) + v @ W,
    "batched matmul": lambda m, v: torch.stack([W, W]).mT @ m,
    "mv": lambda m, v: torch.mv(SQUARE, v) + SQUARE.mv(v) + v.dot(W[:, 0]) + torch.dot(W[:, 1], v),
    "linear": lambda m, v: F.linear(v, SQUARE, v),
    "addmv": lambda m, v: torch.addmv(v, SQUARE, v, beta=0.5, alpha=2),
    "addmm": lambda m, v: torch.addmm(m, SQUARE, m),
    "outer": lambda m, v: torch.outer(v, W[0]) + torch.outer(W[:, 0], m[0]),
    "inner": lambda m, v: torch.inner(m, W) + torch.inner(W[:, 0], v),
    "einsum": lambda m, v: torch.einsum("ij,jk->ik", m, W.T) + torch.einsum("i,ij->j", v, SQUARE),
    "einsum without output": lambda m, v: torch.einsum("ij,kj", m, W),
    "einsum with dots": lambda m, v: torch.einsum("...j,j->...", m, W[0]),
    "einsum of a diagonal": lambda m, v: torch.einsum("ii->i", m[:, :3]),
    "einsum sum": lambda m, v: torch.einsum("ij->", m),
    "kron": lambda m, v: torch.kron(v, W[0]),
    "tensordot": lambda m, v: torch.tensordot(m, W, dims=([1], [1])),
    "trace": lambda m, v: torch.trace(m),
    "cumsum": lambda m, v: m.cumsum(0) + torch.cumsum(m, dim=-1),
    "diff": lambda m, v: m.diff(dim=0)[:, :3] + torch.diff(m, n=2)[1:, :1],
    "diff with more": lambda m, v: torch.diff(v, prepend=torch.zeros(1, dtype=D), append=v[:1]),
    "flip": lambda m, v: m.flip(0) + m.fliplr() + m.roll(1, -1),
    "index": lambda m, v: m[HOT] + m[torch.tensor([1, 1])] + m[:2, None, 1:3].sum(1)[:, :1],
    "nested gather": lambda m, v: v[COLUMN][torch.tensor([3, 3, 0])],
    "gather": lambda m, v: m.gather(1, COLUMN.expand(3, 4)) + m.take_along_dim(COLUMN.expand(3, 4), 1),
    "index_select": lambda m, v: torch.index_select(input=m, dim=1, index=COLUMN),
    "shapes": lambda m, v: m.reshape(2, 6).t().contiguous().view(-1)[None].expand(2, 12).unflatten(1, (3, 4)),
    "split": lambda m, v: torch.cat(m.split(3, dim=1)[::-1], dim=1) + torch.cat(list(m.chunk(2, 1)), 1),
    "unbind": lambda m, v: sum(m.unbind(1)) + sum(list(m.T)),
    "unpack": lambda m, v: torch.stack([each * 2 for each in v]),
    "diag": lambda m, v: torch.diag(v) + torch.diag_embed(v) + m[:, :3].tril() + m[:, :3].diagonal().sum(),
    "repeat": lambda m, v: v.repeat(2, 1) + v.repeat_interleave(2).reshape(2, 3) + v.tile(1),
    "pad": lambda m, v: F.pad(m, (1, 2)) + F.pad(m, (0, 3), value=2.0),
    "masked_fill": lambda m, v: m.masked_fill(W > 0, 7.0) + W.masked_fill(W > 0, v.sum()),
    "index_add": lambda m, v: torch.ones(5, dtype=D).index_add(0, torch.tensor([4, 0, 4]), v),
    "scatter_add": lambda m, v: v.scatter_add(0, torch.tensor([0, 0, 2, 1]), m[0]),
    "solve": lambda m, v: (
        torch.linalg.solve(SQUARE, v) + torch.linalg.solve_triangular(SQUARE.tril(), m, upper=False).sum()
    ),
    "conv": lambda m, v: F.conv1d(m.unsqueeze(1), W[:1, :2].unsqueeze(1)),
    "lerp": lambda m, v: torch.lerp(m, v.unsqueeze(-1), 0.3),
    "addcmul": lambda m, v: torch.addcmul(m, W, v.unsqueeze(-1), value=2),
    "casts": lambda m, v: m.to(torch.float64).double().type_as(W) + W.to(m) + W.expand_as(m) + m.expand_as(m),
    "like": lambda m, v: (
        torch.zeros_like(m) + m.new_ones(4) + torch.full_like(m, 2.0) + m.new_tensor(1.0) + m
    ),
    "broadcast_tensors": lambda m, v: sum(torch.broadcast_tensors(m, v.unsqueeze(-1), W)),
    "meshgrid free": lambda m, v: m.swapaxes(0, 1).mT.squeeze().unsqueeze(0).squeeze(0).movedim(0, 1),
}

POWERS: dict[str, Callable[[Any], Any]] = {
    "where": lambda v: torch.where(HOT, v.sqrt(), 2 * v.flip(0).sqrt()),
    "rsqrt": lambda x: 2 * x.rsqrt(),
    "root": lambda x: (3 * x) ** 0.5,
    "inverse": lambda x: 1 / (4 / x),
    "back": lambda x: (x**2).sqrt() + 1,
    "chain": lambda x: torch.reciprocal(torch.sqrt(x * W[2, 0])) ** 3,
    "cube": lambda x: torch.pow(-x, 3) / 2,
    "moved": lambda x: (x**-0.5)[torch.tensor([2, 1])].expand(4, 2),
}

NOT_KEPT: dict[str, Function] = {
    "exp": lambda m, v: v.exp(),
    "product": lambda m, v: v * v,
    "square": lambda m, v: v**2,
    "even root": lambda m, v: (v**2).sqrt(),
    "quotient": lambda m, v: v / m[:, 0],
    "detach": lambda m, v: v.detach(),
    "data": lambda m, v: v.data,
    "max": lambda m, v: m.max(dim=0).values,
    "sort": lambda m, v: v.sort()[0],
    "compare": lambda m, v: v > 0,
    "choice": lambda m, v: torch.where(v > 0, v, W[:, 0]),
    "round": lambda m, v: v.round(),
    "long": lambda m, v: v.long(),
    "index by it": lambda m, v: W[v.abs().long().clamp(max=2)],
    "full": lambda m, v: torch.full_like(W, 1.0) * v.norm(),
    "cholesky": lambda m, v: torch.linalg.cholesky(m[:, :3] @ SQUARE + 40 * torch.eye(3, dtype=D)),
    "view as integers": lambda m, v: v.view(torch.int64),
    "std": lambda m, v: v.std(),
    "unique": lambda m, v: v.unique(),
    "solve with it": lambda m, v: torch.linalg.solve(SQUARE + torch.diag(v), W),
    "power of it": lambda m, v: W[:, 0].abs() ** v,
    "normal": lambda m, v: torch.normal(v, 1.0),
    "bernoulli": lambda m, v: torch.bernoulli(v.sigmoid()),
}

REFUSED: dict[str, Function] = {
    "item": lambda m, v: v[0].item(),
    "Tensor.item": lambda m, v: Tensor.item(v[0]),
    "tolist": lambda m, v: v.tolist(),
    "Tensor.tolist": lambda m, v: Tensor.tolist(v),
    "float": lambda m, v: float(v[0]),
    "int": lambda m, v: int(v[0]),
    "index": lambda m, v: [1, 2, 3][v[0].long()],
    "bool": lambda m, v: bool(v[0] > 0),
    "equal": lambda m, v: torch.equal(v, v),
    "allclose": lambda m, v: torch.allclose(v, v),
    "contains": lambda m, v: 1.0 in v,
    "is_nonzero": lambda m, v: torch.is_nonzero(v[0]),
    "numpy": lambda m, v: v.numpy(),
    "np.asarray": lambda m, v: __import__("numpy").asarray(v),
    "np.exp": lambda m, v: __import__("numpy").exp(v),
    "tensor": lambda m, v: torch.tensor([v[0], 1.0]),
    "from_dlpack": lambda m, v: torch.from_dlpack(v),
    "storage": lambda m, v: v.untyped_storage(),
    "iadd": lambda m, v: v.__iadd__(1),
    "into data": lambda m, v: torch.zeros(3, dtype=D).__iadd__(v),
    "setitem": lambda m, v: v.__setitem__(0, 1.0),
    "setitem of data": lambda m, v: torch.zeros(3, dtype=D).__setitem__(0, v[0]),
    "copy_": lambda m, v: torch.zeros(3, dtype=D).copy_(v),
    "mul_": lambda m, v: v.mul_(2),
    "out": lambda m, v: torch.add(v, 1, out=torch.zeros(3, dtype=D)),
    "inplace": lambda m, v: F.relu(v, inplace=True),
    "requires_grad_": lambda m, v: v.requires_grad_(),
    "set data": lambda m, v: setattr(v, "data", W),
    "subclass": lambda m, v: v.as_subclass(Tensor) + 1,
    "as_tensor and below": lambda m, v: below(torch.as_tensor(v)),
    "save": lambda m, v: torch._C._nn.gelu(v).item(),
}


def below(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return x + 1


def draw(seed: int, positive: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    m, v = (torch.randn(*shape, generator=generator, dtype=D) for shape in ((3, 4), (3,)))
    return (m.exp(), v.exp()) if positive else (m, v)


def delayed(seed: int, positive: bool = False) -> tuple[Delayed, Delayed]:
    m, v = draw(seed, positive)
    return Delayed.of_site("m", m, positive=positive), Delayed.of_site("v", v, positive=positive)


def at(value: Any, m: Tensor, v: Tensor) -> Tensor:
    return value.at({"m": m, "v": v}) if isinstance(value, Delayed) else torch.as_tensor(value)


@pytest.mark.parametrize("name", AFFINE)
def test_affine_functions_are_kept(name: str) -> None:
    found = AFFINE[name](*delayed(1))
    m, v = draw(2)
    torch.testing.assert_close(at(found, m, v), AFFINE[name](m, v), **EXACT)
    torch.testing.assert_close(found.probe, AFFINE[name](*draw(1)), **EXACT)


@pytest.mark.parametrize("name", POWERS)
def test_powers_of_positive_values_are_kept(name: str) -> None:
    found = POWERS[name](delayed(1, positive=True)[1])
    _, v = draw(2, positive=True)
    torch.testing.assert_close(at(found, v, v), POWERS[name](v), **EXACT)


@pytest.mark.parametrize("name", NOT_KEPT)
def test_other_functions_say_so(name: str) -> None:
    found = NOT_KEPT[name](*delayed(1))
    assert isinstance(found, Delayed)
    assert found.unknown is not None
    with pytest.raises(Exception, match=r"depends on site 'v'|depends on site 'm'"):
        found.at({"m": draw(2)[0], "v": draw(2)[1]})


@pytest.mark.parametrize("name", REFUSED)
def test_nobody_sees_the_probe(name: str) -> None:
    with pytest.raises((Exception), match=r"delayed"):
        REFUSED[name](*delayed(1))


def test_a_function_of_autograd_s_own_sees_a_delayed_value() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

    _, v = delayed(1)
    found: Any = Twice.apply(v)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(at(found, *draw(2)), 2 * draw(2)[1])


@given(st.lists(st.sampled_from(sorted(AFFINE)), min_size=2, max_size=3), st.integers(0, 1000))
@settings(max_examples=60)
def test_affine_functions_one_after_the_other(names: list[str], seed: int) -> None:
    def chained(m: Any, v: Any) -> Any:
        for name in names:
            result = AFFINE[name](m, v).reshape(-1)
            m = m * 0.5 + result.repeat(-(-12 // max(1, result.shape[0])))[:12].reshape(3, 4)
            v = v + m[:, 0]
        return m

    found = chained(*delayed(seed))
    m, v = draw(seed + 1)
    torch.testing.assert_close(at(found, m, v), chained(m, v), rtol=1e-9, atol=1e-9)


def test_coefficients_and_constants_keep_their_gradients() -> None:
    weight = W.clone().requires_grad_()

    def through(m: Any, v: Any) -> Any:
        joint = torch.stack([v @ weight, m.cumsum(1)[0] * weight[0]]) / weight[1, 1]
        return (
            torch.where(torch.tensor([[True], [False]]), joint, weight[2])
            - torch.kron(v, weight[0, :1]).sum()
        )

    found = through(*delayed(1))
    m, v = draw(2)
    (got,) = torch.autograd.grad(at(found, m, v).square().sum(), weight)
    (wanted,) = torch.autograd.grad(through(m, v).square().sum(), weight)
    torch.testing.assert_close(got, wanted)


def test_a_point_of_a_simplex_sums_to_one() -> None:
    p = Delayed.of_site("p", torch.tensor([[0.2, 0.8], [0.5, 0.5]]), simplex=True)
    assert not isinstance(p.sum(-1), Delayed)
    torch.testing.assert_close((3 * p).sum(-1), torch.full((2,), 3.0))
    assert isinstance(p.sum(0), Delayed)
    assert isinstance((torch.tensor([1.0, 2.0]) * p).sum(-1), Delayed)
    learned = torch.ones(2, requires_grad=True)
    assert isinstance((learned * p).sum(-1), Delayed)
