"""Charts as SVG text for embedding: transparent, text and axes in the page's own colour, lines readable on
light and on dark ground.
"""

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# No grey has the contrast of text (4.5 to 1) on white and on near-black alike: matplotlib draws in this one,
# and the page's own colour takes its place.
GREY = "#808890"
# At least 3 to 1, as graphics need, on white and on near-black.
COLOURS = ("#3b82c4", "#d0692a", "#3f8f50", "#a86bc2", "#c94f6d", "#858a35", "#1f938b", "#8c6d5a")

Interval = tuple[float, float, float]  # value, low, high


class Drawing:
    """An axes to draw on, and the SVG text once the block has ended."""

    def __init__(self, axes: Any) -> None:
        self.axes, self.svg = axes, ""

    def legend(self) -> None:
        """Names of the series, without a frame."""
        self.axes.legend(frameon=False, labelcolor=GREY, fontsize=9)


@contextmanager
def _drawing(width: float, height: float, *, x: str, y: str, title: str) -> Iterator[Drawing]:
    import matplotlib
    from matplotlib.figure import Figure

    # Fixed salt and no date: otherwise the same chart has other bytes each time.
    with matplotlib.rc_context({"svg.hashsalt": "crops", "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(width, height), layout="constrained")
        drawn = Drawing(figure.add_subplot())
        yield drawn
        axes = drawn.axes
        axes.set_xlabel(x, color=GREY)
        axes.set_ylabel(y, color=GREY)
        axes.tick_params(colors=GREY)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GREY)
        axes.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    named = html.escape(title or " ".join(filter(None, (y, x))))
    drawn.svg = (
        text[text.index("<svg") :]
        .replace("<svg", f'<svg role="img" aria-label="{named}"', 1)
        .replace(GREY, "currentColor")
    )


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    diagonal: bool = False,
    colours: Mapping[str, str] | None = None,
    title: str = "",
) -> str:
    """One line per name, {name: (xs, ys)}; `diagonal` adds the line y = x. Same values, same bytes.

    colours  of the names that have one everywhere; title: what the chart shows, for who cannot see it
    """
    with _drawing(5.4, 3.2, x=x, y=y, title=title) as drawn:
        if diagonal:
            drawn.axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        for (name, (xs, ys)), colour in zip(series.items(), COLOURS * len(series), strict=False):
            colour = (colours or {}).get(name, colour)
            drawn.axes.plot(xs, ys, color=colour, marker="o", markersize=3, linewidth=1.6, label=name)
        if len(series) > 1:
            drawn.legend()
    return drawn.svg


def bars(values: Mapping[str, float], *, x: str, y: str, title: str = "") -> str:
    """One upright bar per name, in their order: {name: height}."""
    with _drawing(5.4, 2.6, x=x, y=y, title=title) as drawn:
        drawn.axes.bar(range(len(values)), [*values.values()], color=COLOURS[0], width=0.8)
        step = -(-len(values) // 12)  # twelve labels fit
        drawn.axes.set_xticks(range(0, len(values), step), [*values][::step])
    return drawn.svg


def over_time(days: Sequence[str], band: Sequence[Interval], *, y: str) -> str:
    """One value per day with its interval as a band around it, and the line of no difference."""
    at = range(len(days))
    with _drawing(4.6, 2.7, x="", y=y, title=f"{y}, day by day") as drawn:
        axes = drawn.axes
        axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
        axes.fill_between(
            at,
            [low for _, low, _ in band],
            [high for _, _, high in band],
            color=COLOURS[0],
            alpha=0.25,
            linewidth=0,
        )
        axes.plot(
            at, [value for value, _, _ in band], color=COLOURS[0], marker="o", markersize=3, linewidth=1.6
        )
        step = -(-len(days) // 6)  # six labels fit
        axes.set_xticks(list(at)[::step], list(days)[::step])
    return drawn.svg


def intervals(
    series: Mapping[str, Mapping[str, Interval]],
    *,
    x: str,
    zero: bool = False,
    colours: Mapping[str, str] | None = None,
    title: str = "",
) -> str:
    """Dots with intervals, a row per name and a colour per series: {series: {row: (value, low, high)}}; first
    row on top.

    zero     draws the line of no difference
    colours  of the series that have one everywhere; title: what the chart shows, for who cannot see it
    """
    rows = list(dict.fromkeys(row for values in series.values() for row in values))
    with _drawing(9.6, 0.9 + max(0.42, 0.11 * len(series)) * len(rows), x=x, y="", title=title) as drawn:
        axes = drawn.axes
        if zero:
            axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
        for n, (name, values) in enumerate(series.items()):
            shift = 0.6 * ((n + 0.5) / len(series) - 0.5)
            at = [rows.index(row) + shift for row in values]
            points = list(values.values())
            spread = [
                [max(0.0, v - low) for v, low, _ in points],
                [max(0.0, high - v) for v, _, high in points],
            ]
            colour = (colours or {}).get(name, COLOURS[n % len(COLOURS)])
            axes.errorbar(
                [v for v, _, _ in points],
                at,
                xerr=spread,
                fmt="o",
                color=colour,
                markersize=4,
                linewidth=1.4,
                label=name,
            )
        axes.set_yticks(range(len(rows)), rows)
        axes.invert_yaxis()
        axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
        if len(series) > 1:
            axes.legend(
                frameon=False, labelcolor=GREY, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5)
            )
    return drawn.svg
