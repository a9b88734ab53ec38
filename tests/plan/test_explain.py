"""What a plan says of itself: in words, as DOT and as a picture."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sumout.errors import MissingExtraError
from sumout.factors import FactorGraph
from sumout.plan import FactorShape, Structure, make_plan
from sumout.plan.show import drawn


def square(states: int = 3) -> Structure:
    return Structure(
        (*[FactorShape(tuple(pair)) for pair in ("ab", "bc", "cd", "da")], FactorShape(("a", "leaf"))),
        (*[(name, states) for name in "abcd"], ("leaf", 7)),
        tuple((name, frozenset()) for name in ("a", "b", "c", "d", "leaf")),
    )


def test_every_figure_is_the_plans() -> None:
    plan = make_plan(square())
    text = plan.explain()
    assert f"{plan.flops:,} multiply-adds" in text
    assert f"{plan.cost.launches:,} groups of {len(plan.steps):,} steps" in text
    assert f"{plan.largest:,} entries over {', '.join(plan.largest_dims)}" in text
    assert re.search(rf"induced width +{plan.width}\n", text)
    assert "Simplified: 1 variable summed out of the only table that has it" in text
    assert "Simplified: 4 variables eliminated first" in text
    for each in plan.considered:
        assert re.search(rf"^{each.order} .*{each.launches}", text, re.MULTILINE)
    assert text.count("chosen: the cheapest") == 1
    assert re.search(rf"^{plan.order} .*chosen: the cheapest$", text, re.MULTILINE)


def test_every_step_is_listed_with_its_flops() -> None:
    plan = make_plan(square())
    lines = plan.explain().split("\n\n")[-1].splitlines()[2:]
    assert len(lines) == len(plan.steps)
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == plan.cost.flops


def test_constraints_and_powers_are_told() -> None:
    text = make_plan(square(), maximised=("c", "d")).explain()
    assert "Constrained: c, d maximised after all others are summed out" in text
    assert re.search(r"\bmax +", text)
    plated = Structure(
        (FactorShape(("z", "i"), frozenset("i")),),
        (("z", 2), ("i", 4)),
        (("z", frozenset("i")),),
        (("i", 2.5),),
    )
    assert "product to the power 2.5" in make_plan(plated).explain()


def test_slices_are_told() -> None:
    whole = make_plan(square(60))
    plan = make_plan(square(60), memory_limit=whole.bytes() // 4)
    assert f"Sliced: {plan.sliced[0][0]}" in plan.explain()
    assert f"{plan.slices:,} joint states" in plan.explain()
    assert f"{plan.slices:,} slices over" in str(plan)


def test_dot_is_the_elimination_tree() -> None:
    plan = make_plan(square())
    lines = plan.to_dot().splitlines()
    assert (lines[0], lines[-1]) == ("digraph {", "}")
    edges = [line for line in lines if "->" in line]
    nodes = len(plan.structure.factors) + len(plan.steps)
    assert len(edges) == nodes  # Each node is used once, the last one by the answer.
    assert sum("shape=box" in line for line in lines) == len(plan.structure.factors)


def test_names_are_quoted() -> None:
    odd = Structure((FactorShape(('x"\\',)),), (('x"\\', 2),), (('x"\\', frozenset()),))
    assert r"x\"\\" in make_plan(odd).to_dot()


@pytest.mark.skipif(shutil.which("dot") is None, reason="the program dot is not installed")
def test_dot_reads_it(tmp_path: Path) -> None:
    made = subprocess.run(
        ["dot", "-Tsvg"], input=make_plan(square()).to_dot(), capture_output=True, text=True
    )
    assert made.returncode == 0
    assert made.stderr == ""


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    plan = make_plan(square())
    with pytest.raises(MissingExtraError, match=r"Drawing needs.*sumout\[draw\]"):
        plan.draw()
    assert plan._repr_svg_() is None


class _Graphviz:
    """The parts of the package that are used, with or without the program."""

    class ExecutableNotFound(Exception):
        pass

    def __init__(self, program: bool) -> None:
        self.program = program

    def Source(self, text: str) -> _Source:
        return _Source(text, self)


class _Source:
    def __init__(self, text: str, package: _Graphviz) -> None:
        self.text, self.package = text, package

    def pipe(self, format: str, encoding: str | None = None) -> str | bytes:
        if not self.package.program:
            raise self.package.ExecutableNotFound
        made = f"<{format}>{self.text}"
        return made if encoding else made.encode()


def test_a_picture_is_written_in_the_format_of_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", _Graphviz(program=True))
    plan = make_plan(square())
    assert plan.draw(tmp_path / "tree.png") == f"<svg>{plan.to_dot()}"
    assert (tmp_path / "tree.png").read_text() == f"<png>{plan.to_dot()}"
    assert plan._repr_svg_() == f"<svg>{plan.to_dot()}"


def test_without_the_program_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", _Graphviz(program=False))
    with pytest.raises(MissingExtraError, match=r"program dot"):
        drawn("graph {}", None)
    assert make_plan(square())._repr_svg_() is None


def test_a_factor_graph_is_drawn_likewise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = FactorGraph.from_tables({"coin": (["side"], [0.5, 0.5])})
    monkeypatch.setitem(sys.modules, "graphviz", _Graphviz(program=True))
    assert graph.draw(tmp_path / "graph.pdf") == graph._repr_svg_() == f"<svg>{graph.to_dot()}"
    assert (tmp_path / "graph.pdf").read_text() == f"<pdf>{graph.to_dot()}"
    monkeypatch.setitem(sys.modules, "graphviz", None)
    assert graph._repr_svg_() is None
    with pytest.raises(MissingExtraError, match=r"sumout\[draw\]"):
        graph.draw()


def test_large_ones_are_not_drawn_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", _Graphviz(program=True))
    many = Structure(
        tuple(FactorShape((f"x{t}", f"x{t + 1}")) for t in range(400)),
        tuple((f"x{t}", 2) for t in range(401)),
        tuple((f"x{t}", frozenset()) for t in range(401)),
    )
    assert make_plan(many)._repr_svg_() is None
    assert make_plan(many).draw().startswith("<svg>")


def test_two_plans_side_by_side() -> None:
    one, other = make_plan(square()), make_plan(square(6))
    lines = one.compare(other).splitlines()
    assert re.search(rf"^flops +{one.flops} +{other.flops} +{other.flops / one.flops:.3g} times$", lines[1])
    assert lines[-1] == "They were made for different structures."
    same = one.compare(one)
    assert "times" not in same
    assert "different" not in same


def test_what_was_eliminated_first_is_told_only_of_orders_that_do_so() -> None:
    chain = Structure(
        tuple([FactorShape((f"x{t}", f"x{t + 1}")) for t in range(100)]),
        tuple([(f"x{t}", 3) for t in range(101)]),
        tuple([(f"x{t}", frozenset()) for t in range(101)]),
    )
    assert "eliminated first" not in make_plan(chain, orders=("balanced",)).explain()
    assert "eliminated first" in make_plan(chain, orders=("min_fill",)).explain()


def test_parts_that_share_nothing_are_counted() -> None:
    two = Structure(
        tuple([FactorShape(each) for each in ("ab", "cd")]),
        tuple([(name, 2) for name in "abcd"]),
        tuple([(name, frozenset()) for name in "abcd"]),
    )
    assert "Split: 2 parts that share no variable" in make_plan(two).explain()
    assert "Split" not in make_plan(square()).explain()
