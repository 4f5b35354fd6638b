"""The loader's state: a step, the settings that give it meaning, a witness that they still do.

    {"order": "order-1", "phase": "phase2", "step": 70000, "settings": {...}, "manifest": "9f2c...",
     "counts_before": {...}, "overlay": {"entries": 1, "digest": "77e1..."},
     "witness": {"last": "5be0...", "next": "c71a..."}}

A step alone would be enough to go on. The rest is there to refuse: whoever changes the seed, the
mixture, the data or this code would go on with another order, see rows twice or never, and not
notice. The witness is a digest of the last and the next step's rows, their documents and their
masks' keys; loading computes it anew. It is a few hundred bytes, the same on all ranks, and holds
no data.

The overlay may have grown since, by entries that hold from this step on; one that was known may not
have changed, nor may a new one hold for steps that were read without it.
"""

from hashlib import blake2b
from typing import Any

from tokenmill.errors import ResumeError
from tokenmill.loader.order import ORDER_VERSION
from tokenmill.loader.phase import Phase
from tokenmill.loader.plan import PhasePlan
from tokenmill.shards.settings import to_mapping


def state_of(phase: Phase, step: int) -> dict[str, Any]:
    """The state of a loader whose next step is this one. JSON-able, at most 2 KB."""
    overlay = phase.plan.overlay
    count = len(overlay.entries)
    return {
        **_facts(phase.plan),
        "step": step,
        "overlay": {"entries": count, "digest": overlay.digest(count)},
        "witness": _witness(phase, step),
    }


def step_of(state: dict[str, Any], phase: Phase) -> int:
    """The next step that a state stands at.

    Raises:
        ResumeError: it belongs to another phase, seed, mixture, setting, pack or order, the rows
            differ, or the overlay would change steps that were read.
    """
    facts = _facts(phase.plan)
    if not isinstance(state, dict):
        raise ResumeError(f"this is no loader state: expected a dict, found {state!r}. {_ADVICE}")
    missing = sorted({*facts, "step", "overlay", "witness"} - state.keys())
    if missing:
        raise ResumeError(f"this is no loader state: {', '.join(missing)} missing. {_ADVICE}")
    for name, cause in _CAUSES.items():
        if state[name] != facts[name]:
            raise ResumeError(_difference(cause, state[name], facts[name]))
    step = state["step"]
    if type(step) is not int or not 0 <= step < 1 << 53:
        raise ResumeError(f"this is no loader state: step {step!r}. {_ADVICE}")
    _check_overlay(state["overlay"], phase.plan, step)
    expected, found = state["witness"], _witness(phase, step)
    if expected != found:
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


def _facts(plan: PhasePlan) -> dict[str, Any]:
    names = [bucket.name for bucket in plan.buckets]
    return {
        "order": ORDER_VERSION,
        "phase": plan.name,
        "settings": to_mapping(plan.config),
        "manifest": plan.manifest.root,
        "counts_before": dict(zip(names, plan.counts_before, strict=True)),
    }


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
            raise ResumeError(
                f"the overlay: entry {number} holds from {entry.phase} step {entry.step:,} on, but "
                f"the steps up to {plan.name} {step:,} were read without it. Let line {number} of "
                f"overlay.jsonl hold from phase {plan.name}, step {step} on."
            )


def _witness(phase: Phase, step: int) -> dict[str, str | None]:
    return {"last": _digest(phase, step - 1) if step else None, "next": _digest(phase, step)}


def _digest(phase: Phase, step: int) -> str:
    rows = phase.step_rows(step)
    digest = blake2b(digest_size=8)
    for array in (rows.rows, rows.mask_keys, rows.pieces.lengths, rows.pieces.doc_ids):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _difference(cause: str, then: Any, now: Any) -> str:
    """Name what differs; of settings, those that do."""
    if isinstance(then, dict) and isinstance(now, dict):
        names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        then = ", ".join(f"{name} {then.get(name)}" for name in names)
        now = ", ".join(f"{name} {now.get(name)}" for name in names)
    return f"{cause}: the state was saved with {then}, the run has {now}. {_ADVICE}"
