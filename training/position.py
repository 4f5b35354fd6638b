"""How far training has come, from its newest checkpoint, without reading a tensor."""

from pathlib import Path

from tokenmill.errors import FormatError
from tokenmill.shards.files import read_json


def newest_position(folder: Path) -> tuple[str, int] | None:
    """The phase of the newest checkpoint and its next step; None where there is none.

    Args:
        folder: OUT/checkpoints.

    Raises:
        FormatError: the checkpoint names no position.
    """
    steps = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    if not steps:
        return None
    path = max(steps, key=lambda path: int(path.name[5:])) / "state.json"
    try:
        position = read_json(path)["position"]
        return str(position["phase"]), int(position["phase_step"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: no checkpoint's state ({error!r}). Remove its folder."
        ) from None
