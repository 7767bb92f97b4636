from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn
from toy_training import ToyModel

from tubelet.core.errors import ConfigError
from tubelet.training.optim import (
    SGD,
    AdamW,
    Cosine,
    OptimConfig,
    Polynomial,
    Steps,
    WeightAverage,
    load_state_tensors,
    state_tensors,
)


def test_warmup_rises_in_a_line_from_its_part_of_the_rate():
    optim = SGD(lr=0.3, warmup=500, warmup_from=1 / 3)
    rates = [optim.lr * optim.factor(i, 1000) for i in (0, 250, 500, 999)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.3])


def test_steps_multiply_from_their_iterations_on():
    optim = SGD(lr=1.0, warmup=0, schedule=Steps(at=(8, 11)))
    factors = [optim.factor(i, 12) for i in range(12)]
    assert factors == pytest.approx([1.0] * 8 + [0.1] * 3 + [0.01])


def test_cosine_falls_from_one_to_its_final_part():
    schedule = Cosine(final=0.2)
    assert [schedule.factor(i, 100) for i in (0, 50, 100, 150)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert schedule.factor(25, 100) == pytest.approx(0.2 + 0.8 * (0.5 + math.sqrt(0.5) / 2))


def test_a_polynomial_falls_from_one_to_nothing():
    schedule = Polynomial(power=0.9)
    assert [schedule.factor(i, 100) for i in (0, 50, 100, 150)] == pytest.approx([1.0, 0.5**0.9, 0.0, 0.0])


def test_parts_may_rise_for_longer_and_the_longest_prefix_wins():
    optim = SGD(lr=1.0, warmup=10, warmup_from=0.0, warmups={"body": 20, "body.0": 0}, parts={"body": 0.1})
    optimizer = optim.build(ToyModel())
    assert optim.set_rate(optimizer, 5, 100) == pytest.approx(0.5)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates["head.weight"] == pytest.approx(0.5)
    assert rates["body.4.weight"] == pytest.approx(0.1 * 0.25)
    assert rates["body.0.weight"] == pytest.approx(0.1)


def test_a_rise_of_a_part_that_the_model_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"optim\.warmups: no trained parameter begins with 'boddy'.*'body'"):
        SGD(warmups={"boddy": 5}).build(ToyModel())


@given(
    warmup=st.integers(0, 50),
    start=st.floats(0, 1),
    iterations=st.integers(1, 300),
    at=st.lists(st.integers(0, 300), max_size=3),
    which=st.sampled_from(["cosine", "steps", "polynomial"]),
)
def test_every_rate_lies_between_nothing_and_the_base_rate(warmup, start, iterations, at, which):
    schedule = {"cosine": Cosine(), "steps": Steps(at=tuple(at)), "polynomial": Polynomial()}[which]
    optim = SGD(warmup=warmup, warmup_from=start, schedule=schedule)
    factors = [optim.factor(i, iterations) for i in range(iterations)]
    assert all(0 <= factor <= 1 for factor in factors)
    after = factors[warmup:]
    assert after == sorted(after, reverse=True)


def test_parts_have_their_own_rates_and_the_longest_prefix_wins():
    optim = SGD(lr=1.0, warmup=0, parts={"body": 0.1, "body.0": 0.0, "head": 2.0})
    optimizer = optim.build(ToyModel())
    assert optim.set_rate(optimizer, 0, 10) == 1.0
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates["body.0.weight"] == 0.0
    assert rates["body.4.weight"] == pytest.approx(0.1)
    assert rates["head.weight"] == 2.0
    assert rates["rare.weight"] == 1.0


def test_every_trained_parameter_is_in_exactly_one_group():
    model = ToyModel()
    model.rare.requires_grad_(False)
    optimizer = AdamW(parts={"body": 0.1}).build(model)
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.requires_grad)


def test_norms_and_biases_are_decayed_only_on_request():
    model = ToyModel()
    decays = {}
    for decay_all in (False, True):
        groups = AdamW(weight_decay=0.05, decay_all=decay_all).build(model).param_groups
        decays[decay_all] = {name: group["weight_decay"] for group in groups for name in group["param_names"]}
    assert decays[False]["body.1.weight"] == decays[False]["head.bias"] == 0.0
    assert decays[False]["head.weight"] == 0.05
    assert set(decays[True].values()) == {0.05}


@pytest.mark.parametrize("decay_all", [False, True])
def test_a_lone_number_is_never_decayed(decay_all: bool) -> None:
    model = torch.nn.Linear(2, 2)
    model.gamma = torch.nn.Parameter(torch.zeros(()))
    groups = SGD(weight_decay=0.1, decay_all=decay_all).build(model).param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["param_names"]}
    assert decays == {"weight": 0.1, "bias": 0.1 * decay_all, "gamma": 0.0}


def test_a_part_that_the_model_has_not_names_the_nearest():
    with pytest.raises(ConfigError, match="begins with 'bodi'; did you mean 'body'"):
        SGD(parts={"bodi": 0.1}).build(ToyModel())


def test_a_prefix_ends_at_a_dot():
    with pytest.raises(ConfigError, match="no trained parameter begins with 'bod'"):
        SGD(parts={"bod": 0.1}).build(ToyModel())


def test_the_kind_chooses_the_optimizer():
    adapter = TypeAdapter(OptimConfig)
    assert isinstance(adapter.validate_python({"kind": "adamw"}), AdamW)
    tree = SGD(schedule=Steps(at=(5,)), parts={"body": 0.1}).model_dump(mode="json")
    assert adapter.validate_python(tree) == SGD(schedule=Steps(at=(5,)), parts={"body": 0.1})
    assert isinstance(SGD().build(nn.Linear(1, 1)), torch.optim.SGD)


@pytest.mark.parametrize("config", [SGD(), AdamW(parts={"rare": 0.5})])
def test_state_survives_the_way_through_flat_tensors(config: SGD | AdamW):
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    model, other = ToyModel(), ToyModel()
    optimizer, fresh = config.build(model), config.build(other)
    step(model, optimizer)
    other.load_state_dict(model.state_dict())
    load_state_tensors(fresh, {name: tensor.clone() for name, tensor in state_tensors(optimizer).items()})
    step(model, optimizer)
    step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_the_average_follows_its_recurrence():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    expected = 0.0
    for number, value in enumerate([4.0, 8.0, -2.0, 6.0, 1.0, 1.0, 3.0, 5.0, 2.0, 7.0], 1):
        nn.init.constant_(model.weight, value)
        average.update(model, number)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
        assert average.weights["weight"].item() == pytest.approx(expected)


def test_whole_number_buffers_are_copied_into_the_average():
    model = ToyModel()
    average = WeightAverage(model, decay=0.9)
    model.seen += 5
    average.update(model, 1)
    assert average.weights["seen"].item() == 5


def test_norms_and_embeddings_can_be_spared_while_biases_are_decayed():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.queries = nn.Linear(3, 4), nn.Embedding(5, 4)
            self.norm, self.batch = nn.LayerNorm(4), nn.BatchNorm2d(4)
            self.level_embed = nn.Parameter(torch.zeros(3, 4))

    def decayed(**fields: object) -> set[str]:
        groups = AdamW(weight_decay=0.05, **fields).build(Model()).param_groups
        return {name for group in groups if group["weight_decay"] for name in group["param_names"]}

    everything = {name for name, _ in Model().named_parameters()}
    tables = {"queries.weight", "level_embed"}
    norms = {name for name in everything if name.startswith(("norm", "batch"))}
    assert decayed(decay_all=True) == everything
    assert decayed(decay_all=True, spared=("norms", "embeddings")) == {"linear.weight", "linear.bias"}
    assert decayed(decay_all=True, spared=("embeddings",)) == everything - tables
    assert decayed(decay_all=True, spared=("norms",)) == everything - norms
    assert decayed(spared=("embeddings",)) == {"linear.weight"}
