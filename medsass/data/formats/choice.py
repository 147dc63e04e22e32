"""The choice of a file's channels, and how messages say what chooses channels and arrays."""

from medsass.data.formats.image import Selection


def option(view: Selection, name: str, value: str) -> str:
    """Return what a user writes to choose a part of an image, an option, or of a mask, a key of a recipe.

    Args:
        view: how the file is read.
        name: "array" or "channels".
        value: as the option takes it.
    """
    if not view.mask:
        return f"--{name} {value}"
    return f"mask_{name} = " + (f'"{value}"' if name == "array" else f"[{value}]") + " in [[images]] of a recipe"


def in_recipe(view: Selection, text: str) -> str:
    """Return in brackets what a recipe has in place of the options for an image; "" for a mask, which has no options."""
    return "" if view.mask else f" ({text})"


def pick_channels(view: Selection, count: int) -> tuple[int, ...]:
    """Return the channels of a file with `count` to read: those that are asked for, or the only one or three.

    Raises:
        ValueError: where `view` asks for other than one or three of them, or for none and nothing says which are the image.
    """
    asked = view.channels
    if not asked and count not in (1, 3):
        colours = "" if view.mask else " for gray or three, such as 0,1,2, for red, green and blue"
        raise ValueError(
            f"{count} channels: say which to read: {option(view, 'channels', '0')}{colours}"
            f"{in_recipe(view, 'in [[images]] of a recipe: channels = [0]')}"
        )
    if asked and (len(asked) not in (1, 3) or max(asked) < 0 or not all(-1 <= item < count for item in asked)):
        raise ValueError(
            f"{'mask_' * view.mask}channels = {list(asked)} must be one or three of the file's {count}, numbered from 0; "
            "-1 is black"
        )
    return asked or tuple(range(count))
