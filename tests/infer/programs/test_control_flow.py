"""Programs that Python steers by values of enumerated sites: one run for each value, put together again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

import sumout.distributions as dist
from sumout import condition, factor, infer, plate, poutine, sample
from sumout.effects.handlers.sequential import SequentialMessenger, is_sequential
from sumout.errors import (
    ControlFlowError,
    EnumerationError,
    EvidenceError,
    ImpossibleEvidenceError,
    PlateError,
)
from sumout.infer.programs import sequential
from sumout.infer.programs.sequential import sequential_runs

Flip = Callable[[str, float], Any]
See = Callable[[str, Any], None]
Told = Callable[[Flip, See], None]


# ------------------------------------------------------------------- programs told twice, and brute force


def to_sumout(told: Told) -> Callable[[], None]:
    """The program with ``sample`` for its coins, and a factor of observed probability for what is seen."""

    def model() -> None:
        def flip(name: str, bias: Any) -> Any:
            return sample(name, dist.Bernoulli(torch.as_tensor(bias, dtype=torch.float64)))

        def see(name: str, probability: Any) -> None:
            shown = dist.Bernoulli(torch.as_tensor(probability, dtype=torch.float64))
            sample(name, shown, obs=torch.tensor(1.0, dtype=torch.float64))

        told(flip, see)

    return model


def brute_force(told: Told) -> list[tuple[dict[str, int], float]]:
    """All runs of the program with their joint probabilities, by trying every sequence of choices."""
    found = []
    waiting: list[list[int]] = [[]]
    while waiting:
        taken, weight, open_choices = run_with(told, waiting.pop())
        found.append((taken, weight))
        waiting += open_choices
    return found


def run_with(told: Told, choices: list[int]) -> tuple[dict[str, int], float, list[list[int]]]:
    """A run that takes the given choices, and zeros after them; and the beginnings of those that take a one."""
    taken: dict[str, int] = {}
    weight = 1.0
    others: list[list[int]] = []

    def flip(name: str, bias: float) -> int:
        nonlocal weight
        before = list(taken.values())
        if len(before) >= len(choices):
            others.append([*before, 1])
        taken[name] = choices[len(before)] if len(before) < len(choices) else 0
        weight *= bias if taken[name] else 1 - bias
        return taken[name]

    def see(name: str, probability: float) -> None:
        nonlocal weight
        weight *= probability

    told(flip, see)
    return taken, weight, others


def check(told: Told, program: Callable[[], None], **options: Any) -> None:
    runs = brute_force(told)
    total = sum(weight for _, weight in runs)
    evidence = infer.log_evidence(program, **options)()
    assert evidence.item() == pytest.approx(math.log(total), rel=1e-9)
    found = infer.marginals(program, **options)()
    names = {name for taken, _ in runs for name in taken}
    assert set(found) == names
    assert found.log_evidence.item() == pytest.approx(math.log(total), rel=1e-9)
    for name in names:
        having = [(taken[name], weight) for taken, weight in runs if name in taken]
        present = sum(weight for _, weight in having)
        up = sum(weight for value, weight in having if value)
        assert found[name].probs.item() == pytest.approx(up / present, rel=1e-9)
        if hasattr(found, "presence"):
            assert found.presence[name].item() == pytest.approx(present / total, rel=1e-9)
    for pair in itertools.islice(itertools.combinations(sorted(names), 2), 6):
        both = [(taken, weight) for taken, weight in runs if all(name in taken for name in pair)]
        if not both:
            continue
        joint = infer.marginals(program, [pair], **options)()[pair].probs
        for states in itertools.product((0, 1), repeat=2):
            expected = sum(
                weight for taken, weight in both if tuple(taken[name] for name in pair) == states
            ) / sum(weight for _, weight in both)
            assert joint[states].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    best = infer.map_assignment(program, **options)()
    assert best.log_prob.item() == pytest.approx(math.log(max(weight for _, weight in runs)), rel=1e-9)
    chosen = {name: int(value) for name, value in best.items()}
    assert any(
        taken == chosen and weight == pytest.approx(best.log_prob.exp().item()) for taken, weight in runs
    )
    assert best.log_evidence.item() == pytest.approx(math.log(total), rel=1e-9)


@st.composite
def decisions(draw: st.DrawFn) -> Told:
    """A random program of coins: some bias others, some decide whether others are flipped."""
    bias = st.sampled_from([0.1, 0.25, 0.5, 0.8])
    steps = []
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["free", "biased", "if", "count"]))
        steps.append((number, kind, draw(st.integers(0, 4)), draw(bias), draw(bias), draw(st.booleans())))

    def told(flip: Flip, see: See) -> None:
        values: list[Any] = []
        for number, kind, back, one, other, observed in steps:
            before = values[back % len(values)] if values else None
            name = f"x_{number}"
            if kind == "free" or before is None:
                values.append(flip(name, one))
            elif kind == "biased":
                values.append(flip(name, one + (other - one) * before))
            elif kind == "if":
                if before == 1:
                    values.append(flip(name, one))
                    flip(f"only_{number}", other)
            else:
                values += [flip(f"{name}_{i}", one) for i in range(int(before) + 1)]
            if observed:
                see(f"o_{number}", 0.2 + 0.6 * values[-1] if values else 0.5)

    return told


@given(decisions())
@example_settings(max_examples=30)
def test_random_programs_that_decide_by_their_values(told: Told) -> None:
    program = to_sumout(told)
    check(told, program, enumeration="auto")
    check(told, infer.config_enumerate(program, default="sequential"))


# ------------------------------------------------------------------------------------- one by one

THIRDS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


def by_if() -> None:
    z = sample("z", dist.Bernoulli(0.3))
    sample("x", dist.Normal(1.0 if z else 0.0, 1.0), obs=torch.tensor(0.4))


def by_range() -> None:
    total = torch.tensor(0.0)
    for i in range(sample("z", dist.Categorical(THIRDS))):
        total = total + sample(f"w_{i}", dist.Bernoulli(0.3))
    sample("x", dist.Normal(total, 1.0), obs=torch.tensor(0.4))


def by_list() -> None:
    z = sample("z", dist.Categorical(THIRDS))
    sample("x", dist.Normal([0.0, 2.0, -1.0][z], 1.0), obs=torch.tensor(0.4))


def by_name() -> None:
    z = sample("z", dist.Categorical(THIRDS))
    sample(f"x_{z}", dist.Normal(z, 1.0), obs=torch.tensor(0.4))


def density(loc: float) -> float:
    return math.exp(-0.5 * (0.4 - loc) ** 2) / math.sqrt(2 * math.pi)


COUNTS = [density(0), 0.7 * density(0) + 0.3 * density(1)]
COUNTS.append(0.49 * density(0) + 0.42 * density(1) + 0.09 * density(2))
EVIDENCE = {
    by_if: 0.7 * density(0) + 0.3 * density(1),
    by_range: sum(float(p) * each for p, each in zip(THIRDS, COUNTS, strict=True)),
    by_list: 0.2 * density(0) + 0.3 * density(2) + 0.5 * density(-1),
    by_name: 0.2 * density(0) + 0.3 * density(1) + 0.5 * density(2),
}


@pytest.mark.parametrize("program", [by_if, by_range, by_list])
def test_under_parallel_enumeration_the_site_and_the_remedy_are_named(program: Any) -> None:
    with pytest.raises(ControlFlowError, match=r"'z'.*'auto'.*torch.where"):
        infer.log_evidence(program)()
    with pytest.raises(EnumerationError, match="'z'"):
        infer.marginals(infer.config_enumerate(program, default="parallel"), enumeration="auto")()


@pytest.mark.parametrize("program", list(EVIDENCE))
def test_every_kind_of_decision(program: Any) -> None:
    expected = math.log(EVIDENCE[program])
    marked = infer.config_enumerate(program, default="auto")
    for query in (
        infer.log_evidence(program, enumeration="auto"),
        infer.log_evidence(marked),
        infer.log_evidence(program, enumeration="sequential"),
    ):
        assert query().item() == pytest.approx(expected, rel=1e-6)


def test_only_sites_that_steer_are_sequential() -> None:
    def model() -> None:
        with plate("data", 3):
            w = sample("w", dist.Bernoulli(0.3))
        z = sample("z", dist.Bernoulli(0.2))
        v = sample("v", dist.Bernoulli(0.2 + 0.5 * z))
        with plate("again", 3):
            sample("x", dist.Normal(w + v if z else v, 1.0), obs=torch.zeros(3))

    def run() -> Any:
        return poutine.trace(poutine.enum(infer.config_enumerate(model, default="auto"), -2)).get_trace()

    runs = sequential_runs(run, {"z"})
    assert [list(each.sites) for each in runs] == [["z"], ["z"]]
    assert all(is_sequential(each.result.nodes["z"]) for each in runs)
    assert [site.enum_dim is not None for site in (runs[0].result.nodes[name] for name in "wzv")] == [
        True,
        False,
        True,
    ]


def test_a_sum_over_an_enumerated_plate() -> None:
    """What leaves a plate depends on all its elements at once: each joint value has a run."""

    def model() -> None:
        with plate("data", 4):
            z = sample("z", dist.Bernoulli(torch.tensor([0.1, 0.2, 0.5, 0.9], dtype=torch.float64)))
        sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(0.4, dtype=torch.float64))

    weights = {}
    for states in itertools.product((0, 1), repeat=4):
        prior = math.prod(p if s else 1 - p for p, s in zip([0.1, 0.2, 0.5, 0.9], states, strict=True))
        weights[states] = prior * density(sum(states))
    total = sum(weights.values())
    assert infer.log_evidence(model, enumeration="auto")().item() == pytest.approx(math.log(total), rel=1e-7)
    expected = [sum(w for states, w in weights.items() if states[i]) / total for i in range(4)]
    found = infer.marginals(model, enumeration="auto")()["z"]
    torch.testing.assert_close(found.probs, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-7)
    best = infer.map_assignment(model, enumeration="auto")()
    assert tuple(best["z"].int().tolist()) == max(weights, key=weights.__getitem__)
    with pytest.raises(EnumerationError, match="Site 'x'.*enumerate': 'auto'"):
        infer.log_evidence(model)()


def test_too_many_joint_values_are_refused_at_once() -> None:
    def model() -> None:
        with plate("data", 40):
            z = sample("z", dist.Bernoulli(0.3))
        sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(0.4))

    with pytest.raises(EnumerationError, match=r"Site 'z'.*2\*\*40 joint values"):
        infer.log_evidence(model, enumeration="auto")()


def test_a_decision_by_several_sites_and_by_parallel_ones() -> None:
    def model(mark: Any) -> None:
        a = sample("a", dist.Bernoulli(0.3))
        b = sample("b", dist.Bernoulli(0.2 + 0.5 * a), infer=mark)
        c = sample("c", dist.Bernoulli(0.2 + 0.5 * b))
        sample("x", dist.Normal(1.0 if a + b == 1 else c, 1.0), obs=torch.tensor(0.4))

    total = 0.0
    for a, b, c in itertools.product((0, 1), repeat=3):
        weight = (0.3 if a else 0.7) * (0.2 + 0.5 * a if b else 0.8 - 0.5 * a)
        weight *= 0.2 + 0.5 * b if c else 0.8 - 0.5 * b
        total += weight * density(1.0 if a + b == 1 else c)
    found = infer.log_evidence(model, enumeration="auto")({})
    assert found.item() == pytest.approx(math.log(total), rel=1e-6)
    with pytest.raises(ControlFlowError, match="'a' and 'b'"):
        infer.log_evidence(model, enumeration="auto")({"enumerate": "parallel"})
    assert infer.log_evidence(condition(model, data={"a": torch.tensor(1.0)}), enumeration="auto")(
        {}
    ).isfinite()


def test_samples_lack_what_their_run_lacks() -> None:
    torch.manual_seed(0)

    def model() -> None:
        z = sample("z", dist.Categorical(THIRDS))
        if z == 0:
            sample("count", dist.Categorical(THIRDS))
        elif z == 1:
            sample("coin", dist.Bernoulli(0.3))
        sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.4))

    drawn = infer.posterior_samples(model, 20000, enumeration="auto")()
    exact = infer.marginals(model, enumeration="auto")()
    assert drawn.present["z"].all()
    assert torch.equal(drawn.present["coin"], drawn["z"] == 1)
    assert torch.equal(drawn.present["count"], drawn["z"] == 0)
    assert torch.equal(drawn["coin"].isnan(), ~drawn.present["coin"])
    assert torch.equal(drawn["count"] == -1, ~drawn.present["count"])
    share = torch.bincount(drawn["z"], minlength=3) / 20000
    assert (share - exact["z"].probs).abs().max() < 0.015
    heads = drawn["coin"][drawn.present["coin"]].mean()
    assert abs(heads - 0.3) < 0.02
    for number in range(5):
        z = int(drawn["z"][number])
        weight = float(THIRDS[z]) * density(z)
        if z == 0:
            weight *= float(THIRDS[drawn["count"][number]])
        elif z == 1:
            weight *= 0.3 if drawn["coin"][number] else 0.7
        assert drawn.log_joint[number].item() == pytest.approx(math.log(weight), rel=1e-6)
    generator = torch.Generator().manual_seed(1)
    again = [
        infer.posterior_samples(model, 5, generator=generator.manual_seed(1), enumeration="auto")()["z"]
        for _ in range(2)
    ]
    assert torch.equal(*again)


def test_sites_in_runs_that_are_ruled_out() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(0.3))
        if z:
            sample("w", dist.Bernoulli(0.3))
            factor("contradiction", torch.tensor(-math.inf))

    found = infer.marginals(model, enumeration="auto")()
    assert (list(found), found["z"].probs.item()) == (["z"], 0.0)
    with pytest.raises(EvidenceError, match="'w' is only in runs"):
        infer.marginals(model, "w", enumeration="auto")()
    with pytest.raises(EvidenceError, match="'v'"):
        infer.marginals(model, "v", enumeration="auto")()
    with pytest.raises(ImpossibleEvidenceError):
        infer.marginals(condition(model, data={"z": torch.tensor(1.0)}), enumeration="auto")()


def test_what_has_no_answer_says_so() -> None:
    def shapes() -> None:
        z = sample("z", dist.Bernoulli(0.3))
        sample("w", dist.Categorical(THIRDS if z else THIRDS[:2]))

    with pytest.raises(EnumerationError, match=r"'w' has shape \(2,\) in one run .* and \(3,\)"):
        infer.marginals(shapes, enumeration="auto")()
    assert infer.marginals(shapes, "z", enumeration="auto")()["z"].probs.item() == pytest.approx(0.3)
    with pytest.raises(EnumerationError, match=r"sequentially \('z'\).*this query"):
        infer.factor_beliefs(infer.config_enumerate(by_if, default="auto"))()

    calls = itertools.count()

    def changing() -> None:
        sample(f"z_{next(calls)}", dist.Bernoulli(0.3))

    with pytest.raises(EnumerationError, match="not the same function"):
        infer.log_evidence(changing, enumeration="sequential", max_plate_nesting=0)()


def test_branches_that_mean_something_else_are_each_compared() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(0.3))
        with plate("data", 2):
            w = sample("w", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            loc = w if z == 0 else w.sum() + 0 * w
            sample("x", dist.Normal(loc, 1.0), obs=torch.zeros(2))

    with pytest.raises(EnumerationError, match="Site 'x'"):
        infer.log_evidence(model, enumeration="auto")()


def test_the_messenger_takes_up_where_runs_differ() -> None:
    each = SequentialMessenger({"a", "b", "c"})
    seen: list[Mapping[str, int]] = []
    more = True
    while more:
        with each:
            a = sample("a", dist.Bernoulli(0.5))
            values = {"a": int(a)}
            if a:
                values["b"] = int(sample("b", dist.Categorical(THIRDS)))
            else:
                values["c"] = int(sample("c", dist.Bernoulli(0.5)))
        seen.append(values)
        assert list(each.sites) == list(values)
        more = each.advance()
    assert seen == [{"a": 0, "c": 0}, {"a": 0, "c": 1}, *({"a": 1, "b": b} for b in range(3))]


def test_gradients_go_through_all_runs() -> None:
    bias = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def model() -> None:
        z = sample("z", dist.Bernoulli(bias))
        sample("x", dist.Normal(2 * bias if z else -bias, 1.0), obs=torch.tensor(0.4, dtype=torch.float64))

    def exact() -> torch.Tensor:
        logs = [
            dist.Normal(loc, 1.0).log_prob(torch.tensor(0.4, dtype=torch.float64))
            for loc in (-bias, 2 * bias)
        ]
        return torch.logsumexp(torch.stack([(1 - bias).log() + logs[0], bias.log() + logs[1]]), 0)

    ours = infer.log_evidence(model, enumeration="auto")()
    torch.testing.assert_close(ours, exact(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(ours, bias), torch.autograd.grad(exact(), bias), rtol=1e-9, atol=1e-9
    )


def test_all_runs_have_the_same_random_numbers() -> None:
    """One subsample for all of them; what comes later has other numbers, the same for the same seed."""
    data = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64)

    def model() -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
        with plate("data", 20, subsample_size=4) as indices:
            seen.append(indices)
            loc = 1.0 if z else -1.0
            sample("x", dist.Normal(loc, 1.0), obs=data[indices])

    after = []
    for _ in range(2):
        seen: list[torch.Tensor] = []
        torch.manual_seed(3)
        found = infer.log_evidence(model, enumeration="sequential", max_plate_nesting=1)()
        after.append((found, torch.rand(3)))
        assert len(seen) == 2
        assert torch.equal(*seen)
        logs = [dist.Normal(loc, 1.0).log_prob(data[seen[0]]).sum() * 5 for loc in (-1.0, 1.0)]
        expected = math.log(0.7 * math.exp(logs[0]) + 0.3 * math.exp(logs[1]))
        assert found.item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(after[0][0], after[1][0])
    assert torch.equal(after[0][1], after[1][1])
    torch.manual_seed(3)
    assert not torch.equal(after[0][1], torch.rand(3))


def test_a_value_of_a_plate_used_in_another_at_the_same_dim() -> None:
    """Plates are told apart by name, so this is refused in parallel; place by place it is what a plain run does."""
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    data = torch.tensor([0.3, 0.8, -0.2], dtype=torch.float64)

    def model() -> None:
        with plate("first", 3, dim=-1):
            z = sample("z", dist.Categorical(weights))
        with plate("second", 3, dim=-1):
            w = sample("w", dist.Bernoulli(0.2 + 0.5 * z.double()))
            sample("x", dist.Normal(w + z, 1.0), obs=data)

    expected = 0.0
    for x in data.tolist():
        expected += math.log(
            sum(
                float(weights[z])
                * (0.2 + 0.5 * z if w else 0.8 - 0.5 * z)
                * math.exp(-0.5 * (x - w - z) ** 2)
                / math.sqrt(2 * math.pi)
                for z, w in itertools.product((0, 1), repeat=2)
            )
        )
    assert infer.log_evidence(model, enumeration="auto")().item() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(PlateError, match="'z', which lives in plate 'first'"):
        infer.log_evidence(model)()


def test_too_many_runs_are_told_with_sites_plates_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions in the iterations of a plate multiply: nothing shows that one does not bear on the next."""

    def model(count: int) -> None:
        seen = 0.0
        for i in plate("data", count):
            if sample(f"z_{i}", dist.Bernoulli(0.5)):
                seen += 1.0
        sample("x", dist.Normal(seen, 1.0), obs=torch.tensor(3.0))

    exact = infer.log_evidence(model, enumeration="auto")(6)
    binomial = dist.Binomial(6, torch.tensor(0.5)).log_prob(torch.arange(7.0))
    likelihood = dist.Normal(torch.arange(7.0), 1.0).log_prob(torch.tensor(3.0))
    assert exact.item() == pytest.approx((binomial + likelihood).logsumexp(0).item(), abs=1e-5)
    monkeypatch.setattr(sequential, "_MANY_RUNS", 16)
    with pytest.warns(
        UserWarning, match=r"16 runs.* about 64 in all.*'z_0', .* .6 sites. in plate 'data' of size 6"
    ):
        assert infer.log_evidence(model, enumeration="auto")(6) == exact
    monkeypatch.setattr(sequential, "MOST_RUNS", 16)
    with pytest.raises(EnumerationError, match=r"More than 16 runs.*in plate 'data' of size 6.*'parallel'"):
        infer.log_evidence(model, enumeration="auto")(6)

    def leaving() -> None:
        with plate("rows", 20):
            z = sample("z", dist.Bernoulli(0.5))
        sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(3.0))

    with pytest.raises(
        EnumerationError, match=r"'z'.*2\*\*20 joint values.*20 elements in plate 'rows' .size 20"
    ):
        infer.log_evidence(leaving, enumeration="auto")()
