"""A graph as text to read, and as DOT."""

from __future__ import annotations

import re

import torch
from hypothesis import given

from strategies import factor_graphs
from sumout.factors import Factor, FactorGraph, Plate, Variable


def graph() -> FactorGraph:
    return FactorGraph.from_tables(
        {
            "topic": (["topic"], torch.ones(2)),
            "word|topic": (["topic", "docs", "word"], torch.ones(2, 3, 4)),
            'a "quoted" one': (["word", "words"], torch.ones(4, 5)),
        },
        plates={"docs": Plate(3, 10.0), "words": 5},
        ordinals={"topic": ["docs"], "word": ["docs", "words"]},
        states={"topic": ["sports", "arts"]},
    )


def test_the_table() -> None:
    assert str(graph()).splitlines() == [
        "FactorGraph: 3 factors, 2 variables, 2 plates, 46 table entries",
        "",
        "plate  size  scale",
        "docs   3     10",
        "words  5     1",
        "",
        "variable  size  plates      states",
        "topic     2     docs        sports arts",
        "word      4     docs words",
        "",
        "factor          inputs           shape  plates",
        "topic           topic            2      docs",
        "word|topic      topic docs word  2x3x4  docs words",
        'a "quoted" one  word words       4x5    docs words',
    ]


def test_long_graphs_are_cut_and_scales_shown() -> None:
    factors = tuple(Factor(f"f{i}", ("x",), torch.zeros(2), scale=0.5) for i in range(100))
    text = str(FactorGraph(factors, {"x": Variable(2)}))
    assert "... 60 more" in text
    assert re.search(r"f0 +x +2 +0\.5", text)
    assert len(text.splitlines()) < 60


def test_dot_nests_plates_as_clusters() -> None:
    lines = [line.strip() for line in graph().to_dot().splitlines()]
    assert lines[0] == "graph {"
    outer = lines.index('label="docs (3)";')
    inner = lines.index('label="words (5)";')
    assert outer < lines.index(r'"v:topic" [label="topic\n2 states"];') < inner
    assert inner < lines.index(r'"f:2" [shape=box, label="a \"quoted\" one"];')
    edges = [line for line in lines if "--" in line]
    assert edges == [
        '"f:0" -- "v:topic";',
        '"f:1" -- "v:topic";',
        '"f:1" -- "v:word";',
        '"f:2" -- "v:word";',
    ]


@given(factor_graphs(scales=True))
def test_any_graph_can_be_shown(graph: FactorGraph) -> None:
    text, dot = str(graph), graph.to_dot()
    assert all(name in text for name in (*graph.variables, *graph.plates))
    assert dot.count("{") == dot.count("}")
    assert dot.count("shape=box") == len(graph.factors)
    assert dot.count("states") == len(graph.variables)
    assert dot.count(" -- ") == sum(name in graph.variables for f in graph.factors for name in f.inputs)
