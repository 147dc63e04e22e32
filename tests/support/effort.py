"""How much work a run of the tests does: `make test` a part that still holds every guard, `make test-all` all of it."""

from hypothesis import settings

_all = False


def choose(everything: bool) -> None:
    """Choose between all of the work and a part, before the test files are imported."""
    global _all
    _all = everything
    settings.register_profile("medsass", deadline=None, max_examples=100 if everything else 25, print_blob=True)
    settings.load_profile("medsass")


def everything() -> bool:
    """Return whether all of the work is to be done."""
    return _all


def counted(few: int, every: int) -> int:
    """Return how often to do something: `few` times, or `every` time in `make test-all`."""
    return every if _all else few


def examples(every: int) -> settings:
    """Return hypothesis settings for that many examples in `make test-all`, and a quarter of them in `make test`."""
    return settings(max_examples=counted(-(-every // 4), every))
