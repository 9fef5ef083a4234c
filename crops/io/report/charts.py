"""Charts as SVG text for embedding: transparent, mid-grey text, readable on light and on dark ground."""

import io
from collections.abc import Mapping, Sequence

GREY = "#808890"
COLOURS = ("#3b82c4", "#e07b39", "#4a9d5b", "#a86bc2")  # readable on white and on near-black


def lines(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x: str, y: str, diagonal: bool = False) -> str:
    """One line per name, {name: (xs, ys)}; `diagonal` adds the line y = x. Same values, same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    # Fixed salt and no date: otherwise the same chart has other bytes each time.
    with matplotlib.rc_context({"svg.hashsalt": "crops", "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        if diagonal:
            axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        for (name, (xs, ys)), colour in zip(series.items(), COLOURS * len(series), strict=False):
            axes.plot(xs, ys, color=colour, marker="o", markersize=3, linewidth=1.6, label=name)
        axes.set_xlabel(x, color=GREY)
        axes.set_ylabel(y, color=GREY)
        axes.tick_params(colors=GREY)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GREY)
        axes.patch.set_alpha(0)
        if len(series) > 1:
            axes.legend(frameon=False, labelcolor=GREY, fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
