"""Pictures of a study: arrays in, PNG or SVG bytes out, the same bytes for the same arrays.

Points are thinned before they are drawn, so that memory and file size do not grow with the
number of variants. Colours are told apart by colour-blind readers too (Okabe and Ito; the
maps *cividis* and *RdBu*). Text from users' files is never read as mathematics.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import special

BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#6b6b6b"
CHROMOSOME_COLOURS = ("#23507a", "#8fb0cc")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "rvga",
    "svg.fonttype": "path",
    "axes.unicode_minus": True,
}
_RASTER_DPI = 150
_MOST_LABELS = 60
# Small ones, in pictures as wide as the page allows.
_MOST_SMALL_LABELS = 80
_MNI_SHARE = 0.9
_MNI_EXTENT_MM = 60.0


@dataclass(frozen=True)
class Picture:
    """An encoded picture and what it shows in words."""

    data: bytes
    mime: str
    alternative: str

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` address, so that no other file is needed."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode()}"


def styled(draw: Callable[..., Picture]) -> Callable[..., Picture]:
    """Return the drawing function with the style of all pictures."""

    @wraps(draw)
    def inside(*arguments: Any, **options: Any) -> Picture:
        with rc_context(_STYLE):
            return draw(*arguments, **options)

    return inside


def encode(figure: Figure, alternative: str, *, raster: bool = False) -> Picture:
    """Return a figure as a picture: PNG where ``raster``, else SVG."""
    buffer = io.BytesIO()
    if raster:
        figure.savefig(buffer, format="png", dpi=_RASTER_DPI, metadata={"Software": None})
        return Picture(buffer.getvalue(), "image/png", alternative)
    figure.savefig(buffer, format="svg", dpi=_RASTER_DPI, metadata={"Date": None, "Creator": None})
    return Picture(buffer.getvalue(), "image/svg+xml", alternative)


# --- thinning ---------------------------------------------------------------------------


class GenomeThinner:
    """Keeps few points of a genome-wide scan: all above a level, one a cell below it.

    A cell is one column of the picture (a stretch of a chromosome) times one step of
    −log10 p, so the number kept below the level is bounded by the size of the grid,
    whatever the number of variants.

    Parameters
    ----------
    extents : mapping of str to (int, int)
        First and last position of each chromosome.
    level : float
        Points at or above it are all kept.
    columns : int
        Columns of the whole picture.
    step : float
        Height of a cell in −log10 p.
    """

    def __init__(
        self,
        extents: Mapping[str, tuple[int, int]],
        level: float,
        columns: int = 1500,
        step: float = 0.02,
    ):
        self.level = level
        self.step = step
        self.read = 0
        total = sum(last - first + 1 for first, last in extents.values())
        self._width = max(1.0, total / columns)
        self._extents = dict(extents)
        self._rows = max(1, int(np.ceil(max(level, step) / step)))
        self._seen = {
            name: np.zeros((int((last - first) // self._width) + 1, self._rows + 1), dtype=bool)
            for name, (first, last) in extents.items()
        }
        self._kept: list[tuple[str, np.ndarray, np.ndarray]] = []

    def add(self, chromosome: np.ndarray, position: np.ndarray, height: np.ndarray) -> None:
        """Take in variants: chromosome names, positions and −log10 p, each of shape (k,)."""
        self.read += len(position)
        for name in dict.fromkeys(chromosome.tolist()):
            rows = (chromosome == name) & np.isfinite(height)
            where, value = position[rows], height[rows]
            first, last = self._extents[name]
            column = ((np.clip(where, first, last) - first) // self._width).astype(np.int64)
            row = np.clip(value // self.step, 0, self._rows).astype(np.int64)
            seen = self._seen[name]
            cell = column * seen.shape[1] + row
            _, newest = np.unique(cell, return_index=True)
            fresh = np.zeros(len(cell), dtype=bool)
            fresh[newest] = ~seen.ravel()[cell[newest]]
            seen.ravel()[cell] = True
            keep = fresh | (value >= self.level)
            self._kept.append((name, where[keep], value[keep].astype(np.float64)))

    def points(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return positions and heights kept, by chromosome, in the order of the extents."""
        result = {}
        for name in self._extents:
            parts = [(where, value) for key, where, value in self._kept if key == name]
            if parts:
                result[name] = (
                    np.concatenate([where for where, _ in parts]),
                    np.concatenate([value for _, value in parts]),
                )
        return result

    @property
    def extents(self) -> dict[str, tuple[int, int]]:
        """First and last position of each chromosome."""
        return dict(self._extents)


class QuantileSketch:
    """Distribution of −log10 p in bounded memory: exact above ``exact_from``, binned below.

    Parameters
    ----------
    exact_from : float
        Values at or above it are kept as they are (one in a thousand under the null for 3).
    step : float
        Width of the bins below.
    """

    def __init__(self, exact_from: float = 3.0, step: float = 0.002):
        self.count = 0
        self._exact_from = exact_from
        self._step = step
        self._bins = np.zeros(round(exact_from / step), dtype=np.int64)
        self._large: list[np.ndarray] = []

    def add(self, neg_log_10_p: np.ndarray) -> None:
        """Take in values (k,); missing ones are left out."""
        values = neg_log_10_p[np.isfinite(neg_log_10_p)]
        self.count += len(values)
        large = values >= self._exact_from
        self._large.append(values[large])
        index = np.clip(values[~large] / self._step, 0, len(self._bins) - 1).astype(np.int64)
        self._bins += np.bincount(index, minlength=len(self._bins))

    def quantiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ranks from the largest (1 …) and values, descending; one rank a bin below."""
        large = np.sort(np.concatenate([*self._large, np.empty(0)]))[::-1]
        counts = self._bins[::-1]
        used = counts > 0
        before = len(large) + np.cumsum(counts) - counts
        middle = ((np.arange(len(counts))[::-1] + 0.5) * self._step)[used]
        rank = np.concatenate([np.arange(1, len(large) + 1), (before + (counts + 1) / 2)[used]])
        return rank, np.concatenate([large, middle])

    def inflation(self) -> float:
        """Return the genomic-control factor: median chi-square (1 df) over its expectation."""
        if self.count == 0:
            return float("nan")
        rank, value = self.quantiles()
        median = value[min(np.searchsorted(rank, (self.count + 1) / 2), len(value) - 1)]
        return float(special.chdtri(1, 10.0**-median) / special.chdtri(1, 0.5))


# --- representation ---------------------------------------------------------------------


@styled
def scree(eigenvalues: np.ndarray, total_variance: float, components: int) -> Picture:
    """Draw eigenvalues (k,) and their cumulated share of the total variance.

    ``total_variance`` of NaN leaves the share out; ``components`` is the number used.
    """
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    axes = figure.subplots()
    # The long tail of small eigenvalues would squeeze the ones that are used.
    eigenvalues = eigenvalues[: max(4 * components, 20)]
    number = np.arange(1, len(eigenvalues) + 1)
    positive = eigenvalues > 0
    axes.plot(number[positive], eigenvalues[positive], "o-", ms=3, lw=1, color=BLUE)
    axes.set_yscale("log")
    axes.set_xlabel("component")
    axes.set_ylabel("eigenvalue (image units²)", color=BLUE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(number) > components:
        axes.axvline(components + 0.5, color=GREY, lw=1, ls=":")
    axes.annotate(
        f"{components} used",
        (components + 0.5, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
        color=GREY,
    )
    if np.isfinite(total_variance):
        share = axes.twinx()
        share.spines["right"].set_visible(True)
        share.plot(number, np.cumsum(eigenvalues) / total_variance, "-", lw=1.6, color=ORANGE)
        share.set_ylim(0, 1.02)
        share.set_ylabel("cumulated share of variance", color=ORANGE)
    return encode(figure, f"Scree plot of {len(eigenvalues)} eigenvalues, {components} used")


@styled
def bandwidth_curve(bandwidth: np.ndarray, score: np.ndarray, chosen: float) -> Picture:
    """Draw the generalized cross-validation score of each bandwidth (h,); NaN is skipped."""
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(bandwidth)
    bandwidth, score = bandwidth[order], score[order]
    known = np.isfinite(score)
    axes.plot(bandwidth[known], score[known], "o-", ms=4, lw=1, color=BLUE)
    best = known & np.isclose(bandwidth, chosen)
    axes.plot(bandwidth[best], score[best], "D", ms=8, mfc="none", mew=1.8, color=ORANGE)
    for place in bandwidth[~known]:
        axes.axvline(place, color=GREY, lw=0.8, ls=":")
    axes.set_xlabel("bandwidth (mm)")
    axes.set_ylabel("GCV score (image units²)")
    return encode(figure, "Generalized cross-validation score by bandwidth")


@styled
def reconstruction_quality(
    components: np.ndarray, correlation: np.ndarray, centred: np.ndarray
) -> Picture:
    """Draw the mean correlation of image and reconstruction by number of components.

    ``correlation`` is of raw images and ``centred`` of images less their mean, (q,) each.
    """
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    axes = figure.subplots()
    axes.plot(components, correlation, "o-", ms=4, lw=1, color=BLUE, label="raw")
    axes.plot(components, centred, "s-", ms=3.5, lw=1, color=ORANGE, label="less the mean image")
    axes.axhline(0.0, color=GREY, lw=0.8)
    lowest = float(np.nanmin(np.concatenate([correlation, centred]), initial=0.0))
    axes.set_ylim(1.1 * lowest, 1.02)
    axes.set_xlabel("components")
    axes.set_ylabel("mean correlation with the image")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return encode(figure, "Quality of reconstruction by number of components")


@styled
def by_component(
    values: np.ndarray,
    label: str,
    expected: float,
    limit: float | None = None,
    standard_error: np.ndarray | None = None,
) -> Picture:
    """Draw one number a component (r,), what is expected of it, and a limit.

    With ``standard_error`` (r,) lines are 95 % intervals, else they end at what is expected.
    """
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.subplots()
    number = np.arange(1, len(values) + 1)
    axes.axhline(expected, color=GREY, lw=1)
    if limit is not None:
        axes.axhline(limit, color=GREY, lw=1, ls=":")
    if standard_error is None:
        axes.vlines(number, expected, values, color=BLUE, lw=1)
    else:
        half = 1.96 * standard_error
        axes.vlines(number, values - half, values + half, color=BLUE, lw=1)
    axes.plot(number, values, "o", ms=4, color=BLUE)
    axes.set_xlabel("component")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return encode(figure, f"{label} by component")


# --- association ------------------------------------------------------------------------


def _offsets(extents: Mapping[str, tuple[int, int]]) -> tuple[dict[str, float], float]:
    total = sum(last - first + 1 for first, last in extents.values())
    gap = 0.01 * total if len(extents) > 1 else 0.0
    offsets, here = {}, 0.0
    for name, (first, last) in extents.items():
        offsets[name] = here - first
        here += last - first + 1 + gap
    return offsets, here - gap


def _spread(wanted: np.ndarray, distance: float, low: float, high: float) -> np.ndarray:
    """Return places near ``wanted`` (ascending) that are ``distance`` apart within bounds."""
    places = wanted.astype(float).copy()
    distance = min(distance, (high - low) / max(1, len(places) - 1))
    for index in range(len(places)):
        floor = low if index == 0 else places[index - 1] + distance
        places[index] = max(places[index], floor)
    for index in range(len(places) - 1, -1, -1):
        ceiling = high if index == len(places) - 1 else places[index + 1] - distance
        places[index] = min(places[index], ceiling)
    return places


@styled
def manhattan(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    extents: Mapping[str, tuple[int, int]],
    threshold: float,
    leads: Sequence[tuple[str, int, float, str]] = (),
    most_labels: int = 20,
) -> Picture:
    """Draw image-wide −log10 p along the genome.

    Parameters
    ----------
    points : mapping of chromosome to (positions, heights)
        Thinned points.
    extents : mapping of chromosome to (first, last position)
        In the order to be drawn.
    threshold : float
        −log10 of the image-wide significance level.
    leads : sequence of (chromosome, position, height, label)
        Lead variants; the highest ``most_labels`` are labelled.
    """
    offsets, width = _offsets(extents)
    figure = Figure(figsize=(10, 4.3), layout="constrained")
    axes = figure.subplots()
    highest = threshold
    for number, name in enumerate(extents):
        if name not in points:
            continue
        where, height = points[name]
        place = where + offsets[name]
        below = height < threshold
        colour = CHROMOSOME_COLOURS[number % 2]
        axes.scatter(place[below], height[below], s=5, lw=0, color=colour, rasterized=True)
        axes.scatter(place[~below], height[~below], s=11, lw=0, color=ORANGE, rasterized=True)
        highest = max(highest, float(height.max(initial=0.0)))
    axes.axhline(threshold, color=GREY, lw=1, ls="--")
    labelled = sorted(leads, key=lambda lead: (-lead[2], lead[0], lead[1]))[:most_labels]
    labelled = [lead for lead in labelled if lead[0] in offsets]
    longest = max((min(len(lead[3]), 18) for lead in labelled), default=0)
    # Names stand above the points, at 60 degrees; the room they need is a share of the height.
    axes.set_ylim(0, highest * (1.12 / (1.0 - 0.018 * longest) if labelled else 1.06))
    axes.set_xlim(-0.01 * width, 1.01 * width)
    if labelled:
        labelled.sort(key=lambda lead: lead[1] + offsets[lead[0]])
        true = np.array([lead[1] + offsets[lead[0]] for lead in labelled])
        shown = _spread(true, 0.026 * width, 0.01 * width, 0.99 * width)
        for place, label_place, (_, _, height, text) in zip(true, shown, labelled, strict=True):
            axes.plot(
                [place, place, label_place],
                [height, highest * 1.03, highest * 1.10],
                color=GREY,
                lw=0.6,
            )
            axes.text(
                label_place,
                highest * 1.11,
                text if len(text) <= 18 else f"{text[:17]}…",
                rotation=60,
                rotation_mode="anchor",
                ha="left",
                va="center",
                fontsize=7.5,
                parse_math=False,
            )
    axes.set_ylabel("image-wide −log₁₀ p")
    if len(extents) == 1:
        ((name, (first, last)),) = extents.items()
        ticks = MaxNLocator(8).tick_values(first / 1e6, last / 1e6)
        ticks = ticks[(ticks * 1e6 >= first) & (ticks * 1e6 <= last)]
        axes.set_xticks(ticks * 1e6 + offsets[name], [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(f"position on chromosome {name} (Mb)")
    else:
        middles = [offsets[name] + (first + last) / 2 for name, (first, last) in extents.items()]
        room = [(last - first) / width for first, last in extents.values()]
        names = [
            name if share > 0.016 or number % 2 == 0 else ""
            for number, (name, share) in enumerate(zip(extents, room, strict=True))
        ]
        axes.set_xticks(middles, names)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("chromosome")
    return encode(figure, "Manhattan plot of image-wide p over the genome")


@styled
def qq(sketches: Mapping[str, QuantileSketch], most_points: int = 1500) -> Picture:
    """Draw observed against expected −log10 p, one panel a test, with a 95 % band.

    The band holds the quantiles of independent uniform p values, order statistic by order
    statistic (beta distribution); linkage disequilibrium makes real ones vary more.
    """
    figure = Figure(figsize=(4.4 * len(sketches), 4.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(sketches)))
    for axes, (name, sketch) in zip(panels, sketches.items(), strict=True):
        rank, value = sketch.quantiles()
        if sketch.count:
            expected = -np.log10((rank - 0.5) / sketch.count)
            cell = np.floor(expected / max(expected[0], 1e-9) * most_points)
            keep = np.concatenate([[True], np.diff(cell) != 0])
            line = np.unique(np.round(np.geomspace(1, sketch.count, 200)).astype(np.int64)).astype(
                float
            )
            axis = -np.log10((line - 0.5) / sketch.count)
            low, high = (
                -np.log10(special.betaincinv(line, sketch.count - line + 1, level))
                for level in (0.975, 0.025)
            )
            axes.fill_between(axis, low, high, color=GREY, alpha=0.25, lw=0)
            axes.plot([0, axis[0]], [0, axis[0]], color=GREY, lw=1)
            axes.scatter(
                expected[keep], value[keep], s=7, lw=0, color=BLUE, rasterized=True, zorder=3
            )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_title(name, loc="left")
        axes.set_xlabel("expected −log₁₀ p")
        axes.set_ylabel("observed −log₁₀ p")
    return encode(figure, "Quantile-quantile plots of " + " and ".join(sketches))


# --- heritability, correlations, truth ----------------------------------------------------


@styled
def histogram(
    values: np.ndarray, label: str, *, mean: float = float("nan"), mean_label: str = "mean"
) -> Picture:
    """Draw a histogram of finite values (N,), with a line at ``mean``."""
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    axes = figure.subplots()
    values = values[np.isfinite(values)]
    number = int(np.clip(np.sqrt(len(values)), 5, 50))
    axes.hist(values, bins=number, color=SKY, edgecolor="white", lw=0.3)
    if np.isfinite(mean):
        axes.axvline(mean, color=ORANGE, lw=1.6, label=f"{mean_label} {mean:.3f}")
        axes.legend()
    axes.set_xlabel(label)
    axes.set_ylabel("voxels")
    return encode(figure, f"Histogram of {label}")


@styled
def intervals(
    labels: Sequence[str], value: np.ndarray, standard_error: np.ndarray, axis_label: str
) -> Picture:
    """Draw estimates with 95 % intervals, largest at the top; shapes (k,)."""
    order = np.argsort(np.where(np.isfinite(value), value, -np.inf), kind="stable")
    figure = Figure(figsize=(6.2, max(1.6, 0.9 + 0.22 * len(order))), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.errorbar(
        value[order],
        rows,
        xerr=1.96 * standard_error[order],
        fmt="o",
        ms=4,
        lw=1.2,
        color=BLUE,
    )
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set_yticks(rows, [labels[index] for index in order], parse_math=False)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlabel(axis_label)
    return encode(figure, f"{axis_label} with 95 % intervals")


def cluster_order(correlation: np.ndarray) -> np.ndarray:
    """Return an order of rows (k,) that puts alike ones side by side.

    Average linkage on 1 − ρ with optimal leaf order; missing ρ counts as 0.
    """
    size = len(correlation)
    if size < 3:
        return np.arange(size)
    filled = np.nan_to_num(np.clip(correlation, -1, 1))
    # Imported here: most reports have no matrix to put in order.
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distance = 1.0 - (filled + filled.T) / 2
    np.fill_diagonal(distance, 0.0)
    linkage = hierarchy.linkage(squareform(distance, checks=False), "average")
    if size <= 400:
        linkage = hierarchy.optimal_leaf_ordering(linkage, squareform(distance, checks=False))
    return hierarchy.leaves_list(linkage)


@styled
def correlation_heat_map(
    correlation: np.ndarray,
    labels: Sequence[str] | None,
    bar_label: str,
    marked: np.ndarray | None = None,
) -> Picture:
    """Draw a symmetric matrix (k, k) in clustered order; missing cells are grey.

    Parameters
    ----------
    labels : sequence of str or None
        Row names; None when they say nothing (sampled voxels).
    marked : (k, k) bool or None
        Cells that get a dot.
    """
    order = cluster_order(correlation)
    shown = correlation[np.ix_(order, order)]
    size = len(order)
    named = labels is not None and size <= _MOST_SMALL_LABELS
    side = float(np.clip(2.6 + 0.2 * size, 4.2, 8.5)) if named else 5.0
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#c9c9c9")
    picture = axes.imshow(shown, cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, shrink=0.75)
    bar.set_label(bar_label)
    bar.outline.set_visible(False)
    if labels is None or not named:
        axes.set_xticks([])
        axes.set_yticks([])
    else:
        names = [labels[index] for index in order]
        names = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
        style = {"fontsize": 5.0} if size > _MOST_LABELS else {}
        axes.set_xticks(np.arange(size), names, rotation=90, parse_math=False, **style)
        axes.set_yticks(np.arange(size), names, parse_math=False, **style)
        axes.tick_params(length=0)
    if marked is not None:
        row, column = np.nonzero(marked[np.ix_(order, order)])
        dark = np.abs(shown[row, column]) > 0.6
        axes.scatter(
            column, row, s=max(3.0, 260.0 / size), lw=0, c=np.where(dark, "white", "black")
        )
    for spine in axes.spines.values():
        spine.set_visible(False)
    return encode(figure, f"Heat map: {bar_label}")


@styled
def region_heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    bar_label: str,
    marked: np.ndarray | None = None,
) -> Picture:
    """Draw correlations (k, l) of rows with columns, in the order given; missing cells are grey.

    Parameters
    ----------
    rows, columns : sequence of str
        Names of the k rows and l columns, small where they are many; more than fit are not
        written.
    marked : (k, l) bool or None
        Cells that get a dot.
    """
    k, l = values.shape
    width = float(np.clip(3.2 + 0.19 * l, 5.0, 11.0))
    height = float(np.clip(1.9 + 0.24 * k, 2.6, 14.0))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#c9c9c9")
    picture = axes.imshow(
        values, cmap=colours, vmin=-1, vmax=1, interpolation="nearest", aspect="auto"
    )
    bar = figure.colorbar(picture, ax=axes, pad=0.02)
    bar.set_label(bar_label)
    bar.outline.set_visible(False)
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        axis.set_tick_params(length=0)
        if len(names) > _MOST_SMALL_LABELS:
            axis.set_ticks([])
            continue
        short = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
        style = {"rotation": 90} if axis is axes.xaxis else {}
        if len(names) > _MOST_LABELS:
            style["fontsize"] = 5.5
        axis.set_ticks(np.arange(len(short)), short, parse_math=False, **style)
    if marked is not None:
        row, column = np.nonzero(marked)
        dark = np.abs(np.nan_to_num(values[row, column])) > 0.6
        axes.scatter(
            column,
            row,
            s=float(np.clip(260.0 / max(k, l), 3.0, 24.0)),
            lw=0,
            c=np.where(dark, "white", "black"),
        )
    for spine in axes.spines.values():
        spine.set_visible(False)
    return encode(figure, f"Heat map: {bar_label}")


@styled
def agreement(
    truth: np.ndarray,
    estimate: np.ndarray,
    x_label: str,
    y_label: str,
    standard_error: np.ndarray | None = None,
    most_points: int = 3000,
) -> Picture:
    """Draw estimates against the truth with the line of equality; shapes (k,).

    More than ``most_points`` are drawn as every so-many-th point, in the order given.
    """
    finite = np.isfinite(truth) & np.isfinite(estimate)
    truth, estimate = truth[finite], estimate[finite]
    figure = Figure(figsize=(4.2, 3.8), layout="constrained")
    axes = figure.subplots()
    step = max(1, -(-len(truth) // most_points))
    if standard_error is not None and len(truth) <= 100:
        axes.errorbar(
            truth, estimate, yerr=1.96 * standard_error[finite], fmt="o", ms=4, lw=1, color=BLUE
        )
    else:
        axes.scatter(
            truth[::step], estimate[::step], s=7, lw=0, alpha=0.5, color=BLUE, rasterized=True
        )
    if len(truth):
        ends = [min(truth.min(), estimate.min()), max(truth.max(), estimate.max())]
        axes.plot(ends, ends, color=ORANGE, lw=1.2, label="equality")
        axes.legend(loc="upper left")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return encode(figure, f"{y_label} against {x_label}")


# --- brain maps -------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """Where N voxels lie on a grid, and what is drawn behind them.

    Attributes
    ----------
    affine : (4, 4)
        Grid indices to millimetres.
    shape : (3,)
        Grid shape.
    index : (N, 3)
        Grid indices of the voxels.
    background : object or None
        A NIfTI image, or None.
    background_name : str
        For the captions.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    index: np.ndarray
    background: Any = None
    background_name: str = ""

    @property
    def coordinates(self) -> np.ndarray:
        """Voxel coordinates in millimetres, (N, 3)."""
        return self.index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def image(self, values: np.ndarray) -> Any:
        """Return a NIfTI image of values (N,): 0 outside and where they are missing.

        One empty voxel is added on all sides, because a grid of one plane has no extent.
        """
        import nibabel

        volume = np.zeros(np.asarray(self.shape) + 2, dtype=np.float32)
        volume[tuple(self.index.T + 1)] = np.nan_to_num(values, nan=0.0)
        affine = self.affine.copy()
        affine[:3, 3] -= self.affine[:3, :3].sum(axis=1)
        return nibabel.Nifti1Image(volume, affine)


def space_of(
    affine: np.ndarray, shape: tuple[int, int, int], index: np.ndarray, mean: np.ndarray | None
) -> Space:
    """Return the drawing space: on the MNI152 template when the voxels lie in it.

    They lie in it when at least nine in ten are inside the template's head and they span
    60 mm or more in two directions. Else the study's own mean map (N,) is the background.
    The template is part of nilearn; nothing is fetched.
    """
    space = Space(affine, shape, index)
    place = space.coordinates
    if np.sum(np.ptp(place, axis=0) >= _MNI_EXTENT_MM) >= 2:
        from nilearn.datasets import load_mni152_template

        template = load_mni152_template(resolution=2)
        inverse = np.linalg.inv(template.affine)
        grid = np.rint(place @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
        inside = np.all((grid >= 0) & (grid < template.shape), axis=1)
        head = np.asarray(template.dataobj)
        share = np.sum(head[tuple(grid[inside].T)] > 0.05) / len(grid)
        if share >= _MNI_SHARE:
            return Space(affine, shape, index, template, "MNI152 template")
    if mean is None or not np.any(np.nan_to_num(mean)):
        return space
    return Space(affine, shape, index, space.image(mean), "mean image of the study")


def limits(values: np.ndarray, diverging: bool) -> tuple[float, float]:
    """Return the ends of the colour scale of values."""
    finite = values[np.isfinite(values)]
    if diverging:
        largest = float(np.abs(finite).max(initial=0.0)) or 1.0
        return -largest, largest
    return 0.0, float(finite.max(initial=0.0)) or 1.0


def cuts(coordinates: np.ndarray, axis: int, number: int) -> list[float]:
    """Return up to ``number`` planes of voxels, evenly spread over those that hold most."""
    planes, count = np.unique(np.round(coordinates[:, axis], 3), return_counts=True)
    planes = planes[count >= 0.15 * count.max()]
    if len(planes) <= number:
        return planes.tolist()
    ends = np.linspace(0, len(planes) - 1, number + 2)[1:-1]
    return planes[np.unique(np.rint(ends).astype(int))].tolist()


def draw_brain(
    figure: Figure,
    values: np.ndarray,
    space: Space,
    diverging: bool,
    bounds: tuple[float, float],
    box: tuple[float, float, float, float],
    **planes: Any,
) -> None:
    """Draw planes of a map inside a box (left, bottom, width, height) of the figure."""
    from nilearn import plotting

    low, high = bounds
    # A whisker above zero: voxels outside the mask are stored as 0 and stay transparent.
    threshold = max(abs(low), abs(high)) * 1e-6
    display = plotting.plot_stat_map(
        space.image(values),
        bg_img=space.background,
        figure=figure,
        axes=box,
        colorbar=False,
        cmap="RdBu_r" if diverging else "viridis",
        vmin=low,
        vmax=high,
        symmetric_cbar=diverging,
        threshold=threshold,
        black_bg=False,
        dim=0.8 if space.background is not None else 0,
        resampling_interpolation="nearest",
        annotate=False,
        **planes,
    )
    display.annotate(size=9)


def _draw_with_bar(
    figure: Figure,
    values: np.ndarray,
    space: Space,
    bar_label: str,
    diverging: bool,
    bar_left: float,
    **planes: Any,
) -> None:
    bounds = limits(values, diverging)
    draw_brain(figure, values, space, diverging, bounds, (0.0, 0.0, bar_left - 0.01, 1.0), **planes)
    axes = figure.add_axes((bar_left, 0.16, 0.018, 0.68))
    colours = "RdBu_r" if diverging else "viridis"
    bar = figure.colorbar(ScalarMappable(Normalize(*bounds), colours), cax=axes)
    bar.set_label(bar_label)
    bar.outline.set_visible(False)
    whole = bool(np.all(np.mod(values[np.isfinite(values)], 1) == 0))
    bar.locator = MaxNLocator(5, integer=whole)
    bar.update_ticks()


@styled
def brain_slices(
    values: np.ndarray, space: Space, bar_label: str, *, diverging: bool = False, number: int = 7
) -> Picture:
    """Draw axial slices of a map (N,); missing values and exact zeros are transparent."""
    planes = cuts(space.coordinates, 2, number)
    width = 10.0 if len(planes) > 4 else 6.0
    figure = Figure(figsize=(width, 1.85))
    _draw_with_bar(
        figure,
        values,
        space,
        bar_label,
        diverging,
        1 - 0.8 / width,
        display_mode="z",
        cut_coords=planes,
    )
    return encode(figure, f"Axial slices: {bar_label}", raster=True)


@styled
def brain_planes(
    values: np.ndarray,
    space: Space,
    bar_label: str,
    at: Sequence[float],
    *,
    diverging: bool = True,
) -> Picture:
    """Draw the three planes through a point (mm) of a map (N,)."""
    figure = Figure(figsize=(6.0, 2.3))
    _draw_with_bar(
        figure,
        values,
        space,
        bar_label,
        diverging,
        1 - 0.8 / 6.0,
        display_mode="ortho",
        cut_coords=tuple(float(value) for value in at),
        draw_cross=True,
    )
    return encode(figure, f"Three planes: {bar_label}", raster=True)
