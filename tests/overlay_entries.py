"""Skips and replays for the tests, and the order that they make, as a list of all steps."""

from hypothesis import strategies as st

from tokenmill.shards.overlay import ReplayedSteps, SkippedSteps


@st.composite
def moved_steps(draw, phase="phase1", steps=30, most=6):
    """Entries that may stand in an overlay one after the other."""
    found = []
    for _ in range(draw(st.integers(0, most))):
        first = draw(st.integers(0, steps))
        last = first + draw(st.integers(0, 9))
        if draw(st.booleans()):
            found.append(SkippedSteps(phase, draw(st.integers(0, first)), first, last))
        else:
            found.append(ReplayedSteps(phase, last + draw(st.integers(1, 9)), first, last))
    return found


def order_of(entries, length=400):
    """The steps of the order that training reads, one after the other."""
    order = list(range(length))
    for entry in entries:
        first, end = entry.first, entry.last + 1
        if isinstance(entry, SkippedSteps):
            order = order[:first] + order[end:]
        else:
            order = order[: entry.step] + order[first:end] + order[entry.step :]
    return order
