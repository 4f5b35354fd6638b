"""What a build leaves for those who train: RUN/run.json and RUN/tokenizer/.

Nobody needs the recipe or the pipeline to train: each phase's resolved settings, the tokenizer's
special ids and the shards stand in the run.

    RUN/run.json
    RUN/tokenizer/tokenizer.json
    RUN/tokenizer/word_starts.npy    (vocab_size,) uint8, which tokens begin a word
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.manifest import FORMAT_VERSION, check_version
from tokenmill.shards.settings import read_settings, to_mapping

BEGINS_WORD = 1
"""Flag of a token that begins a word, whatever stands before it."""
ENDS_WORD = 2
"""Flag of a token after which a word begins, whatever it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerInfo:
    """What rows and masks need to know of a tokenizer; the ids of its special tokens."""

    sha256: str
    vocab_size: int
    """One more than the largest token id."""
    pad_id: int
    mask_id: int
    prefix: tuple[int, ...]
    """What its template puts before a text: [CLS], <s>, or nothing."""
    separator: tuple[int, ...]
    """Between two texts: [SEP], </s></s>."""
    suffix: tuple[int, ...]
    """After a text, or the second of two: [SEP], </s>."""
    unk_id: int | None
    special_ids: tuple[int, ...]
    """All of them, rising; none is ever masked, nor drawn as a replacement."""

    @property
    def num_special(self) -> int:
        """Special tokens around one text."""
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseInfo:
    """A phase of the recipe, resolved."""

    pack: str
    """The folder of its shards below RUN/shards."""
    loader: dict[str, Any]
    """The settings of tokenmill.loader.LoaderConfig."""
    schedule: dict[str, Any]
    """The settings of tokenmill.training.ScheduleConfig."""
    rope: dict[str, Any] = field(default_factory=dict)
    """Changes to the model's rotary positions in this phase: fields of RopeConfig."""
    generation: int = 0
    """The phase reads shards of this generation and all before it; see ShardInfo.generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInfo:
    """A finished build."""

    format_version: int
    recipe: str
    tokenizer: TokenizerInfo
    phases: dict[str, PhaseInfo]
    """In the order in which they are trained."""
    training: dict[str, Any]
    """The settings of tokenmill.training.TrainingConfig."""

    def phase(self, name: str) -> PhaseInfo:
        """One phase; RecipeError names the phases there are."""
        if name not in self.phases:
            raise RecipeError(f"phase {name}: not in the run, which has {', '.join(self.phases)}.")
        return self.phases[name]


def write_run(run: Path, info: RunInfo) -> None:
    mapping = to_mapping(info)
    # JSON objects are written with sorted keys; the phases' order is theirs.
    mapping["phases"] = [{"name": name, **phase} for name, phase in mapping["phases"].items()]
    write_json(run / "run.json", mapping)


def read_run(run: Path) -> RunInfo:
    """What a build left.

    Raises:
        FormatError: the folder holds no finished run, or one of another version.
    """
    path = run / "run.json"
    if not path.exists():
        raise FormatError(f"{run}: no finished run there (no run.json). Build it first.")
    mapping = read_json(path)
    check_version(path, mapping)
    try:
        phases = {phase.pop("name"): phase for phase in mapping["phases"]}
        return read_settings(RunInfo, {**mapping, "phases": phases}, str(path))
    except (RecipeError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: damaged ({error}). Build the run again.") from None


def read_word_starts(run: Path) -> NDArray[np.uint8]:
    """(vocab_size,) flags of each token, BEGINS_WORD and ENDS_WORD, as bits.

    A word begins at every token with BEGINS_WORD, and after every one with ENDS_WORD; the first
    token of a piece begins one too, for what stood before it is not known:

        begins[i] = flags[ids[i]] & BEGINS_WORD or flags[ids[i - 1]] & ENDS_WORD

    A special token is a word of its own, which no mask may touch; [UNK] is one that a mask may
    take. See tokenmill.tokenizer.special for what a word is.

    Raises:
        FormatError: the file is missing or damaged.
    """
    path = run / "tokenizer" / "word_starts.npy"
    try:
        flags: NDArray[np.uint8] = np.load(path)
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{path}: expected one flag for each token, found {error}. Build the run again."
        ) from None
    if flags.dtype != np.uint8 or flags.ndim != 1:
        raise FormatError(
            f"{path}: expected one uint8 for each token, found {flags.dtype} of {flags.shape}. "
            "Build the run again."
        )
    return flags


def new_run(
    recipe: str, tokenizer: TokenizerInfo, phases: dict[str, PhaseInfo], training: dict[str, Any]
) -> RunInfo:
    return RunInfo(
        format_version=FORMAT_VERSION,
        recipe=recipe,
        tokenizer=tokenizer,
        phases=phases,
        training=training,
    )


def pack_folder(run: Path, pack: str) -> Path:
    """Where a pack's manifest and shards stand."""
    return run / "shards" / pack
