"""The step map against a list of all steps, cut and put together as the entries say."""

from hypothesis import given
from overlay_entries import moved_steps, order_of

from tokenmill.loader.step_map import StepMap, step_map
from tokenmill.shards.overlay import Overlay, ReplayedSteps, SkippedSteps

STEPS = 60


@given(made=moved_steps())
def test_it_is_the_list_that_the_entries_cut_and_put_together(made):
    found, expected = step_map(Overlay(tuple(made)), "phase1"), order_of(made)
    assert [found.order_step(step) for step in range(STEPS)] == expected[:STEPS]
    for step in range(STEPS + 1):
        assert found.order_steps_until(step) == max(expected[:step], default=-1) + 1
    for order_step in range(STEPS):
        steps = [step for step, read in enumerate(expected) if read == order_step]
        assert list(found.steps_of(order_step)) == steps
    assert all(expected[start] != expected[start - 1] + 1 for start in found.starts[1:])


def test_the_drawing_of_the_module_holds_and_another_phase_reads_on():
    skipped = StepMap().after(SkippedSteps("phase1", 0, 2, 3))
    assert (skipped.starts, skipped.order_starts) == ((0, 2), (0, 4))
    replayed = skipped.after(ReplayedSteps("phase1", 4, 1, 2))
    assert (replayed.starts, replayed.order_starts) == ((0, 2, 4, 5, 6), (0, 4, 1, 4, 6))
    assert step_map(Overlay((SkippedSteps("phase1", 0, 2, 3),)), "phase2") == StepMap()
    # A skip of what a replay has put in takes it out again.
    assert replayed.after(SkippedSteps("phase1", 4, 4, 5)) == skipped
