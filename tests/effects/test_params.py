"""The parameter store."""

from __future__ import annotations

import io
import threading

import pytest
import torch

from sumout.distributions import constraints
from sumout.effects.params import ParamStore
from sumout.effects.primitives import clear_param_store, get_param_store, param
from sumout.errors import ModelError


def test_a_value_lies_in_its_constraint_and_its_leaf_does_not_need_to() -> None:
    store = ParamStore()
    rate = store.setdefault("rate", torch.tensor(2.0).double(), constraints.positive)
    leaf = rate.unconstrained()
    assert rate.item() == pytest.approx(2.0, abs=1e-15)
    assert leaf.item() == pytest.approx(torch.tensor(2.0).double().log().item(), abs=1e-15)
    assert leaf.is_leaf
    assert leaf.requires_grad
    with torch.no_grad():
        leaf.fill_(-30.0)
    assert store["rate"] > 0


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        (constraints.real, torch.randn(3)),
        (constraints.positive, torch.rand(3) + 0.1),
        (constraints.unit_interval, torch.tensor([0.1, 0.9])),
        (constraints.interval(-2.0, 5.0), torch.tensor([-1.0, 4.0])),
        (constraints.greater_than(3.0), torch.tensor([3.5])),
        (constraints.simplex, torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])),
        (constraints.lower_cholesky, torch.tensor([[1.0, 0.0], [0.5, 2.0]])),
        (constraints.positive_definite, torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
        (constraints.ordered_vector, torch.tensor([-1.0, 0.5, 2.0])),
    ],
)
def test_an_initial_value_is_kept(constraint: object, value: torch.Tensor) -> None:
    store = ParamStore()
    kept = store.setdefault("x", value.double(), constraint)
    torch.testing.assert_close(kept.detach(), value.double(), rtol=1e-6, atol=1e-9)
    assert kept.unconstrained() is dict(store.named_parameters())["x"]


def test_gradients_reach_the_leaf_through_the_transform() -> None:
    store = ParamStore()
    value = store.setdefault("rate", torch.tensor(2.0).double(), constraints.positive)
    (value**2).backward()
    # d/du exp(u)^2 = 2 exp(2 u), which is 2 * 2^2.
    assert value.unconstrained().grad.item() == pytest.approx(8.0, abs=1e-12)


def test_the_first_initial_value_counts_and_later_ones_are_not_made() -> None:
    store = ParamStore()
    store.setdefault("x", lambda: torch.tensor(1.0))

    def never() -> torch.Tensor:
        raise RuntimeError("made again")

    assert store.setdefault("x", never).item() == 1.0


def test_a_failing_initial_value_leaves_no_trace() -> None:
    store = ParamStore()
    with pytest.raises(ZeroDivisionError):
        store.setdefault("x", lambda: 1 / 0)
    assert "x" not in store
    assert len(store) == 0


def test_the_callers_tensor_is_not_changed_by_training() -> None:
    store, start = ParamStore(), torch.zeros(2)
    store.setdefault("a", start)
    store.setdefault("b", start)
    with torch.no_grad():
        store["a"].unconstrained().add_(1.0)
    assert start.tolist() == [0.0, 0.0]
    assert not start.requires_grad
    assert store["b"].tolist() == [0.0, 0.0]


def test_a_tensor_that_requires_a_gradient_is_the_parameter_itself() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    assert ParamStore().setdefault("w", weight) is weight


def test_a_computed_tensor_becomes_a_leaf() -> None:
    store = ParamStore()
    store["x"] = torch.zeros(2, requires_grad=True) + 1.0
    assert store["x"].is_leaf


@pytest.mark.parametrize(
    ("constraint", "value"),
    [(constraints.positive, -1.0), (constraints.unit_interval, 1.5), (constraints.unit_interval, -0.5)],
)
def test_an_initial_value_outside_of_its_constraint_is_an_error(constraint: object, value: float) -> None:
    store = ParamStore()
    with pytest.raises(ModelError, match="'p' starts outside of its constraint"):
        store.setdefault("p", torch.tensor(value), constraint)
    assert "p" not in store


def test_integers_cannot_be_trained() -> None:
    with pytest.raises(ModelError, match=r"'n' starts as torch\.int64"):
        ParamStore().setdefault("n", torch.tensor(3))


def test_it_is_a_mapping() -> None:
    store = ParamStore()
    store["a"] = torch.tensor(1.0)
    store.setdefault("b", torch.tensor(2.0), constraints.positive)
    assert list(store) == list(store.keys()) == ["a", "b"]
    assert len(store) == 2
    assert {name: round(value.item(), 6) for name, value in store.items()} == {"a": 1.0, "b": 2.0}
    assert [round(value.item(), 6) for value in store.values()] == [1.0, 2.0]
    assert bool(store)
    assert not ParamStore()
    assert list(store.match("b|c")) == ["b"]
    assert store.param_name(store["a"].unconstrained()) == "a"
    assert store.param_name(torch.zeros(())) is None
    del store["a"]
    assert list(store) == ["b"]
    store.clear()
    assert list(store) == []


def test_setting_a_value_keeps_the_constraint() -> None:
    store = ParamStore()
    store.setdefault("b", torch.tensor(2.0), constraints.positive)
    store["b"] = torch.tensor(5.0)
    assert store["b"].item() == pytest.approx(5.0)
    assert store["b"].unconstrained().item() == pytest.approx(torch.tensor(5.0).log().item())


def test_a_missing_parameter_is_named_with_its_neighbours() -> None:
    store = ParamStore()
    store["weight"] = torch.tensor(1.0)
    with pytest.raises(KeyError, match="'wieght'.*Did you mean 'weight'"):
        store["wieght"]


def test_saved_is_loaded() -> None:
    store, file = ParamStore(), io.BytesIO()
    store.setdefault("p", torch.tensor([0.2, 0.8]).double(), constraints.simplex)
    store["w"] = torch.nn.Parameter(torch.randn(3))
    store.save(file)
    file.seek(0)
    other = ParamStore()
    other.load(file)
    assert list(other) == ["p", "w"]
    torch.testing.assert_close(other["p"], store["p"], rtol=0, atol=0)
    assert other["w"].unconstrained().requires_grad
    other["p"] = torch.tensor([0.5, 0.5]).double()  # the constraint came along
    assert other["p"].sum().item() == pytest.approx(1.0, abs=1e-15)


def test_a_state_is_a_copy_both_ways() -> None:
    """What is learnt after it was taken does not change it, and it can be gone back to again and again."""
    store = ParamStore()
    shared = torch.nn.Parameter(torch.ones(2))
    store["one"], store["two"] = shared, shared
    rate = store.setdefault("rate", torch.tensor(2.0).double(), constraints.positive)
    before = store.get_state()
    for _ in range(2):
        for _, leaf in store.named_parameters():
            leaf.data.add_(1.0)
        assert before["params"]["rate"].item() == pytest.approx(torch.tensor(2.0).log().item())
        assert not any(each.requires_grad for each in before["params"].values())
        store.set_state(before)
        assert store["rate"].item() == pytest.approx(2.0)
        assert all(leaf.requires_grad and leaf.is_leaf for _, leaf in store.named_parameters())
    assert store["one"] is store["two"] is shared  # a module's own parameter takes the value
    assert shared.tolist() == [1.0, 1.0]
    assert rate.unconstrained() is None or rate.unconstrained() is not store["rate"].unconstrained()
    other = ParamStore()
    other.set_state(before)
    assert other["one"] is other["two"] is not shared  # one tensor under two names stays one
    with pytest.raises(ModelError, match=r"'one' has shape \(2,\).*\(3,\) in the module"):
        other["one"] = torch.nn.Parameter(torch.ones(3))
        other.set_state(before)


def test_values_that_are_held_stay_parameters_when_a_state_is_taken() -> None:
    store = ParamStore()
    value = store.setdefault("w", torch.zeros(2))
    store.get_state()
    assert value.unconstrained() is dict(store.named_parameters())["w"]


def test_a_malformed_state_is_an_error() -> None:
    with pytest.raises(ModelError, match="'params' and 'constraints'"):
        ParamStore().set_state({"weights": {}})  # type: ignore[typeddict-item]


def test_a_scope_starts_empty_and_ends_with_what_was_before() -> None:
    store = ParamStore()
    store["a"] = torch.tensor(1.0)
    with store.scope() as first:
        assert list(store) == []
        store["b"] = torch.tensor(2.0)
        with store.scope():
            store["c"] = torch.tensor(3.0)
        assert list(store) == ["b"]
    assert list(store) == ["a"]
    assert list(first["params"]) == ["b"]
    with store.scope(first):
        assert store["b"].item() == 2.0


def test_a_scope_is_left_after_an_error() -> None:
    store = ParamStore()
    with pytest.raises(ZeroDivisionError), store.scope():
        store["b"] = torch.tensor(2.0)
        _ = 1 / 0
    assert list(store) == []


def test_a_scope_holds_in_its_thread_alone() -> None:
    store, seen = ParamStore(), list[list[str]]()
    store["shared"] = torch.tensor(1.0)
    with store.scope():
        store["mine"] = torch.tensor(2.0)
        other = threading.Thread(target=lambda: seen.append(list(store)))
        other.start()
        other.join()
    assert seen == [["shared"]]


def test_threads_that_start_together_agree_on_one_initial_value() -> None:
    store, ready, got = ParamStore(), threading.Barrier(8), list[float]()

    def start(number: int) -> None:
        ready.wait()
        got.append(store.setdefault("x", lambda: torch.tensor(float(number))).item())

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(got)) == 1


def test_the_statement_and_its_store() -> None:
    with get_param_store().scope():
        value = param("rate", lambda: torch.tensor(2.0), constraints.positive)
        assert param("rate").unconstrained() is value.unconstrained()
        assert list(get_param_store()) == ["rate"]
        clear_param_store()
        assert list(get_param_store()) == []
        with pytest.raises(KeyError):
            param("rate")
