"""DINO against its paper's algorithm 1, written out with loops."""

import math

import pytest
import torch

from medsass.methods import dino, optim
from medsass.methods.dino import DINO
from tests.methods import baselines


@pytest.fixture(autouse=True)
def few_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsass.methods.dino._OUT", 32)


@pytest.fixture
def chosen() -> DINO:
    result = baselines.made("dino", "unet-resnet18", epochs=10)
    assert isinstance(result, DINO)
    baselines.disturbed(result.teacher)
    result.centre.copy_(0.1 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
    return result


def _outputs(network: torch.nn.Module, head: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    z = head.layers(network.encoder(x)[-1].mean((2, 3)))  # type: ignore[operator, union-attr]
    direction = head.last_layer.weight_v  # type: ignore[union-attr]
    unit = direction / direction.square().sum(1, keepdim=True).sqrt()  # type: ignore[operator, union-attr]
    return (z / z.square().sum(1, keepdim=True).sqrt()) @ unit.T


def _softmax(x: torch.Tensor) -> torch.Tensor:
    e = (x - x.max(1, keepdim=True).values).exp()
    return e / e.sum(1, keepdim=True)


def _teacher(chosen: DINO) -> list[torch.Tensor]:
    x = torch.cat([baselines.normalised(images) for images in baselines.batch(chosen).views[:2]])
    return list(_outputs(chosen.teacher, chosen.teacher_head, x).detach().chunk(2))


def _student(chosen: DINO) -> list[torch.Tensor]:
    x = [baselines.normalised(images) for images in baselines.batch(chosen).views]
    whole = _outputs(chosen.network, chosen.head, torch.cat(x[:2])).chunk(2)
    return [*whole, *_outputs(chosen.network, chosen.head, torch.cat(x[2:])).chunk(len(x) - 2)]


@pytest.mark.parametrize(
    ("progress", "temperature"), [(0.0, 0.04), (0.1, 0.05), (0.15, 0.055), (0.3, 0.07), (1.0, 0.07)]
)
def test_the_loss_compares_each_global_crop_of_the_teacher_with_every_other_crop_of_the_student(
    chosen: DINO, progress: float, temperature: float
) -> None:
    terms = []
    for i, t in enumerate(_teacher(chosen)):
        for j, s in enumerate(_student(chosen)):
            if i != j:
                p, q = _softmax((t - chosen.centre) / temperature), _softmax(s / 0.1)
                terms.append(-(p * q.log()).sum(1).mean().item())
    assert len(terms) == 2 * 10 - 2
    expected = sum(terms) / len(terms)
    assert chosen(baselines.batch(chosen), progress).loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_centre_is_a_moving_average_of_the_teachers_outputs(chosen: DINO) -> None:
    before, mean = chosen.centre.clone(), torch.cat(_teacher(chosen)).mean(0)
    chosen(baselines.batch(chosen), 0.5)
    torch.testing.assert_close(chosen.centre, 0.9 * before + 0.1 * mean, rtol=1e-4, atol=1e-5)
    assert "centre" in chosen.state_dict()


def test_gradients_reach_all_of_the_student_and_nothing_of_the_teacher(chosen: DINO) -> None:
    chosen(baselines.batch(chosen), 0.5).loss.backward()
    idle = {name for name, item in chosen.named_parameters() if item.grad is None or not item.grad.any()}
    fixed = {"head.last_layer.weight_g"}  # the lengths of the last layer's weights, all 1
    assert {name.split(".")[0] for name in idle - fixed} == {"teacher", "teacher_head"}
    assert idle == {name for name, item in chosen.named_parameters() if not item.requires_grad}


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_the_teacher_follows_with_the_papers_schedule_of_its_momentum(chosen: DINO, progress: float) -> None:
    share = 1 - (1 - 0.996) * (math.cos(math.pi * progress) + 1) / 2
    pairs = [(chosen.network, chosen.teacher), (chosen.head, chosen.teacher_head)]
    expected = [
        share * old + (1 - share) * new
        for student, teacher in pairs
        for new, old in zip(student.parameters(), teacher.parameters(), strict=True)
    ]
    chosen.after_step(progress)
    found = [item for _, teacher in pairs for item in teacher.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_the_last_layer_is_frozen_for_the_first_epoch(chosen: DINO) -> None:
    optimizer = optim.build(chosen.parameters(), chosen.regime, "cpu")
    weight = chosen.head.last_layer.weight_v
    for progress, moves in [(0.0, False), (0.099, False), (0.1, True)]:
        before = weight.detach().clone()
        optimizer.zero_grad()
        chosen(baselines.batch(chosen), progress).loss.backward()
        chosen.before_step(progress)
        optimizer.step()
        assert torch.equal(weight, before) != moves


def test_the_teacher_sees_the_global_crops_alone(chosen: DINO) -> None:
    seen: dict[str, list[torch.Size]] = {"teacher": [], "network": []}
    for name, sizes in seen.items():
        encoder = getattr(chosen, name).encoder
        encoder.register_forward_pre_hook(lambda _, args, sizes=sizes: sizes.append(args[0].shape))
    chosen(baselines.batch(chosen), 0.0)
    assert seen == {"teacher": [(8, 3, 32, 32)], "network": [(8, 3, 32, 32), (32, 3, 16, 16)]}


def test_the_teachers_encoder_is_stored(chosen: DINO) -> None:
    kept = chosen.weights()
    assert all(torch.equal(kept[f"encoder.{name}"], item) for name, item in chosen.teacher.encoder.state_dict().items())  # type: ignore[operator, union-attr]
    assert not torch.equal(kept["encoder.conv1.weight"], chosen.network.encoder.conv1.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(("size", "local"), [(224, 96), (96, 40), (64, 24), (32, 16), (16, 8)])
def test_local_crops_are_as_much_smaller_as_the_papers_and_multiples_of_8(size: int, local: int) -> None:
    assert [view.size for view in dino.views(size, vit=True)] == [size] * 2 + [local] * 8


def test_resnets_have_the_settings_of_the_published_command() -> None:
    resnet, vit = (baselines.made("dino", model).regime for model in ("unet-resnet18", "unet-vit-tiny"))
    assert (resnet.optimizer, resnet.lr, resnet.weight_decay, resnet.final_weight_decay) == ("sgd", 0.12, 1e-4, None)
    assert (vit.optimizer, vit.lr, vit.weight_decay, vit.final_weight_decay) == ("adamw", 2e-3, 0.04, 0.4)
