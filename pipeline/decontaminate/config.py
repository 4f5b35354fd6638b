"""Which evaluation sets are kept out of the corpus, and how much of an item is too much."""

from dataclasses import dataclass
from typing import Literal

from tokenmill.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class SetConfig:
    """One evaluation set."""

    path: str
    """A jsonl (plain, .gz, .zst) or parquet file, a folder of them, or organisation/name of a
    dataset on the hub."""
    files: tuple[str, ...] = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.parquet")
    """Which files of a folder or dataset to take, with * and ?; a subset and split of a dataset is
    mostly a name like "ARC-Challenge/test-*.parquet"."""
    revision: str = "main"
    """Of a dataset on the hub: a branch, a tag or a commit."""
    fields: tuple[str, ...] = ("text",)
    """The columns (or JSON keys) that hold text. Each is looked for by itself, so that a passage is
    found without its question; one that is empty in a row is passed over."""
    id: str | None = None
    """The column that names an item; none: its file and row do."""

    def __post_init__(self) -> None:
        if not self.fields or not self.files:
            raise RecipeError("fields and files must name at least one each")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecontaminationConfig:
    """Documents that hold items of evaluation sets."""

    sets: dict[str, SetConfig]
    """By a name of the recipe's choice, for the report."""
    words: int = 13
    """A run of so many words of an item, found in a document, is evidence. GPT-3
    (arXiv:2005.14165, appendix C)."""
    min_words: int = 8
    """Items of fewer than `words` words are looked for whole, those of fewer than this not at all:
    they would be found by chance. GPT-3's shortest n-gram."""
    min_share: float = 0.0
    """Share of an item's words that a document must hold; 0: one run is enough."""
    common_documents: int = 10
    """A run that stands in more documents than this is a common phrase (GPT-3, the same appendix):
    it counts only where half of an item's words are found."""
    action: Literal["drop", "cut"] = "drop"
    """drop: the document leaves. cut: the tokens of the item leave, from the start of its first
    word found to the start of the word after its last."""
    min_tokens: int = 64
    """A document of which a cut would leave fewer tokens leaves whole."""

    def __post_init__(self) -> None:
        if not self.sets:
            raise RecipeError("sets: name at least one evaluation set")
        if not 1 <= self.min_words <= self.words <= 64:
            raise RecipeError(
                "need 1 <= min_words <= words <= 64, "
                f"got min_words {self.min_words} and words {self.words}"
            )
        if not 0 <= self.min_share <= 1:
            raise RecipeError(f"min_share must be a share of 0 to 1, got {self.min_share}")
        if self.common_documents < 1 or self.min_tokens < 0:
            raise RecipeError(
                "common_documents must be at least 1 and min_tokens at least 0, "
                f"got {self.common_documents} and {self.min_tokens}"
            )
