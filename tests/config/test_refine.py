"""The grammar of refinements: text to steps and back, and what is refused."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medsass.config import refine
from medsass.config.refine import RefineStep, parse
from medsass.labels import Labeler
from medsass.labels import refine as steps_of_labels
from tests.support.effort import examples

lengths = st.floats(1e-3, 56)
_before = st.one_of(st.builds(RefineStep, st.just("blur"), lengths), st.just(RefineStep("vignette")))
_after = st.one_of(
    st.builds(RefineStep, st.sampled_from(["open", "close"]), lengths),
    st.sampled_from([RefineStep("border"), RefineStep("holes")]),
    st.builds(RefineStep, st.just("min"), st.floats(1e-6, 0.999)),
    st.builds(RefineStep, st.just("largest"), st.integers(1, 99).map(float)),
)


@pytest.mark.parametrize("text", ["", "none", "  ", " none "])
def test_nothing_is_no_step(text: str) -> None:
    assert parse(text) == ()
    assert refine.text(()) == ""


def test_text_becomes_steps() -> None:
    steps = (
        RefineStep("blur", 3.0),
        RefineStep("border"),
        RefineStep("holes"),
        RefineStep("min", 0.001),
        RefineStep("largest", 1.0),
    )
    assert parse("blur:3, border,holes,min:1e-3,largest") == steps
    assert refine.text(steps) == "blur:3,border,holes,min:0.001,largest:1"
    assert (refine.text(refine.before(steps)), refine.text(refine.after(steps))) == (
        "blur:3",
        "border,holes,min:0.001,largest:1",
    )


_gray = st.lists(st.sampled_from([RefineStep("darkest"), RefineStep("brightest")]), max_size=1)


@examples(100)
@given(_gray, st.lists(_before, max_size=3), st.lists(_after, max_size=4))
def test_steps_come_back_from_their_text(
    gray: list[RefineStep], before: list[RefineStep], after: list[RefineStep]
) -> None:
    steps = (*gray, *before, *after)
    assert parse(refine.text(steps)) == steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharpen", "a step must be one of darkest, brightest, red, green, blue, blur, vignette, border, holes, open, close, min, largest; got 'sharpen'"),
        ("blur:2,darkest", "darkest makes the gray image, and must be the first step; got 'blur:2,darkest'"),
        ("darkest:2", "darkest takes no value; got 'darkest:2'"),
        ("border,", "a step must be one of .*; got ''"),
        ("Border", "got 'Border'"),
        ("border:3", "border takes no value; got 'border:3'"),
        ("holes:", "holes takes no value; got 'holes:'"),
        ("blur", "blur takes a length above 0 and at most 56 pixels, as in blur:3; got 'blur'"),
        ("blur:", "as in blur:3; got 'blur:'"),
        ("blur:wide", "got 'blur:wide'"),
        ("blur:0", "got 'blur:0'"),
        ("blur:-1", "got 'blur:-1'"),
        ("blur:nan", "got 'blur:nan'"),
        ("blur:57", "at most 56 pixels, as in blur:3; got 'blur:57'"),
        ("open:inf", "open takes a length .*; got 'open:inf'"),
        ("close", "close takes a length .*, as in close:2; got 'close'"),
        ("min:1", "min takes a share above 0 and below 1, as in min:0.001; got 'min:1'"),
        ("largest:0", "largest takes a whole number from 1 to a million, as in largest:1; got 'largest:0'"),
        ("largest:1.5", "got 'largest:1.5'"),
        ("border,blur:3", "blur works on the image, before the threshold, and must come before border; got 'border,blur:3'"),
    ],
)  # fmt: skip
def test_other_text_is_refused_with_the_rule_and_what_was_seen(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^refine: .*{message}$"):
        parse(text)
    with pytest.raises(ValueError, match=r"^refine: "):
        Labeler(refine=text)


def test_every_step_has_its_help_and_is_applied_somewhere() -> None:
    assert set(refine.STEPS) == set(refine.EARLY) | set(steps_of_labels._AFTER)
    assert set(refine.GRAYS) == set(steps_of_labels._GRAYS)
    assert all(line.startswith(name) for name, line in refine.STEPS.items())


def test_lengths_grow_with_the_shorter_side() -> None:
    assert steps_of_labels.radius(3, torch.Size((1, 224, 300))) == 3
    assert steps_of_labels.radius(3, torch.Size((1, 900, 448))) == 6
    assert steps_of_labels.radius(3, torch.Size((1, 112, 112))) == 2
    assert steps_of_labels.radius(2, torch.Size((1, 32, 32))) == 0


def test_the_help_is_short() -> None:
    assert all(len(line) <= 100 and not re.search(r"[.!]$", line) for line in refine.STEPS.values())
