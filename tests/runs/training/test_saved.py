"""What a checkpoint must hold before a training goes on from it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from medsass.methods import optim
from medsass.methods.method import Regime
from medsass.runs.training import saved

LINES = [{"epoch": number, "val_loss": 0.5, "seconds": 1.0} for number in (1, 2)]
SCALER = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3}


def _trained(optimizer: str) -> tuple[dict[str, Any], torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    built = optim.build(model.parameters(), Regime(optimizer=optimizer), "cpu")  # type: ignore[arg-type]
    for _ in range(2):
        model(torch.rand(2, 3, 8, 8)).square().mean().backward()
        built.step()
    state = {"model": model.state_dict(), "optimizer": built.state_dict(), "scaler": dict(SCALER)}
    state |= {"epoch": 2, "done": 1, "steps": 3, "means": {"images": 4, "totals": {"loss": 0.5}}, "history": LINES}
    return copy.deepcopy(state), model, built


def _problem(state: dict[str, Any], model: torch.nn.Module, built: torch.optim.Optimizer) -> str:
    return saved.problem(state, model.state_dict(), built, SCALER)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_a_states_of_a_training_passes_also_to_one_that_begins(optimizer: str) -> None:
    pytest.importorskip("lightly")
    state, model, built = _trained(optimizer)
    assert _problem(state, model, built) == ""
    fresh = optim.build(model.parameters(), Regime(optimizer=optimizer), "cpu")  # type: ignore[arg-type]
    assert _problem({**state, "history": []} | {"epoch": 0}, model, fresh) == ""


def _put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Replace a value, or change it by a function."""
    *keys, last, value = path

    def change(state: Any) -> None:
        for key in keys:
            state = state[key]
        state[last] = value(state[last]) if callable(value) else value

    return change


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_put("model", "0.weight", lambda w: w * NAN), "0.weight holds NaN or infinite numbers"),
        (_put("model", "0.weight", lambda w: w.half()), "0.weight has the type strided float16 cpu"),
        (_put("model", "0.weight", lambda w: w.to_sparse()), "0.weight has the type sparse_coo float32 cpu"),
        (_put("model", "0.weight", lambda w: w[:1]), "0.weight has the shape (1, 3, 3, 3)"),
        (_put("model", "0.weight", [1.0]), "0.weight is list in place of numbers"),
        (_put("model", "1.num_batches_tracked", torch.ones(())), "1.num_batches_tracked has the type"),
        (_put("model", "more", torch.ones(1)), "it has no more"),
        (_put("model", None), "model is NoneType in place of OrderedDict"),
        (_put("optimizer", "state", 0, "exp_avg", lambda w: w / 0), "the optimiser's exp_avg holds NaN"),
        (_put("optimizer", "state", 0, "exp_avg", lambda w: w.double()), "the optimiser's exp_avg has the type"),
        (_put("optimizer", "state", 0, "exp_avg", torch.ones(1 << 10).expand(1 << 20, -1)), "the optimiser's exp_avg has the shape"),
        (_put("optimizer", "state", 0, "step", "x"), "the optimiser's step is str"),
        (_put("optimizer", "state", 99, {}), "its optimiser is of other weights"),
        (_put("optimizer", "state", "x", {}), "its optimiser is of other weights"),
        (_put("optimizer", "param_groups", []), "its optimiser is of another training"),
        (_put("optimizer", "param_groups", 0, "params", [7]), "its optimiser is of other weights"),
        (_put("optimizer", "param_groups", 0, "lr", NAN), "its optimiser's lr, weight_decay, betas, eps are not finite"),
        (_put("optimizer", "param_groups", 0, "betas", "xy"), "its optimiser's lr, weight_decay, betas, eps are not"),
        (_put("optimizer", 7), "its optimiser is of another training"),
        (_put("scaler", "scale", NAN), "scale is nan"),
        (_put("scaler", "scale", "x"), "scale is str in place of float"),
        (_put("epoch", -1), "'epoch' in the file must be at least 0; got -1"),
        (_put("epoch", "2"), "'epoch' in the file must be a whole number; got '2'"),
        (_put("epoch", 10**30), "it is of 1000000000000000000000000000000 epochs, and its history of others"),
        (_put("done", 4), "it is at step 4 of 3"),
        (_put("steps", 0), "'steps' in the file must be above 0; got 0"),
        (_put("means", "images", True), "'images' in [means] must be a whole number; got True"),
        (_put("means", "totals", {"loss": "x"}), "'loss' in [means.totals] must be a number; got 'x'"),
        (_put("history", LINES[:1]), "it is of 2 epochs, and its history of others"),
        (_put("history", [{"epoch": 1}, {"epoch": 2}]), "its history lacks the losses"),
        (_put("history", [["x"]]), "in the file must be a list"),
        (_put("history", None), "in the file must be a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_state_is_said(change: Callable[[dict[str, Any]], None], said: str) -> None:
    state, model, built = _trained("adamw")
    change(state)
    assert said in _problem(state, model, built)
