"""What the pages list is what there is: checks, presets, recipes."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tokenmill.pipeline.filters import FilterConfig
from tokenmill.pipeline.rules.checks import Breaks
from tokenmill.pipeline.rules.datatrove_names import DATATROVE_NAMES
from tokenmill.training.model import build_model, num_parameters
from tokenmill.training.presets import PRESETS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "rules.md").read_text()
TRAINING_PAGE = (ROOT / "docs" / "training.md").read_text()
RULES = {
    field.name: get_args(get_type_hints(FilterConfig)[field.name])[0]
    for field in fields(FilterConfig)
    if field.default is not MISSING and field.default is None
}


def bound(check, setting):
    if setting is None or setting is False:
        return "off"
    if check.breaks is Breaks.SET:
        return "on"
    side = "at most" if check.breaks is Breaks.ABOVE else "at least"
    return f"{side} {setting:,}" if setting >= 1e5 else f"{side} {setting:g}"


@pytest.mark.parametrize("name", RULES)
def test_the_page_lists_every_check_in_its_order(name):
    rule = RULES[name]()
    lines = []
    for check in rule.checks:
        reason = f"{name}.{check.setting}"
        theirs = DATATROVE_NAMES.get(reason, "")
        setting = getattr(rule, check.setting)
        lines.append(f"| `{reason}` | `{check.signal}` | {bound(check, setting)} | {theirs} |\n")
    assert "".join(lines) in PAGE


def test_every_name_of_datatroves_is_that_of_a_check():
    known = {f"{name}.{check.setting}" for name, rule in RULES.items() for check in rule().checks}
    assert DATATROVE_NAMES.keys() <= known


@pytest.mark.parametrize("name", PRESETS)
def test_the_page_lists_every_preset_with_its_shape_and_parameters(name):
    shape = PRESETS[name]
    numbers = [shape.layers, shape.width, shape.heads, shape.hidden, shape.vocab_size]
    cells = [f"`{name}`", *(f"{n:,}" for n in [*numbers, num_parameters(build_model(shape))])]
    assert f"| {' | '.join(cells)} | " in TRAINING_PAGE


def test_the_page_lists_every_published_recipe():
    ours = {"quickstart", "crawl-web-code-science", "raw-web-code-science"}
    recipes = {path.stem for path in (ROOT / "manifests").glob("*.yaml")} - ours
    assert {name for name in recipes if f"`{name}`" not in TRAINING_PAGE} == set()
