"""Pictures: what is thinned, what is kept, and the same bytes each time."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from scipy import stats

from rvga import figures

EXTENTS = {"1": (1, 3_000_000), "X": (1, 1_000_000)}


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def scan(rng, number):
    chromosome = np.where(rng.random(number) < 0.7, "1", "X").astype(object)
    position = rng.integers(1, 1_000_000, number)
    height = rng.exponential(size=number)
    return chromosome, position, height


def test_thinning_keeps_all_significant_points(rng):
    chromosome, position, height = scan(rng, 50_000)
    level = 4.0
    thinner = figures.GenomeThinner(EXTENTS, level, columns=50, step=0.5)
    for first in range(0, 50_000, 7_000):
        part = slice(first, first + 7_000)
        thinner.add(chromosome[part], position[part], height[part])
    assert thinner.read == 50_000
    for name, (where, value) in thinner.points().items():
        mine = (chromosome == name) & (height >= level)
        above = value >= level
        np.testing.assert_array_equal(np.sort(value[above]), np.sort(height[mine]))
        # Every point kept was given.
        given = set(zip(position[chromosome == name], height[chromosome == name], strict=True))
        assert set(zip(where, value, strict=True)) <= given


def test_thinning_leaves_one_point_in_each_cell_that_has_any(rng):
    chromosome, position, height = scan(rng, 30_000)
    level, step = 4.0, 0.5
    thinner = figures.GenomeThinner(EXTENTS, level, columns=40, step=step)
    for first in range(0, 30_000, 1_000):
        part = slice(first, first + 1_000)
        thinner.add(chromosome[part], position[part], height[part])
    width = 4_000_000 / 40

    def cells(where, value):
        below = value < level
        return list(zip(((where - 1) // width)[below], (value // step)[below], strict=True))

    for name, (where, value) in thinner.points().items():
        kept = cells(where, value)
        all_cells = cells(position[chromosome == name], height[chromosome == name])
        assert len(kept) == len(set(kept))
        assert set(kept) == set(all_cells)


def test_points_drawn_do_not_grow_with_the_number_of_variants(rng):
    kept = []
    for number in (20_000, 200_000):
        thinner = figures.GenomeThinner(EXTENTS, 50.0, columns=100, step=0.1)
        thinner.add(*scan(rng, number))
        kept.append(sum(len(where) for where, _ in thinner.points().values()))
    assert kept[1] <= 100 * 501
    assert kept[1] < 2 * kept[0]


def test_missing_values_are_left_out():
    thinner = figures.GenomeThinner(EXTENTS, 5.0)
    thinner.add(np.array(["1", "1"], dtype=object), np.array([5, 6]), np.array([np.nan, 1.0]))
    assert thinner.points()["1"][0].tolist() == [6]
    sketch = figures.QuantileSketch()
    sketch.add(np.array([np.nan, 1.0]))
    assert sketch.count == 1


def test_sketch_has_the_quantiles_of_all_values(rng):
    values = rng.exponential(size=100_000) / np.log(10)
    values[:20] += 30
    sketch = figures.QuantileSketch()
    for part in np.array_split(values, 9):
        sketch.add(part)
    rank, value = sketch.quantiles()
    descending = np.sort(values)[::-1]
    exact = descending >= 3
    np.testing.assert_array_equal(value[: exact.sum()], descending[exact])
    nearest = descending[np.clip(np.rint(rank - 1).astype(int), 0, len(values) - 1)]
    assert np.abs(value - nearest).max() < 0.002
    median = np.median(stats.chi2.isf(10.0**-values, 1)) / stats.chi2.isf(0.5, 1)
    assert sketch.inflation() == pytest.approx(median, abs=0.01)
    assert np.isnan(figures.QuantileSketch().inflation())


def test_labels_are_spread_within_bounds():
    wanted = np.array([0.0, 0.01, 0.02, 5.0, 9.99, 10.0])
    places = figures._spread(wanted, 1.0, 0.0, 10.0)
    assert np.all(np.diff(places) >= 1.0 - 1e-12)
    assert places.min() >= 0
    assert places.max() <= 10
    crowded = figures._spread(np.zeros(30), 1.0, 0.0, 10.0)
    assert crowded.max() <= 10 + 1e-9
    assert np.all(np.diff(crowded) > 0)


def test_cluster_order_puts_alike_rows_together():
    group = np.array([0, 1, 0, 1, 1, 0, 0, 1])
    correlation = np.where(group[:, None] == group[None, :], 0.9, -0.2)
    correlation[0, 1] = correlation[1, 0] = np.nan
    ordered = group[figures.cluster_order(correlation)]
    assert np.count_nonzero(np.diff(ordered)) == 1


def everything(rng):
    """Return one picture of each kind, with text that must not be read as mathematics."""
    nasty = "$\\frac{<script>"
    values = rng.normal(size=40)
    thinner = figures.GenomeThinner(EXTENTS, 7.3)
    thinner.add(*scan(rng, 2_000))
    sketch = figures.QuantileSketch()
    sketch.add(rng.exponential(size=500))
    matrix = np.corrcoef(rng.normal(size=(6, 9)))
    leads = [("1", 5_000, 9.0, nasty), ("X", 5, 12.0, "rs1"), ("X", 6, 12.0, "a" * 90)]
    return [
        figures.scree(np.exp(-np.arange(9.0)), 2.0, 5),
        figures.scree(np.array([1.0, 0.5]), np.nan, 2),
        figures.bandwidth_curve(np.array([1, 2, 4.0]), np.array([2, 1, np.nan]), 2.0),
        figures.reconstruction_quality(
            np.array([1, 5]), np.array([-0.2, 0.7]), np.array([0.3, np.nan])
        ),
        figures.manhattan(thinner.points(), EXTENTS, 7.3, leads),
        figures.manhattan({"1": thinner.points()["1"]}, {"1": EXTENTS["1"]}, 7.3),
        figures.qq({"one": sketch, "none": figures.QuantileSketch()}),
        figures.histogram(values, "h²", mean=0.1),
        figures.intervals([nasty, "b"], np.array([0.1, np.nan]), np.array([0.1, np.nan]), "h²"),
        figures.correlation_heat_map(matrix, [nasty, *"bcdef"], "ρ", np.abs(matrix) > 0.3),
        figures.correlation_heat_map(matrix[:1, :1], None, "ρ"),
        figures.agreement(values, values, "truth", "estimate"),
        figures.agreement(values[:3], values[:3], "truth", "estimate", np.ones(3)),
    ]


def test_pictures_are_the_same_bytes_each_time():
    first, second = (everything(np.random.default_rng(1)) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert one.data == two.data
        assert one.mime == "image/svg+xml"
        assert b"dc:date" not in one.data


def brain(spacing: float, shape, origin) -> figures.Space:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    index = np.argwhere(np.ones(shape, dtype=bool))
    return figures.space_of(affine, shape, index, np.arange(len(index), dtype=float))


def test_voxels_in_a_head_are_drawn_on_the_template_and_others_on_their_mean():
    assert brain(12.0, (8, 8, 5), (-42, -60, -10)).background_name == "MNI152 template"
    assert "mean" in brain(12.0, (8, 8, 5), (400, 400, 400)).background_name
    assert "mean" in brain(1.0, (8, 8, 5), (0, 0, 0)).background_name
    lonely = figures.space_of(np.eye(4), (2, 2, 2), np.array([[0, 0, 0]]), None)
    assert lonely.background is None


@pytest.mark.parametrize(
    "space",
    [
        brain(12.0, (8, 8, 5), (-42, -60, -10)),
        brain(2.0, (3, 4, 1), (0, 0, 0)),
        brain(2.0, (1, 1, 1), (0, 0, 0)),
        brain(-3.0, (4, 4, 3), (10, 10, 10)),
    ],
    ids=["head", "sheet", "one voxel", "flipped"],
)
def test_maps_of_any_geometry_are_drawn_without_a_warning(space, rng):
    values = rng.normal(size=len(space.index)) + 3
    values[1:2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slices = figures.brain_slices(values, space, "h²")
        planes = figures.brain_planes(values, space, "z", space.coordinates[0])
        again = figures.brain_planes(values, space, "z", space.coordinates[0])
    for picture in (slices, planes):
        assert picture.data.startswith(b"\x89PNG")
        assert picture.uri.startswith("data:image/png;base64,")
    assert planes.data == again.data


def test_a_space_puts_values_where_their_voxels_lie(rng):
    index = np.array([[0, 1, 1], [2, 0, 1]])
    space = figures.Space(np.diag([2.0, 2, 2, 1]), (3, 2, 2), index)
    image = space.image(np.array([4.0, np.nan]))
    (place,) = np.argwhere(image.get_fdata())
    np.testing.assert_array_equal(image.affine @ [*place, 1], [0, 2, 2, 1])
    assert image.get_fdata()[tuple(place)] == 4.0
    np.testing.assert_array_equal(space.coordinates[0], [0, 2, 2])


def test_slices_go_through_planes_of_voxels():
    space = brain(3.0, (4, 4, 20), (0, 0, -11))
    cuts = figures.cuts(space.coordinates, 2, 7)
    assert len(cuts) == 7
    assert set(cuts) <= set(space.coordinates[:, 2])


@pytest.mark.parametrize(("regions", "written"), [(24, 24), (68, 68), (80, 80), (81, 0)])
def test_names_of_regions_are_written_as_long_as_they_fit(monkeypatch, regions, written):
    monkeypatch.setattr(figures, "encode", lambda figure, alternative: figure)
    figure = figures.region_heat_map(
        np.zeros((14, regions)), [f"trait {k}" for k in range(14)],
        [f"lh region {k}" for k in range(regions)], "genetic correlation",
    )  # fmt: skip
    axes = figure.axes[0]
    assert len(axes.get_xticklabels()) == written
    assert len(axes.get_yticklabels()) == 14
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(one.x1 <= other.x0 + 1 for one, other in itertools.pairwise(boxes))


@pytest.mark.parametrize(("regions", "written"), [(24, 24), (68, 68), (80, 80), (81, 0)])
def test_names_of_pairs_of_regions_are_written_as_long_as_they_fit(monkeypatch, regions, written):
    monkeypatch.setattr(figures, "encode", lambda figure, alternative: figure)
    names = [f"lh region {k}" for k in range(regions)]
    figure = figures.correlation_heat_map(np.eye(regions), names, "genetic correlation")
    figure.canvas.draw()
    axes = figure.axes[0]
    for labels, side in ((axes.get_xticklabels(), 0), (axes.get_yticklabels(), 1)):
        assert len(labels) == written
        edges = sorted(
            (box.x0, box.x1) if side == 0 else (box.y0, box.y1)
            for box in (label.get_window_extent() for label in labels)
        )
        assert all(one[1] <= other[0] + 1 for one, other in itertools.pairwise(edges))
