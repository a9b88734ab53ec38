"""A plan's steps run one by one in the plainest way: names are aligned, tables added, dimensions reduced."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sumout.plan import EliminationPlan


def interpret(plan: EliminationPlan, tables: Sequence[torch.Tensor], maximum: bool = False) -> torch.Tensor:
    """The plan's answer; with a batch, over all of its dimensions in their order.

    Args:
        plan: what is run.
        tables: log-tables of the structure's factors.
        maximum: whether everything is maximised.
    """
    sizes, batch = dict(plan.structure.sizes), plan.structure.batch
    nodes = [*tables, *[torch.zeros([sizes[each] for each in p.inputs]).double() for p in plan.probes]]
    dims = list(plan.elimination.dims)
    used: list[int] = []
    for step in plan.steps:
        used += step.args
        names = tuple(dict.fromkeys(name for arg in step.args for name in dims[arg]))
        joint = sum(aligned(nodes[arg], dims[arg], names) for arg in step.args)
        assert isinstance(joint, torch.Tensor)
        joint = joint.expand([sizes[each] for each in names])
        over = [names.index(each) for each in step.over]
        if step.kind == "product":
            joint = (joint.sum(over) if over else joint) * step.times
        elif over:
            joint = joint.amax(over) if maximum or step.maximum else joint.logsumexp(over)
        left = [each for each in names if each not in step.over]
        nodes.append(joint.permute([left.index(each) for each in step.out]))
    used += [total.node for total in plan.elimination.totals]
    assert sorted(used) == list(range(len(nodes)))  # Every table is used exactly once.
    answer = torch.zeros([sizes[each] for each in batch]).double()
    for node, weight in plan.elimination.totals:
        answer = answer + weight * aligned(nodes[node], dims[node], batch)
    return answer


def aligned(table: torch.Tensor, names: Sequence[str], wanted: Sequence[str]) -> torch.Tensor:
    """The table with one dimension for each of ``wanted``, of size one where it has none."""
    here = [each for each in wanted if each in names]
    table = table.permute([list(names).index(each) for each in here])
    return table.reshape([table.shape[here.index(each)] if each in here else 1 for each in wanted])
