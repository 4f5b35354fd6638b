"""The loader's state: a step, the settings that give it meaning, a witness that they still do.

    {"order": "order-1", "phase": "phase2", "step": 70000, "settings": {...}, "manifest": "9f2c...",
     "counts_before": {...}, "overlay": {"entries": 1, "digest": "77e1..."},
     "witness": {"last": "5be0...", "next": ["c71a...", "08f2..."], "mixture": ...}}

A step alone would be enough to go on. The rest is there to refuse: whoever changes the seed, the
mixture, the data or this code would go on with another order, see rows twice or never, and not
notice. The witness is a digest of the last and of the next step's rows and their masks' keys, and
one of the next step's documents; loading computes it anew. It is a few hundred bytes, the same on
all ranks, and holds no data; a long value, as a mixture of a hundred subsets, stands there as its
digest. Where rows of the next step are skipped, now or then, there is no digest of their documents,
for their shard may be gone. Documents of the last step are not looked at: that would open as many
shards again, and the manifest's root is among the settings.

The future may be planned anew: changes of the mixture that no step has read under are left out, and
so is max_epochs. Where the next step has another mixture than it had then, only the last is a
witness.

The overlay may have grown since, by entries that hold from this step on; one that was known may not
have changed, nor may a new one hold for steps that were read without it.
"""

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from numpy.typing import NDArray

from tokenmill.errors import ResumeError
from tokenmill.loader.order import ORDER_VERSION
from tokenmill.loader.phase import Phase
from tokenmill.loader.plan import PhasePlan
from tokenmill.loader.step_map import step_map
from tokenmill.shards.overlay import NUM_STEPS, Overlay, ReplayedSteps, SkippedSteps
from tokenmill.shards.settings import to_mapping


def state_of(phase: Phase, step: int) -> dict[str, Any]:
    """The state of a loader whose next step is this one. JSON-able, at most 2 KB."""
    overlay = phase.plan.overlay
    count = len(overlay.entries)
    return {
        **_facts(phase.plan, step),
        "step": step,
        "overlay": {"entries": count, "digest": overlay.digest(count)},
        "witness": _witness(phase, step, count),
    }


def step_of(state: dict[str, Any], phase: Phase) -> int:
    """The next step that a state stands at.

    Raises:
        ResumeError: it belongs to another phase, seed, mixture, setting, pack or order, the rows
            differ, or the overlay would change steps that were read.
    """
    if not isinstance(state, dict):
        raise ResumeError(f"this is no loader state: expected a dict, found {state!r}. {_ADVICE}")
    missing = sorted({*_CAUSES, "step", "overlay", "witness"} - state.keys())
    if missing:
        raise ResumeError(f"this is no loader state: {', '.join(missing)} missing. {_ADVICE}")
    step = state["step"]
    if type(step) is not int or not 0 <= step < NUM_STEPS:
        raise ResumeError(f"this is no loader state: step {step!r}. {_ADVICE}")
    facts = _facts(phase.plan, step)
    if state["phase"] == facts["phase"]:  # else the steps are not comparable
        _check_overlay(state["overlay"], phase.plan, step)
    for name, cause in _CAUSES.items():
        if state[name] != facts[name]:
            raise ResumeError(_difference(cause, state[name], facts[name]))
    expected, found = state["witness"], _witness(phase, step, state["overlay"]["entries"])
    if not _agree(expected, found):
        raise ResumeError(
            f"rows: the order around step {step:,} is another one (digests were {expected}, "
            f"are {found}) although settings and manifest are the same: shards were replaced, or "
            f"the code's order changed. {_ADVICE}"
        )
    return step


_ADVICE = "Bring back what the state was saved with, or start the phase anew."

_CAUSES = {
    "order": "the version of the order",
    "phase": "the phase",
    "settings": "the loader's settings",
    "manifest": "the manifest's root hash",
    "counts_before": "what earlier phases read of the pack",
}


_LONGEST_VALUE = 192
"""Characters of a value that is kept as it is."""


def _facts(plan: PhasePlan, step: int) -> dict[str, Any]:
    """What gives the step its meaning."""
    settings = to_mapping(plan.config)
    del settings["max_epochs"]  # a limit, no part of the order
    settings["changes"] = settings["changes"][: _num_changes_read(plan, step)]
    names = [bucket.name for bucket in plan.buckets]
    return {
        "order": ORDER_VERSION,
        "phase": _short(plan.name),
        "settings": {name: _short(value) for name, value in settings.items()},
        "manifest": plan.manifest.root,
        "counts_before": _short(dict(zip(names, plan.counts_before, strict=True))),
    }


def _num_changes_read(plan: PhasePlan, step: int) -> int:
    """How many of the phase's changes of mixture hold for a step before this one."""
    used = plan.step_map.order_steps_until(step)
    return sum(section.first_step < used for section in plan.sections[1:])


def _short(value: Any) -> Any:
    """The value, or its digest where it is long."""
    text = json.dumps(value, sort_keys=True)
    if len(text) <= _LONGEST_VALUE:
        return value
    return f"digest {blake2b(text.encode(), digest_size=8).hexdigest()}"


def _check_overlay(then: Any, plan: PhasePlan, step: int) -> None:
    """Raises ResumeError where an entry that was known differs, or a new one would hold for steps
    that were read."""
    entries = plan.overlay.entries
    count = then.get("entries") if isinstance(then, dict) else None
    if type(count) is not int or count < 0:
        raise ResumeError(f"this is no loader state: overlay {then!r}. {_ADVICE}")
    if len(entries) < count or plan.overlay.digest(count) != then.get("digest"):
        raise ResumeError(
            f"the overlay: the state was saved with {count} entries of overlay.jsonl, and among "
            f"the {len(entries)} of today one of those is missing or changed. {_ADVICE}"
        )
    here = plan.phases.index(plan.name), step
    for number, entry in enumerate(entries[count:], count + 1):
        if (plan.phases.index(entry.phase), entry.step) < here:
            advice = (
                f"Let line {number} of overlay.jsonl hold from phase {plan.name}, step {step} on."
            )
            if isinstance(entry, SkippedSteps | ReplayedSteps):
                advice = (
                    f"Take line {number} out of overlay.jsonl, or go back to a state before it."
                )
            raise ResumeError(
                f"the overlay: entry {number} holds from {entry.phase} step {entry.step:,} on, but "
                f"the steps up to {plan.name} {step:,} were read without it. {advice}"
            )


def _witness(phase: Phase, step: int, num_entries: int) -> dict[str, Any]:
    """What stands around a step by the first entries of the overlay; later ones may have skipped
    or replayed steps from it on."""
    plan = phase.plan
    then = step_map(Overlay(plan.overlay.entries[:num_entries]), plan.name)
    section = plan.sections.index(plan.section_at(then.order_step(step)))
    return {
        "last": _digest_of_rows(phase, then.order_step(step - 1)) if step else None,
        "next": _digests(phase, then.order_step(step)),
        "mixture": _short(plan.config.mixtures[section]),
    }


def _digest_of_rows(phase: Phase, order_step: int) -> str:
    # A mask's key is a hash of its row and visit; numbers of rows depend on what the phase reads.
    return _digest(phase.rows_at(order_step)[1])


def _digests(phase: Phase, order_step: int) -> list[str | None]:
    """Of the rows of a step and their masks' keys, and of their documents, if they may be read."""
    pieces = phase.pieces_of(phase.rows_at(order_step)[0])
    return [
        _digest_of_rows(phase, order_step),
        None if pieces is None else _digest(pieces.lengths, pieces.doc_ids),
    ]


def _digest(*arrays: NDArray[Any]) -> str:
    digest = blake2b(digest_size=8)
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _agree(expected: Any, found: dict[str, Any]) -> bool:
    """Whether two witnesses are equal in all that both know."""
    if not isinstance(expected, dict) or expected.keys() != found.keys():
        return False
    # Settings agree up to here, so another mixture is one that was planned for the next step on.
    planned_anew = expected["mixture"] != found["mixture"]
    if expected["last"] != found["last"]:
        return False
    if planned_anew:
        return True
    then, now = expected["next"], found["next"]
    return (
        isinstance(then, list)
        and len(then) == len(now)
        and all(None in pair or pair[0] == pair[1] for pair in zip(then, now, strict=True))
    )


def _difference(cause: str, then: Any, now: Any) -> str:
    """Name what differs; of settings, those that do."""
    both = isinstance(then, dict) and isinstance(now, dict)
    names = {**then, **now} if both else {"": None}
    then, now = (then, now) if both else ({"": then}, {"": now})
    pairs = [pair for name in names for pair in _differing(name, then.get(name), now.get(name))]
    then, now = (", ".join(pair[side] for pair in pairs) for side in (0, 1))
    return f"{cause}: the state was saved with {then}, the run has {now}. {_ADVICE}"


def _differing(name: str, then: Any, now: Any) -> Iterator[tuple[str, str]]:
    """What differs with its value on either side; of settings within a setting, those that do."""
    if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
        for key in then:
            yield from _differing(f"{name}.{key}", then[key], now[key])
    elif then != now:
        yield f"{name} {then}".lstrip(), f"{name} {now}".lstrip()
