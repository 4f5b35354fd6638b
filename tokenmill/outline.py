"""What a recipe trains, before anything is built: the model's shape and the steps of each phase.

    neobert    64 wide, 3 layers, 2 heads, 168 hidden
    phase   max_length  tokens in a row  rows in a step  steps     tokens
    phase1       1,024            4,096               1    512  2,097,152
    phase2       4,096           16,384               1      7    104,857

Rows of a step are those of all processes, padding is counted; the vocabulary is the tokenizer's.
"""

from tokenmill.loader.plan import batch_sizes_of
from tokenmill.recipe import PhaseConfig, Recipe
from tokenmill.shards.table import table
from tokenmill.training.presets import encoder_config


def training_outline(recipe: Recipe) -> str:
    """The model in a line, and a table of the phases."""
    preset = recipe.training.preset
    model = encoder_config(preset, recipe.training.model)
    shape = (
        f"{preset}  {model.width:,} wide, {model.layers} layers, {model.heads} heads, "
        f"{model.hidden:,} hidden"
    )
    header = ("phase", "max_length", "tokens in a row", "rows in a step", "steps", "tokens")
    return f"{shape}\n{table(header, [_row(*item) for item in recipe.phases.items()])}"


def _row(name: str, phase: PhaseConfig) -> tuple[str, ...]:
    sizes = batch_sizes_of(phase.loader, phase.row_tokens)
    rows = -(-phase.schedule.tokens // phase.row_tokens)
    first = sizes.rows_of(0)
    return (
        name,
        f"{phase.max_length:,}",
        f"{phase.row_tokens:,}",
        f"{first:,} to {sizes.full:,}" if first < sizes.full else f"{sizes.full:,}",
        f"{sizes.steps_until(rows):,}",
        f"{phase.schedule.tokens:,}",
    )
