"""The loss curve as one SVG file, drawn from the log alone; nothing in it refers to another file.

Each logged step is a thin line, their running mean a thick one, each held-out loss of a subset a
dot of its colour, of a source a dashed line, each change of phase an upright line. Steps that were
done again after a kill are drawn once; losses that are no numbers are not. The first fall, from
what chance gives, may leave the picture at its top: what is to be seen comes after it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from tokenmill.shards.files import write_whole
from tokenmill.training.log import HeldOutLine, StepLine, latest, read_log

WIDTH, HEIGHT = 1080, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 230, 24, 56
"""Pixels around the plot, for the numbers and titles of its axes, and for the legend."""
LEGEND_LINES = 22
"""Entries for which it has room; of more the first ones are named."""
TRAIN_COLOUR = "#30638e"
FIRST_FALL = 0.05
"""Share of the tokens whose losses need not fit into the picture."""
MAX_POINTS = 2000
"""A longer log is drawn through every n-th of its steps."""


def write_curve(log: Path, svg: Path) -> None:
    """Draw a log; writes nothing while the log has no steps."""
    lines = [line for line in latest(read_log(log)) if math.isfinite(line.loss)]
    steps = [line for line in lines if isinstance(line, StepLine)]
    held_out = [line for line in lines if isinstance(line, HeldOutLine)]
    if steps:
        write_whole(svg, draw_curve(steps, held_out).encode())


def draw_curve(steps: Sequence[StepLine], held_out: Sequence[HeldOutLine]) -> str:
    """The picture as SVG text; both sequences by rising step, at least one step."""
    losses = [(line.tokens, line.loss) for line in steps]
    means = [
        (line.tokens, mean)
        for line, mean in zip(steps, running_mean([line.loss for line in steps]), strict=True)
    ]
    seen = [(line.tokens, line.loss) for line in held_out]
    first = FIRST_FALL * steps[-1].tokens
    settled = [loss for tokens, loss in means + seen if tokens >= first]
    lowest = min(loss for _, loss in losses + seen)
    plot = _Plot(x=_token_axis(steps[-1].tokens), y=_loss_axis([lowest, *settled]))
    parts = [
        *plot.frame("tokens seen, padding included", "loss, nats a masked token"),
        *_phase_borders(plot, steps),
        '<g clip-path="url(#plot)">',
        plot.line(_thinned(losses), TRAIN_COLOUR, width=1, opacity=0.25),
        plot.line(_thinned(means), TRAIN_COLOUR, width=2),
    ]
    # At its very end the running mean is the last step's own loss.
    last = [loss for _, loss in losses[-max(len(losses) // 60, 1) :]]
    legend = [("train, at last", sum(last) / len(last), TRAIN_COLOUR)]
    for index, name in enumerate(dict.fromkeys(line.name for line in held_out)):
        own = [line for line in held_out if line.name == name]
        points = [(line.tokens, line.loss) for line in own]
        # By the golden angle, neighbours are far apart however many there are.
        colour = f"hsl({round(137.5 * index) % 360},55%,45%)"
        if own[0].source:
            parts.append(plot.line(points, colour, width=1.5, opacity=0.7, dashes="5 3"))
        else:
            parts += plot.dots(points, colour)
        legend.append((name, points[-1][1], colour))
    parts += ["</g>", *_legend(legend)]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="#333">\n'
        f'<clipPath id="plot"><rect x="{LEFT - 4}" y="{TOP}" width="{WIDTH - RIGHT - LEFT + 8}" '
        f'height="{HEIGHT - BOTTOM - TOP}"/></clipPath>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def running_mean(losses: Sequence[float]) -> list[float]:
    """Means over up to a thirtieth of the curve around each point; towards the ends the window
    narrows on both sides alike, so that a slope does not shift the mean."""
    sums = [0.0, *accumulate(losses)]
    means = []
    for index in range(len(losses)):
        reach = min(index, len(losses) - 1 - index, len(losses) // 60)
        first, last = index - reach, index + reach + 1
        means.append((sums[last] - sums[first]) / (last - first))
    return means


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers that cover [low, high]: multiples of 1, 2 or 5 times a power of ten.

    The first is not above low, the last not below high.
    """
    raw = max(high - low, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    # Rounded, because 3 * 0.1 is not 0.3.
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values to pixels."""

    low: float
    high: float
    ticks: Sequence[float]
    first_pixel: int
    last_pixel: int

    def pixel(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.first_pixel + share * (self.last_pixel - self.first_pixel), 2)


def _token_axis(tokens: int) -> _Axis:
    """From 0 to the last token, which need not be a round number."""
    ticks = [tick for tick in nice_ticks(0, tokens) if tick <= tokens]
    return _Axis(0, tokens, ticks, LEFT, WIDTH - RIGHT)


def _loss_axis(losses: Sequence[float]) -> _Axis:
    """From one round number to another."""
    ticks = nice_ticks(min(losses), max(losses))
    return _Axis(ticks[0], ticks[-1], ticks, HEIGHT - BOTTOM, TOP)


@dataclass(frozen=True, slots=True)
class _Plot:
    """Two axes and what is drawn between them."""

    x: _Axis
    y: _Axis

    def frame(self, x_title: str, y_title: str) -> Iterator[str]:
        """Grid lines with their numbers, and the axes' titles."""
        bottom, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
        for tick in self.y.ticks:
            y = self.y.pixel(tick)
            yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>'
        for tick in self.x.ticks:
            x = self.x.pixel(tick)
            yield f'<path d="M{x} {bottom}v5" stroke="#999"/>'
            yield f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{_short(tick)}</text>'
        yield f'<path d="M{LEFT} {bottom}H{WIDTH - RIGHT}" stroke="#999"/>'
        centre = (LEFT + WIDTH - RIGHT) / 2
        yield f'<text x="{centre}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_title)}</text>'
        yield (
            f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(y_title)}</text>"
        )

    def line(
        self,
        points: Iterable[tuple[float, float]],
        colour: str,
        *,
        width: float,
        opacity: float = 1.0,
        dashes: str = "none",
    ) -> str:
        path = " ".join(f"{self.x.pixel(x)},{self.y.pixel(y)}" for x, y in points)
        return (
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
            f'stroke-opacity="{opacity}" stroke-dasharray="{dashes}" stroke-linejoin="round"/>'
        )

    def dots(self, points: Sequence[tuple[float, float]], colour: str) -> Iterator[str]:
        yield self.line(points, colour, width=1.5, opacity=0.6)
        for x, y in points:
            yield (
                f'<circle cx="{self.x.pixel(x)}" cy="{self.y.pixel(y)}" r="3" fill="{colour}" '
                f'stroke="#fff"><title>{y:.4f} at {_short(x)} tokens</title></circle>'
            )


def _phase_borders(plot: _Plot, steps: Sequence[StepLine]) -> Iterator[str]:
    """A dashed line where the phase changes, and each phase's name at its begin."""
    starts = [(0, steps[0].phase)]
    starts += [
        (before.tokens, line.phase)
        for before, line in pairwise(steps)
        if before.phase != line.phase
    ]
    for index, (tokens, phase) in enumerate(starts):
        x = plot.x.pixel(tokens)
        if tokens:
            yield f'<path d="M{x} {TOP}V{HEIGHT - BOTTOM}" stroke="#999" stroke-dasharray="4 4"/>'
        # Names of short phases stand close together, and that of the last has the edge before it.
        y = TOP + 14 + 16 * (index % 3)
        fits = x + 7 * len(phase) < WIDTH - RIGHT
        place = f'x="{x + 6}"' if fits else f'x="{x - 6}" text-anchor="end"'
        yield f'<text {place} y="{y}" fill="#777">{escape(phase)}</text>'


def _legend(entries: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    """Each name with its last loss and colour, in one column beside the plot."""
    left, right = WIDTH - RIGHT + 16, WIDTH - 12
    for index, (name, loss, colour) in enumerate(entries[:LEGEND_LINES]):
        y = TOP + 18 * index
        yield f'<rect x="{left}" y="{y}" width="12" height="12" rx="2" fill="{colour}"/>'
        yield f'<text x="{left + 18}" y="{y + 10}">{escape(_cut(name))}</text>'
        yield f'<text x="{right}" y="{y + 10}" text-anchor="end">{loss:.3f}</text>'
    if len(entries) > LEGEND_LINES:
        y = TOP + 18 * LEGEND_LINES + 10
        yield f'<text x="{left}" y="{y}">and {len(entries) - LEGEND_LINES} more</text>'


def _cut(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most MAX_POINTS of them, the last one always."""
    every = -(-len(points) // MAX_POINTS)
    return [*points[:-1:every], points[-1]]


def _short(number: float) -> str:
    """1,500,000 as 1.5M."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"
