import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.training.curve import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    draw_curve,
    nice_ticks,
    running_mean,
    write_curve,
)
from tokenmill.training.log import HeldOutLine, Log, StepLine

SVG = "{http://www.w3.org/2000/svg}"


def step(number, loss, phase="phase1"):
    return StepLine(
        phase=phase,
        step=number,
        tokens=1000 * number,
        real_tokens=990 * number,
        loss=loss,
        lr=0.1,
        tokens_per_second=1.0,
        data_wait=0.0,
    )


def held_out(number, loss, subset=None, source=None):
    return HeldOutLine(
        phase="phase2",
        step=number,
        tokens=1000 * number,
        subset=subset,
        source=source,
        loss=loss,
        accuracy=0.25,
        masked_tokens=5,
    )


def points_of(root):
    """Those of each line, in pixels."""
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in root.iter(SVG + "polyline")
    ]


def test_all_but_the_first_fall_lies_within_the_axes():
    steps = [step(n, 9 - 2 * math.log(n), "phase1" if n < 60 else "phase2") for n in range(1, 101)]
    dots = [held_out(40, 5.5, "all"), held_out(99, 5.0, "1024+"), held_out(99, 5.25, "all")]
    picture = draw_curve(steps, [*dots, held_out(99, 6.5, source="wiki")])
    root = ElementTree.fromstring(picture)
    lines = points_of(root)
    assert [len(points) for points in lines] == [100, 100, 2, 1, 1]
    for x, y in (point for points in lines for point in points):
        assert LEFT <= x <= WIDTH - RIGHT
        assert y <= HEIGHT - BOTTOM
        assert y >= TOP or x < LEFT + 0.05 * (WIDTH - LEFT - RIGHT)
    assert lines[0][0][1] < TOP  # and is cut off there
    clipped = root.find(f"{SVG}g[@clip-path='url(#plot)']")
    assert len(list(clipped.iter(SVG + "polyline"))) == len(lines)
    assert len(list(root.iter(SVG + "circle"))) == 3
    assert {"tokens seen, padding included", "loss, nats a masked token"} <= set(texts(root))


def texts(root):
    return [text.text for text in root.iter(SVG + "text")]


def test_the_legend_has_each_last_loss():
    steps = [step(n, 5.0 - n / 100) for n in range(1, 121)]
    lines = [held_out(9, 5.5, "all"), held_out(9, 5.25, source="w" * 30), held_out(99, 5.0, "all")]
    found = texts(ElementTree.fromstring(draw_curve(steps, lines)))
    assert found[-6:] == [
        "train, at last", "3.805", "all", "5.000", f"source {'w' * 14}…", "5.250",
    ]  # fmt: skip


def test_a_legend_that_is_too_long_says_how_much_is_missing():
    lines = [held_out(2, float(n), source=f"s{n}") for n in range(30)]
    found = texts(ElementTree.fromstring(draw_curve([step(2, 1.0)], lines)))
    assert found[-1] == "and 9 more"
    assert sum(text.startswith("source s") for text in found) == 21


def test_the_border_of_a_phase_stands_where_the_one_before_ended():
    picture = draw_curve([step(1, 2.0), step(2, 1.0), step(3, 3.0, "phase2")], [])
    x = round(LEFT + 2000 / 3000 * (WIDTH - RIGHT - LEFT), 2)
    assert f'<path d="M{x} {TOP}V' in picture
    assert texts(ElementTree.fromstring(picture)).count("phase2") == 1


def test_the_picture_needs_no_other_file_and_names_are_escaped():
    picture = draw_curve([step(1, 2.0, "a<b&c")], [])
    ElementTree.fromstring(picture)
    assert "a&lt;b&amp;c" in picture
    assert "href" not in picture


def test_one_step_is_a_picture_too():
    ElementTree.fromstring(draw_curve([step(1, 2.0)], []))


def test_a_long_log_is_thinned_to_its_last_step():
    picture = draw_curve([step(n, 1.0) for n in range(1, 5 * MAX_POINTS)], [])
    root = ElementTree.fromstring(picture)
    points = [polyline.get("points").split() for polyline in root.iter(SVG + "polyline")]
    assert [len(line) <= MAX_POINTS + 1 for line in points] == [True, True]
    assert [float(line[-1].split(",")[0]) for line in points] == [WIDTH - RIGHT] * 2


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_cover_their_range_in_few_round_steps(low, span):
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= low + span - 1e-6
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 9


def test_ticks_are_multiples_of_1_2_or_5():
    assert nice_ticks(0.12, 0.71) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert nice_ticks(0, 2_400_000) == [0, 500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000]


def test_a_running_mean_follows_a_line_and_flattens_a_zigzag():
    line = [float(n) for n in range(600)]
    assert running_mean(line) == pytest.approx(line)
    zigzag = running_mean([0.0, 1.0] * 300)
    assert all(0.45 < mean < 0.55 for mean in zigzag[20:-20])


def test_no_picture_is_written_of_a_log_without_steps(tmp_path):
    with Log(tmp_path / "log.jsonl") as log:
        write_curve(tmp_path / "log.jsonl", tmp_path / "loss.svg")
        assert not (tmp_path / "loss.svg").exists()
        log.write(step(1, 2.0))
        write_curve(tmp_path / "log.jsonl", tmp_path / "loss.svg")
    ElementTree.parse(tmp_path / "loss.svg")


def test_losses_that_are_no_numbers_are_left_out_and_the_curve_goes_on(tmp_path):
    losses = [5.0, math.nan, 4.0, math.inf, 3.0]
    with Log(tmp_path / "log.jsonl") as log:
        for number, loss in enumerate(losses, start=1):
            log.write(step(number, loss))
        log.write(held_out(5, math.nan, "all"))
    write_curve(tmp_path / "log.jsonl", tmp_path / "loss.svg")
    root = ElementTree.parse(tmp_path / "loss.svg").getroot()
    assert [len(points) for points in points_of(root)] == [3, 3]
    assert not any(text in ("nan", "inf", "all") for text in texts(root))
