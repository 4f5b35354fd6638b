"""Duplicates in the order in which they decide: of text, of address, of nearly the same text, of
spans.

Each step looks at what those before it left. A step that the recipe leaves out is asked with no
units, so that what it wrote for an earlier recipe leaves the run.
"""

from collections.abc import Sequence
from pathlib import Path

from tokenmill.pipeline.dedup.config import DedupConfig, NearConfig
from tokenmill.pipeline.dedup.exact import Key, equal_documents
from tokenmill.pipeline.dedup.near import near_duplicates
from tokenmill.pipeline.dedup.repeat_config import RepeatConfig
from tokenmill.pipeline.dedup.repeats import repeated_text
from tokenmill.pipeline.dedup.steps import MilledUnit, RunStage, Step


def duplicate_steps(
    run: Path, stage: RunStage, units: Sequence[MilledUnit], config: DedupConfig
) -> list[Step]:
    """Find the duplicates that a recipe asks for, each kind one step."""
    steps: list[Step] = []
    wanted: list[tuple[Key, bool]] = [("content", config.exact), ("url", config.url)]
    for key, is_wanted in wanted:
        found = equal_documents(
            run, stage, units if is_wanted else (), key, config.scope, tuple(steps)
        )
        if is_wanted:
            steps.append(found)
    near = config.near or NearConfig()
    found = near_duplicates(
        run, stage, units if config.near else (), near, config.scope, tuple(steps)
    )
    if config.near:
        steps.append(found)
    found = repeated_text(
        run, stage, config.repeats or RepeatConfig(), units if config.repeats else (), steps
    )
    return [*steps, found] if config.repeats else steps
