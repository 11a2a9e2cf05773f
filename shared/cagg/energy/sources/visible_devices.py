"""Read CUDA_VISIBLE_DEVICES.

Source: CUDA C++ Programming Guide 12.6 (2024), "CUDA Environment Variables"; NVIDIA MIG User Guide (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Selector", "visible_devices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One device of the list; exactly one field is set.

    Attributes:
        index: number of the GPU in bus order.
        uuid: beginning of the GPU's UUID, with ``GPU-``.
        instance: UUID of a GPU instance, with ``MIG-``.
    """

    index: int | None = None
    uuid: str | None = None
    instance: str | None = None


def visible_devices(value: str | None) -> list[Selector] | None:
    """Return the devices that the variable names.

    Args:
        value: the variable; None = it is not set.

    Returns:
        None when every device is visible; an empty list when none is (empty, ``-1``, or nonsense at the first place:
        like CUDA, everything from the first entry on that cannot be read is invisible).
    """
    if value is None:
        return None
    found: list[Selector] = []
    for text in (part.strip() for part in value.split(",")):
        if text.isdigit() and text.isascii():
            found.append(Selector(index=int(text)))
        elif text.upper().startswith("GPU-") and len(text) > 4:
            found.append(Selector(uuid=text))
        elif text.upper().startswith("MIG-") and len(text) > 4:
            found.append(Selector(instance=text))
        else:
            break
    return found
