"""Which repeated spans of text leave."""

from dataclasses import dataclass
from typing import Literal

from tokenmill.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatConfig:
    """Text that stands also earlier in the corpus, token by token."""

    min_tokens: int = 50
    """The shortest span that counts. 50: Lee et al. 2022 (arXiv:2107.06499) and RefinedWeb."""
    spans: Literal["cut", "keep"] = "cut"
    """What becomes of repeated spans in documents that stay; RefinedWeb cuts them."""
    max_share: float = 1.0
    """A document leaves as a whole if more than this share of its tokens is in repeated spans, or
    if all are. RefinedWeb tried 0.2 with `spans: keep` as well (arXiv:2306.01116, appendix)."""
    memory_bytes: int = 512 << 20
    """What a task's table may take, besides what a process of Python and Arrow takes (200 MB) and
    the text at hand (200 MB, 500 MB where all of it is repeated). Less makes more tasks."""

    def __post_init__(self) -> None:
        if self.min_tokens < 2:
            raise RecipeError(f"min_tokens must be at least 2, got {self.min_tokens}")
        if not 0 <= self.max_share <= 1:
            raise RecipeError(f"max_share must be from 0 to 1, got {self.max_share}")
        if not 1 << 20 <= self.memory_bytes <= 1 << 34:
            raise RecipeError(
                f"memory_bytes must be from {1 << 20} (1 MiB) to {1 << 34} (16 GiB), "
                f"got {self.memory_bytes}"
            )
