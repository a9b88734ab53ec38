"""Trees told by recursive functions: declaring the contexts with markov does not change the evidence."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout import Vindex, infer, markov, sample

Tree = list[Any]  # of trees
trees = st.recursive(st.just([]), lambda children: st.lists(children, max_size=3), max_leaves=6)

MOVE = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
PAIR = torch.tensor([[[0.1, 0.9], [0.5, 0.5]], [[0.8, 0.2], [0.35, 0.65]]], dtype=torch.float64)
SEEN = torch.tensor(0.3, dtype=torch.float64)


def count(tree: Tree) -> int:
    return 1 + sum(map(count, tree))


def program(tree: Tree, contexts: Any, siblings: bool) -> Any:
    """A node depends on its parent and, if wanted, on the sibling before it."""

    def run() -> None:
        def node(tree: Tree, name: str, up: Tensor, beside: Tensor) -> Tensor:
            x = sample(name, dist.Categorical(Vindex(PAIR)[up, beside] if siblings else MOVE[up]))
            before = torch.tensor(0)
            for number, child in enumerate(tree):
                before = visit(child, f"{name}{number}", x, before)
            sample(f"{name}_seen", dist.Normal(x, 1.0), obs=SEEN)
            return x

        visit = contexts(node)
        visit(tree, "n", torch.tensor(0), torch.tensor(0))

    return run


@given(trees.filter(lambda tree: count(tree) <= 10), st.booleans())
def test_contexts_of_a_tree_do_not_change_the_evidence(tree: Tree, keep: bool) -> None:
    expected = infer.log_evidence(program(tree, lambda node: node, siblings=False))()
    found = infer.log_evidence(program(tree, lambda node: markov(node, keep=keep), siblings=False))()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@given(trees.filter(lambda tree: count(tree) <= 10))
def test_kept_contexts_let_siblings_depend_on_each_other(tree: Tree) -> None:
    expected = infer.log_evidence(program(tree, lambda node: node, siblings=True))()
    found = infer.log_evidence(program(tree, lambda node: markov(node, keep=True), siblings=True))()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
