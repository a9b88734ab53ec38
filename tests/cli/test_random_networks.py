"""Whatever small network and evidence: the command's answers against all assignments, alone and in rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sumout.cli import main

Joint = np.ndarray[Any, np.dtype[np.float64]]


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, Joint]:
    """A Markov network as UAI, and the table of all its assignments."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    nodes = st.lists(st.sampled_from(range(len(sizes))), max_size=3, unique=True)
    joint, scopes, tables = np.ones(sizes), [], []
    for scope in draw(st.lists(nodes, max_size=4)):
        shape = [sizes[node] for node in scope]
        weight = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.25])
        entries = draw(st.lists(weight, min_size=math.prod(shape), max_size=math.prod(shape)))
        order = np.argsort(scope)
        table = np.reshape(entries, shape).transpose(order) if scope else np.array(entries[0])
        joint = joint * table.reshape([size if node in scope else 1 for node, size in enumerate(sizes)])
        scopes.append(" ".join(map(str, [len(scope), *scope])))
        tables.append(" ".join(map(str, [len(entries), *entries])))
    head = f"MARKOV {len(sizes)} {' '.join(map(str, sizes))} {len(scopes)}"
    return " ".join([head, *scopes, *tables]), joint


def check(found: Mapping[str, Any], joint: Joint, seen: Mapping[int, int]) -> None:
    """Compares one answer with the table."""
    mask = np.ones(joint.shape)
    for node, state in seen.items():
        only = np.arange(joint.shape[node]) == state
        mask = mask * only.reshape([-1 if place == node else 1 for place in range(joint.ndim)])
    rest = joint * mask
    assert found["evidence"] == {str(node): str(state) for node, state in sorted(seen.items())}
    assert found["possible"] == (rest.sum() > 0)
    if not found["possible"]:
        assert set(found) == {"task", "possible", "log_evidence", "log10_evidence", "evidence"}
        return
    assert found["log_evidence"] == pytest.approx(math.log(rest.sum()), rel=0, abs=1e-9)
    if found["task"] == "mar":
        for node in range(joint.ndim):
            others = tuple(place for place in range(joint.ndim) if place != node)
            expected = rest.sum(others) / rest.sum()
            assert list(found["marginals"][str(node)].values()) == pytest.approx(
                expected.tolist(), rel=0, abs=1e-9
            )
    if found["task"] == "map":
        assert found["log_prob"] == pytest.approx(math.log(rest.max()), rel=0, abs=1e-9)
        place = tuple(int(found["assignment"][str(node)]) for node in range(joint.ndim))
        assert rest[place] == pytest.approx(rest.max(), rel=1e-12)
    if found["task"] == "entropy":
        probs = rest[rest > 0] / rest.sum()
        assert found["entropy"] == pytest.approx(-(probs * np.log(probs)).sum(), rel=0, abs=1e-9)


@given(network=networks(), task=st.sampled_from(["pr", "mar", "map", "entropy"]), data=st.data())
def test_answers(
    tmp_path_factory: pytest.TempPathFactory, network: tuple[str, Joint], task: str, data: st.DataObject
) -> None:
    text, joint = network
    folder = tmp_path_factory.getbasetemp()
    path, table = folder / "random.uai", folder / "random.csv"
    path.write_text(text)
    states = st.fixed_dictionaries(
        {}, optional={node: st.integers(0, size - 1) for node, size in enumerate(joint.shape)}
    )
    rows = data.draw(st.lists(states, max_size=4))
    names = [*range(joint.ndim)]
    lines = [",".join(f'"{row.get(node, "")}"' for node in names) for row in rows]
    table.write_text("\n".join([",".join(map(str, names)), *lines]) + "\n")
    answers = json.loads(output(path, "--task", task, "--csv", str(table)))
    assert len(answers) == len(rows)
    for row, found in zip(rows, answers, strict=True):
        check(found, joint, row)
    if rows and (answers[0]["possible"] or task == "pr"):
        given = [f"{node}={state}" for node, state in rows[0].items()]
        alone = output(path, "--task", task, *(["--evidence", *given] if given else []))
        check(json.loads(alone), joint, rows[0])


def output(path: Path, *args: str) -> str:
    result = CliRunner().invoke(main, ["query", str(path), *args, "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout
