"""README.md of an exported folder: what the run knows of the model, and nothing that it does not.

There is no word on quality, because nothing here has measured it, and no licence, because that of
the weights is for their owner to choose.
"""

from dataclasses import dataclass

from tokenmill.training.encoder_config import EncoderConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where exported weights come from; what tokenmill.json holds."""

    recipe: str
    preset: str
    architecture: str
    steps: tuple[int, ...]
    """The checkpoints whose mean the weights are."""
    ema: bool
    """Whether of each the exponential mean was taken, not the weights themselves."""
    phase: str
    """Of the last of them."""
    tokens: int
    """That training had read by then, padding left out."""
    max_length: int
    """Tokens of the longest sequence that it was trained on."""
    parameters: int


_CARD = """\
---
library_name: transformers
pipeline_tag: fill-mask
---

# {recipe}

A {architecture} encoder of {parameters:,} parameters ({layers} layers, width {width}), trained by
masked language modelling with Tokenmill.

| | |
|---|---|
| recipe | {recipe} |
| preset | {preset}, phase {phase} |
| weights | {weights} |
| tokens read | {tokens:,}, padding left out |
| longest sequence | {max_length:,} tokens |

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER{trust})
model = AutoModelForMaskedLM.from_pretrained(FOLDER{trust})
```
{notes}
Licence: none is set here. The texts that the model was trained on keep their own, which the run
lists by source in `licences.csv`; choose one for the weights with them in view.
"""


def model_card(origin: Origin, config: EncoderConfig) -> str:
    """The content of README.md."""
    own = origin.architecture == "neobert"
    notes = ""
    if own:
        notes += "\nThe model's code is in this folder (`modeling_neobert.py`).\n"
    if config.rope.yarn_factor > 1 and not own:
        notes += "\nPositions are stretched by YaRN: transformers 5 or newer is needed.\n"
    return _CARD.format(
        recipe=origin.recipe,
        architecture=origin.architecture,
        parameters=origin.parameters,
        layers=config.layers,
        width=config.width,
        preset=origin.preset,
        phase=origin.phase,
        weights=describe_weights(origin),
        tokens=origin.tokens,
        max_length=origin.max_length,
        trust=", trust_remote_code=True" if own else "",
        notes=notes,
    )


def describe_weights(origin: Origin) -> str:
    """Which weights of which checkpoints, in words."""
    steps = ", ".join(f"{step:,}" for step in origin.steps)
    if len(origin.steps) == 1:
        return f"exponential mean at step {steps}" if origin.ema else f"step {steps}"
    return f"mean of {'the exponential means at ' if origin.ema else ''}steps {steps}"
