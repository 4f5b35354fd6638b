"""Which duplicates leave, and what is stored to find them by."""

from dataclasses import dataclass

from tokenmill.pipeline.signatures import SignatureConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """Which duplicates leave."""

    exact: bool = True
    """Documents whose cleaned text is equal to an earlier one's, byte by byte."""
    signatures: SignatureConfig | None = None
    """MinHash signatures that the mill stores of kept documents, to find near duplicates by; null:
    none."""
