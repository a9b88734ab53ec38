from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects import CondIndepStackFrame, Message


def normal_site(**fields: Any) -> Message:
    fn = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    value = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    return Message(**{"type": "sample", "name": "z", "fn": fn, "value": value, **fields})


class TestMapping:
    def test_fields_are_keys(self) -> None:
        site = Message(type="sample", name="z", value=3)
        assert site["type"] == site.type == "sample"
        assert site["value"] == site.get("value") == 3
        assert "scale" in site
        assert set(site) >= {"type", "name", "fn", "args", "kwargs", "value", "is_observed", "infer", "scale"}
        assert set(site) >= {"mask", "cond_indep_stack", "done", "stop", "continuation"}

    def test_assigning_by_key_and_by_attribute_is_the_same(self) -> None:
        site = Message()
        site["value"] = 1
        assert site.value == 1
        site.value = 2
        assert site["value"] == 2

    def test_unknown_keys_are_kept(self) -> None:
        site = Message()
        assert "colour" not in site
        assert site.get("colour", "none") == "none"
        with pytest.raises(KeyError):
            site["colour"]
        site["colour"] = "red"
        assert site["colour"] == "red"
        assert "colour" in list(site)
        assert site.setdefault("colour", "blue") == "red"
        assert site.pop("colour") == "red"
        assert "colour" not in site
        with pytest.raises(KeyError):
            del site["colour"]

    def test_unknown_keys_may_be_given_at_once(self) -> None:
        score = torch.tensor(-1.0)
        site = Message(type="sample", name="z", value=1.0, obs=None, log_prob=score, fn=dist.Normal(0.0, 1.0))
        assert "obs" in site
        assert site["obs"] is None
        assert site["log_prob"] is score
        assert set(site) - set(Message()) == {"obs", "log_prob"}
        with pytest.raises(TypeError):
            Message("sample", type="sample")  # type: ignore[misc]

    def test_a_field_cannot_be_removed(self) -> None:
        with pytest.raises(TypeError, match="'value' is part of every site"):
            del Message()["value"]

    def test_unpacks_and_updates_like_a_dictionary(self) -> None:
        site = Message(type="sample", name="z")
        site["colour"] = "red"
        assert dict(**site) == dict(site)
        assert len(site) == len(list(site)) == len(dict(site))
        site.update(value=4, colour="blue")
        assert (site.value, site["colour"]) == (4, "blue")
        assert Message.of({**site, "value": 5})["value"] == 5

    def test_is_united_with_dictionaries_like_one(self) -> None:
        site = Message(type="sample", name="z", value=1.0)
        site["colour"] = "red"
        updated = site | {"value": 2.0, "size": 3}
        assert isinstance(updated, Message)
        assert (updated.value, updated["size"], updated["colour"]) == (2.0, 3, "red")
        assert site.value == 1.0
        assert "size" not in site
        both = site | Message(name="y")
        assert (both.name, both.type, both["colour"]) == ("y", "", "red")
        united = {"value": 5.0, "own": 1} | site
        assert type(united) is dict
        assert united == {"own": 1, **site}
        same = site
        same |= {"value": 4.0}
        assert same is site
        assert site.value == 4.0
        with pytest.raises(TypeError):
            site | 3  # type: ignore[operator]
        with pytest.raises(TypeError):
            3 | site  # type: ignore[operator]

    def test_other_attributes_are_refused(self) -> None:
        with pytest.raises(AttributeError):
            Message().colour = "red"  # type: ignore[attr-defined]

    def test_defaults_are_not_shared(self) -> None:
        one, other = Message(), Message()
        one.infer["a"] = 1
        one.kwargs["b"] = 2
        assert other.infer == {}
        assert other.kwargs == {}


class TestCopy:
    @pytest.mark.parametrize("copied", [Message.copy, copy.copy, Message.of])
    def test_edits_of_a_copy_stay_there(self, copied: Callable[[Message], Message]) -> None:
        site = normal_site(infer={"a": 1}, kwargs={})
        site["colour"] = "red"
        other = copied(site)
        assert other["colour"] == "red"
        other.infer["a"] = 2
        other.kwargs["k"] = 1
        other["colour"] = "blue"
        other.value = None
        assert (site.infer, site.kwargs, site["colour"]) == ({"a": 1}, {}, "red")
        assert site.value is not None

    def test_knows_the_same_log_prob_until_edited(self) -> None:
        site = normal_site()
        known = site["log_prob"]
        other = site.copy()
        assert other["log_prob"] is known
        other["log_prob"] = torch.ones(3)
        assert site["log_prob"] is known

    def test_copies_every_field(self) -> None:
        frame = CondIndepStackFrame("p", -1, 3)
        site = Message(
            "sample", "z", dist.Normal(0.0, 1.0), (1,), {"k": 2}, 3, True, {"i": 4}, 5.0, True, (frame,), True, True
        )  # fmt: skip
        site.continuation, site.enum_dim, site.enum_dims = print, -2, {-2: "z"}
        assert dict(site.copy()) == dict(site)

    def test_pickles(self) -> None:
        site = normal_site()
        site["colour"] = "red"
        assert float(site["log_prob_sum"]) == pytest.approx(-5.25681559, abs=1e-8)
        restored = pickle.loads(pickle.dumps(site))
        assert restored["colour"] == "red"
        assert torch.equal(restored["log_prob"], site["log_prob"])
        restored.value.add_(1.0)
        assert float(restored["log_prob_sum"]) != float(site["log_prob_sum"])
        assert torch.equal(copy.deepcopy(site)["log_prob"], site["log_prob"])


def log_normal(value: torch.Tensor, loc: Any = 0.0, scale: Any = 1.0) -> torch.Tensor:
    loc, scale = torch.as_tensor(loc), torch.as_tensor(scale, dtype=value.dtype)
    return -0.5 * ((value - loc) / scale) ** 2 - scale.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))


class TestLogProb:
    def test_is_the_densitys_logarithm(self) -> None:
        site = normal_site(scale=2.0, mask=torch.tensor([True, False, True]))
        expected = log_normal(site.value)
        assert torch.allclose(site["unscaled_log_prob"], expected, atol=1e-7)
        expected = torch.where(site.mask, 2 * expected, torch.zeros(3))
        assert torch.allclose(site["log_prob"], expected, atol=1e-7)
        assert torch.allclose(site["log_prob_sum"], expected.sum(), atol=1e-7)

    def test_is_listed_once_read(self) -> None:
        site = normal_site()
        assert "log_prob" not in site
        site["log_prob"]
        assert "log_prob" in site
        assert "log_prob" in list(site)
        assert len(site) == len(dict(**site))

    def test_is_kept_while_nothing_changes(self) -> None:
        site = normal_site()
        assert site["log_prob"] is site["log_prob"]
        site["colour"] = "red"
        site.infer["a"] = 1
        _ = site.fn.variance, site.fn.mean
        assert site["log_prob"] is site["log_prob"]

    @pytest.mark.parametrize(
        "edit",
        [
            lambda site: site.update(value=site.value + 1.0),
            lambda site: setattr(site, "value", site.value * 3.0),
            lambda site: site.value.add_(1.0),
            lambda site: site.value[1:].zero_(),
            lambda site: site.update(scale=3.0),
            lambda site: site.update(scale=torch.tensor(3.0)),
            lambda site: site.update(mask=False),
            lambda site: site.update(mask=torch.tensor([False, True, True])),
            lambda site: site.update(fn=dist.Normal(site.fn.loc, 2.0)),
            lambda site: site.fn.loc.add_(1.0),
            lambda site: setattr(site.fn, "loc", site.fn.loc + 1.0),
            lambda site: site.fn.scale.copy_(2.0 + site.fn.scale),
        ],
    )
    def test_follows_every_edit(self, edit: Callable[[Message], None]) -> None:
        site = normal_site(
            fn=dist.Normal(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        )
        site["log_prob_sum"]
        edit(site)
        assert "log_prob" not in site
        assert "log_prob_sum" not in dict(**site)
        fn = dist.Normal(site.fn.loc, site.fn.scale)
        anew = Message(type="sample", fn=fn, value=site.value, scale=site.scale, mask=site.mask)
        assert torch.equal(site["log_prob"], anew["log_prob"])
        assert torch.equal(site["log_prob_sum"], anew["log_prob"].sum())

    @pytest.mark.parametrize("container", ["mask", "scale"])
    def test_follows_changes_inside_mask_and_scale(self, container: str) -> None:
        tensor = torch.tensor([True, True, False]) if container == "mask" else torch.ones(3)
        site = normal_site(**{container: tensor})
        before = site["log_prob"].clone()
        tensor[0] = 0
        assert not torch.equal(site["log_prob"], before)
        assert site["log_prob"][0] == 0

    def test_follows_changes_deep_inside_the_distribution(self) -> None:
        loc = torch.zeros(3, 2)
        base = dist.Normal(loc, 1.0)
        moved = dist.TransformedDistribution(base, [torch.distributions.transforms.ExpTransform()])
        for fn in (
            base.to_event(1),
            base.mask(torch.tensor(True)),
            base.expand([4, 3, 2]).to_event(2),
            moved,
        ):
            site = Message(type="sample", fn=fn, value=torch.ones(fn.shape()))
            before = site["log_prob_sum"].clone()
            loc.sub_(1.0)
            assert not torch.equal(site["log_prob_sum"], before)

    def test_follows_changes_of_arguments(self) -> None:
        class Shifted(dist.Normal):  # type: ignore[misc]
            def log_prob(self, value: torch.Tensor, shift: Any = 0.0) -> Any:
                return super().log_prob(value - shift)

        shift = torch.tensor(1.0)
        for arguments in ({"args": (shift,)}, {"kwargs": {"shift": shift}}):
            site = Message(type="sample", fn=Shifted(0.0, 1.0), value=torch.tensor(0.0), **arguments)
            before = site["log_prob"].clone()
            shift.add_(1.0)
            assert site["log_prob"] < before
        site.kwargs["shift"] = torch.tensor(0.0)
        assert site["log_prob"] > before

    def test_assigned_values_hold_and_lead_to_the_others(self) -> None:
        site = normal_site(scale=2.0)
        site["log_prob"] = torch.full((3,), 7.0)
        assert site["log_prob_sum"] == 21
        site["unscaled_log_prob"] = torch.full((3,), 7.0)
        assert site["log_prob_sum"] == 21
        other = normal_site(scale=2.0)
        other["unscaled_log_prob"] = torch.full((3,), 7.0)
        assert other["log_prob_sum"] == 42

    def test_assigned_values_are_dropped_when_the_site_changes(self) -> None:
        site = normal_site()
        site["log_prob"] = torch.full((3,), 7.0)
        site["packed"] = {"log_prob": site["log_prob"]}
        site.value = site.value + 1
        assert "log_prob" not in site
        assert "packed" not in site
        with pytest.raises(KeyError):
            site["packed"]
        assert torch.allclose(site["log_prob"], log_normal(site.value), atol=1e-7)

    def test_assigned_values_survive_what_distributions_remember(self) -> None:
        site = Message(type="sample", fn=dist.Categorical(torch.tensor([0.2, 0.8])), value=torch.tensor(1))
        site["log_prob"] = torch.tensor(7.0)
        _ = site.fn.logits  # computed and stored in the distribution now
        assert site["log_prob"] == 7

    def test_is_computed_again_where_gradients_are_wanted(self) -> None:
        loc = torch.tensor(0.5, requires_grad=True)
        site = Message(type="sample", fn=dist.Normal(loc, 1.0), value=torch.tensor(1.0))
        with torch.no_grad():
            assert not site["log_prob"].requires_grad
            assert site["log_prob"] is site["log_prob"]
        assert "log_prob" in site
        (gradient,) = torch.autograd.grad(site["log_prob"], loc)
        assert gradient == 0.5

    def test_is_never_stale_in_inference_mode(self) -> None:
        with torch.inference_mode():
            site = normal_site(value=torch.zeros(3))
            before = site["log_prob"].clone()
            site.value.add_(1.0)
            assert torch.allclose(site["log_prob"], before - 0.5)
            site["log_prob"] = torch.ones(3)
            assert torch.equal(site["log_prob"], torch.ones(3))

    def test_of_a_plain_number(self) -> None:
        fn = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
        as_number = Message(type="sample", fn=fn, value=0.1)
        as_tensor = Message(type="sample", fn=fn, value=torch.tensor(0.1, dtype=torch.float64))
        assert torch.equal(as_number["log_prob"], as_tensor["log_prob"])
        assert Message(type="sample", fn=dist.Bernoulli(0.25), value=True)["log_prob"].exp() == 0.25

    def test_only_sample_sites_have_one(self) -> None:
        site = Message(type="param", name="p", value=torch.tensor(1.0))
        assert site.get("log_prob") is None
        with pytest.raises(KeyError):
            site["log_prob"]

    def test_what_the_distribution_says_names_the_site(self) -> None:
        site = Message(type="sample", name="z", fn=dist.Bernoulli(torch.tensor(0.5)), value=torch.tensor(3.0))
        with pytest.raises(ValueError, match=r"site 'z'.*within the support"):
            site["log_prob"]

    def test_score_parts(self) -> None:
        site = normal_site(scale=2.0)
        parts = site["score_parts"]
        assert torch.equal(parts.log_prob, site["log_prob"])
        assert torch.equal(parts.entropy_term, site["log_prob"])  # a normal draw carries its gradient
        assert parts.score_function == 0
        site.value.add_(1.0)
        assert site["score_parts"] is not parts
        discrete = Message(type="sample", fn=dist.Bernoulli(0.25), value=torch.tensor(1.0))
        assert discrete["score_parts"].score_function == discrete["log_prob"]

    def test_deleting_makes_it_unknown(self) -> None:
        site = normal_site()
        site["log_prob_sum"]
        del site["log_prob_sum"]
        assert "log_prob_sum" not in site
        assert "log_prob" in site


class TestRepr:
    def test_tells_what_is_set(self) -> None:
        site = Message(type="sample", name="z", fn=dist.Normal(0.0, 1.0), value=torch.tensor(0.5))
        assert repr(site) == (
            "Message(type='sample', name='z', fn=Normal(loc: 0.0, scale: 1.0), value=tensor(0.5000))"
        )

    def test_tells_large_tensors_by_their_shape(self) -> None:
        site = Message(
            type="args", name="_INPUT", args=(torch.zeros(4, 5), [1]), kwargs={"x": torch.zeros(9)}
        )
        assert repr(site) == (
            "Message(type='args', name='_INPUT', args=(<tensor of shape (4, 5)>, [1]), "
            "kwargs={'x': <tensor of shape (9,)>})"
        )

    def test_tells_masks_scales_plates_and_extras(self) -> None:
        site = Message(
            type="sample", name="z", mask=False, scale=torch.tensor(2.0), is_observed=True,
            cond_indep_stack=(CondIndepStackFrame("p", -1, 3),), infer={"a": 1},
        )  # fmt: skip
        site["colour"] = "red"
        text = repr(site)
        for part in (
            "mask=False",
            "scale=tensor(2.)",
            "is_observed=True",
            "name='p'",
            "{'a': 1}",
            "colour='red'",
        ):
            assert part in text

    def test_changes_nothing(self) -> None:
        site = normal_site()
        repr(site)
        assert "log_prob" not in site
