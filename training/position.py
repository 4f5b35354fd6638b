"""How far training has come, from its checkpoints' names and states, without reading a tensor.

Nothing here needs torch: building, skipping and retracting ask too.
"""

from pathlib import Path

from tokenmill.errors import FormatError
from tokenmill.shards.files import read_json, sha256_file


def newest_first(folder: Path) -> list[Path]:
    """Checkpoints by falling step; one that is being written has another name.

    Args:
        folder: OUT/checkpoints.
    """
    return sorted(
        (path for path in folder.glob("step-*") if path.name[5:].isdigit()),
        key=step_of,
        reverse=True,
    )


def step_of(path: Path) -> int:
    """The step of a checkpoint; names carry seven digits or more."""
    return int(path.name[5:])


def newest_position(folder: Path) -> tuple[str, int] | None:
    """The phase of the newest checkpoint and its next step; None where there is none.

    A checkpoint without its list of checksums, or whose state differs from it, is passed over.

    Args:
        folder: OUT/checkpoints.

    Raises:
        FormatError: there are checkpoints, and none has a whole state.
    """
    paths = newest_first(folder)
    for path in paths:
        try:
            if read_json(path / "complete.json")["state.json"] != sha256_file(path / "state.json"):
                continue
            position = read_json(path / "state.json")["position"]
            return str(position["phase"]), int(position["phase_step"])
        except (FormatError, OSError, KeyError, TypeError, ValueError):
            continue
    if paths:
        raise FormatError(
            f"{folder}: no checkpoint's state is whole; damaged are "
            f"{', '.join(path.name for path in paths)}. Remove them."
        )
    return None
