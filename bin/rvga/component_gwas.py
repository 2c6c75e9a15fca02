"""Component GWAS: least squares of every component on every variant (method 2).

Arrays in, arrays out. Blocks of packed genotypes are multiplied with the components and covariates
in whole numbers where the processor has tiles for it (:mod:`rvga.tile_products`), elsewhere, and
where someone is too far from all others for that, in single precision
(:mod:`rvga.single_products`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rvga.machine_code import compiled
from rvga.packed import Packed, dosage_range
from rvga.ploidy import DIPLOID, Sexes, code, equilibrium_counts
from rvga.single_products import (
    SingleColumns,
    SingleSpace,
    single_columns,
    single_products,
    single_space_bytes,
)
from rvga.tile_products import (
    TileSpace,
    WholeColumns,
    available,
    rounding,
    tile_products,
    tile_space_bytes,
    whole_columns,
)
from rvga.variant_filters import (
    COLLINEAR,
    ESTIMATED,
    FEW_CARRIERS,
    Filters,
    hardy_weinberg_p,
    mach_r2,
    screen,
)

BLOCK_VARIANTS = 512
# Share of the sum of squares that covariates must leave; below, the variant is collinear.
COLLINEAR_SHARE = 1e-6
# Below this share the single-precision projection is repeated in double precision.
_DOUBLE_SHARE = 0.1
# Above this squared correlation with a component too: SE goes with what it leaves of one.
_DOUBLE_R2 = 0.5
# Error of z that is allowed, and the standard deviations that are to stay within: over all variants
# and components of a study.
_Z_ERROR, _DEVIATIONS = 1e-4, 6.0
# Below this share, who has the most of a rare variant is looked up without the covariates.
_EXPLAINED_SHARE = 0.5


@dataclass(frozen=True)
class NullModel:
    """Covariates factored and components without them, ready for products.

    Attributes
    ----------
    Q : (n, p) float64
        Orthonormal basis of the covariates and the intercept.
    residuals : (n, r) float64
        Residual components, each of unit length.
    right : WholeColumns or SingleColumns
        [residuals | Q] times sqrt(n), the right side of every product.
    """

    Q: np.ndarray
    residuals: np.ndarray
    right: WholeColumns | SingleColumns

    @property
    def n(self) -> int:
        """Number of people."""
        return self.Q.shape[0]

    @property
    def p(self) -> int:
        """Number of covariates, the intercept included."""
        return self.Q.shape[1]

    @property
    def r(self) -> int:
        """Number of components."""
        return self.residuals.shape[1]

    @property
    def nu(self) -> int:
        """Degrees of freedom, n - p - 1."""
        return self.n - self.p - 1

    @property
    def arithmetic(self) -> str:
        """Of the products: ``whole`` numbers or ``single`` precision."""
        return "whole" if isinstance(self.right, WholeColumns) else "single"


def null_model(
    Q: np.ndarray,
    residual_ldrs: np.ndarray,
    order: np.ndarray | None = None,
    *,
    tiles: bool | None = None,
) -> NullModel:
    """Prepare the right side of the products.

    Parameters
    ----------
    Q : (n, p)
        Orthonormal basis of the covariates; its span holds the intercept.
    residual_ldrs : (n, r)
        P S.
    order : (n,) array of int, optional
        Rows in the order of the people of the genotypes.
    tiles : bool, optional
        Multiply in whole numbers by the processor's tiles; by default where it has them and z is
        exact with all components.

    Raises
    ------
    ValueError
        Too few people, or a component without residual variance.
    """
    Q = np.asarray(Q, dtype=np.float64)
    S = np.asarray(residual_ldrs, dtype=np.float64)
    n, p = Q.shape
    if S.shape[0] != n:
        raise ValueError(f"Q has {n} rows, the residual components {S.shape[0]}")
    if n - p - 1 < 1:
        raise ValueError(f"{n} people are too few for {p} covariates and a variant")
    length = np.linalg.norm(S, axis=0)
    if not np.all(length > 0):
        raise ValueError(
            f"component {int(np.argmin(length)) + 1} does not vary once covariates are removed"
        )
    if order is None:
        S = S / length
    else:
        Q, S = Q[order], S[order]
        S /= length
    right = np.concatenate([S, Q], axis=1)
    right *= np.sqrt(n)
    if tiles is None:
        tiles = available() and _whole_is_exact(right[:, : S.shape[1]])
    return NullModel(Q, S, whole_columns(right) if tiles else single_columns(right))


def _whole_is_exact(components: np.ndarray) -> bool:
    """Return whether components (n, r) rounded to whole numbers leave z as exact as it must be.

    A product is off by |g - mean| times :func:`rvga.tile_products.rounding`, and so z by that over
    sqrt(a (1 - rho^2)); where this divisor is small, products are repeated in double precision.
    Errors of the covariates' products, of which only a is made, are 1/sqrt(n) of that.
    """
    least = np.sqrt(_DOUBLE_SHARE * (1.0 - _DOUBLE_R2))
    return bool(_DEVIATIONS * rounding(components).max() <= _Z_ERROR * least)


@dataclass(frozen=True)
class BlockResult:
    """What a block of m variants gives.

    Attributes
    ----------
    first, stop : int
        Place of the block.
    status : (m,) int8
        ``ESTIMATED``, or why not (:mod:`rvga.variant_filters`).
    a : (m,) float64
        g'Pg; NaN where nothing was estimated.
    z : (m, r) float64
        t statistics; NaN where nothing was estimated.
    frequency : (m,) float64
        Effect-allele frequency among the called; NaN where all are missing.
    missing_rate : (m,) float64
        Share of people without a genotype.
    haploid_heterozygotes : (m,) int64
        Genotypes made missing because they show two alleles where there is one.
    """

    first: int
    stop: int
    status: np.ndarray
    a: np.ndarray
    z: np.ndarray
    frequency: np.ndarray
    missing_rate: np.ndarray
    haploid_heterozygotes: np.ndarray


class Workspace:
    """Memory of the products of one thread, with null models of either arithmetic.

    Parameters
    ----------
    columns : int
        Components and covariates, r + p.
    block_variants : int
        At least the largest block.
    """

    def __init__(self, columns: int, block_variants: int = BLOCK_VARIANTS):
        self.columns, self.block_variants = columns, block_variants
        self.total = np.zeros((block_variants, columns))

    @cached_property
    def tiles(self) -> TileSpace:
        """Memory of products in whole numbers, from their first use."""
        return TileSpace(self.columns)

    @cached_property
    def single(self) -> SingleSpace:
        """Memory of products in single precision, from their first use."""
        return SingleSpace(self.columns, self.block_variants)


def workspace_bytes(columns: int, block_variants: int = BLOCK_VARIANTS) -> int:
    """Return the bytes of a :class:`Workspace` and of a block's results."""
    own = single_space_bytes(columns, block_variants)
    if available():
        own += tile_space_bytes(columns)
    return own + block_variants * (8 + 3 * 8) * columns


def associate_block(
    block: Packed,
    null: NullModel,
    workspace: Workspace | None = None,
    *,
    first: int = 0,
    filters: Filters | None = None,
    kind: int = DIPLOID,
    sexes: Sexes | None = None,
    info: np.ndarray | None = None,
) -> BlockResult:
    """Return the least-squares results of one block.

    With missing genotypes at the variant's mean, ``a = |g - mean|^2 - |Q'(g - mean)|^2`` and
    ``z = rho sqrt(nu / (1 - rho^2))`` with ``rho = g'PS_j / sqrt(a A_jj)``. The caller limits BLAS
    to one thread.

    Parameters
    ----------
    block : Packed
        Genotypes of the null model's people, in its order; impossible ones are made missing in
        place (:func:`rvga.ploidy.code`).
    workspace : Workspace, optional
        Memory that no other thread uses.
    filters : Filters, optional
        Which variants are estimated.
    kind, sexes
        As for :func:`rvga.ploidy.code`.
    info : (m,) array, optional
        Imputation quality; NaN where unknown. For dosages without one it is computed.
    """
    filters = filters or Filters()
    m = len(block)
    if workspace is None:
        workspace = Workspace(null.right.columns, max(m, 1))
    if block.n != null.n:
        raise ValueError(f"the block has {block.n} people, the null model {null.n}")
    if m > workspace.block_variants:
        raise ValueError(f"the block has {m} variants, more than {workspace.block_variants}")
    if workspace.columns != null.right.columns:
        raise ValueError(
            f"the working memory is for {workspace.columns} columns, the null model has "
            f"{null.right.columns}"
        )
    counted = code(block, kind, sexes)
    called, total = counted.people.called, counted.people.total
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / called
        # All in whole numbers for calls, so exact; for dosages nothing that matters is lost.
        squares = np.maximum(counted.people.squares * called - total * total, 0.0) / called
        frequency = counted.alleles / counted.chromosomes
    squares = np.nan_to_num(squares)
    status = screen(
        filters,
        called=called,
        variation=squares,
        alleles=counted.alleles,
        chromosomes=counted.chromosomes,
        missing_rate=counted.missing_rate,
        info=_quality(block, counted.expected_factor, called, squares, frequency, filters, info),
        hardy_weinberg=_equilibrium(block, kind, sexes, filters),
    )
    products = _products(block, mean, called, null, workspace)
    projection = products[:, null.r :]
    a = squares - np.einsum("mp,mp->m", projection, projection) / null.n
    used = status == ESTIMATED
    share = _largest_share(block, mean, squares, used & filters.may_have_few_carriers(squares))
    # What covariates leave of a rare variant may be one person's, too.
    again = (a < _DOUBLE_SHARE * squares) | (
        (a < _EXPLAINED_SHARE * squares) & filters.may_have_few_carriers(a)
    )
    largest = np.abs(products[:, : null.r]).max(axis=1, initial=0.0)
    again |= np.square(largest) > _DOUBLE_R2 * null.n * a
    for row in np.flatnonzero(used & again):
        g = np.nan_to_num(block.dosage(row) - mean[row])
        # Twice, because one projection leaves rounding of the size of what was removed.
        residual = g - null.Q @ (null.Q.T @ g)
        residual -= null.Q @ (null.Q.T @ residual)
        a[row] = residual @ residual
        products[row, : null.r] = (residual @ null.residuals) * np.sqrt(null.n)
        share[row] = max(share[row], np.square(residual).max() / max(a[row], 1e-300))
    status[used & ~(a > COLLINEAR_SHARE * squares)] = COLLINEAR
    status[(status == ESTIMATED) & (share > filters.largest_share * (1 + 1e-9))] = FEW_CARRIERS
    a[status != ESTIMATED] = np.nan
    z = np.empty((m, null.r))
    _t_statistics(products, 1.0 / np.sqrt(null.n * a), float(null.nu), z)
    return BlockResult(
        first=first,
        stop=first + m,
        status=status,
        a=a,
        z=z,
        frequency=frequency,
        missing_rate=counted.missing_rate,
        haploid_heterozygotes=counted.haploid_heterozygotes,
    )


def _largest_share(block, mean, squares, asked) -> np.ndarray:
    """Return the largest share that one person has in the sum of squares, (m,); 0 if not asked."""
    share = np.zeros(len(block))
    rows = np.flatnonzero(asked)
    if len(rows):
        away = dosage_range(block, rows) - mean[rows, None]
        share[rows] = np.square(away).max(axis=1) / squares[rows]
    return share


def _quality(block, factor, called, squares, frequency, filters, info) -> np.ndarray:
    """Return imputation quality, (m,): that given, else of dosages, else NaN."""
    quality = np.full(len(block), np.nan) if info is None else np.asarray(info, dtype=float)
    if filters.minimum_info > 0 and not block.is_calls:
        computed = mach_r2(called, squares, frequency, factor)
        quality = np.where(np.isnan(quality), computed, quality)
    return quality


def _equilibrium(block, kind, sexes, filters) -> np.ndarray:
    """Return p of Hardy-Weinberg equilibrium, (m,); NaN where it is not asked for."""
    number = equilibrium_counts(block, kind, sexes) if filters.hardy_weinberg_p > 0 else None
    return np.full(len(block), np.nan) if number is None else hardy_weinberg_p(number)


def _products(
    block: Packed, mean: np.ndarray, called: np.ndarray, null: NullModel, work: Workspace
) -> np.ndarray:
    """Return (g - mean)' [residuals | Q] sqrt(n), (m, r + p) in double precision."""
    centre = np.nan_to_num(mean)
    if isinstance(null.right, WholeColumns):
        tile_products(block, centre, called, null.right, work.tiles, work.total)
    else:
        single_products(block, centre, null.right, work.single, work.total)
    return work.total[: len(block)]


@compiled
def _t_statistics(products, factor, nu, z):
    """Write z = rho sqrt(nu / (1 - rho^2)), rho = factor x product; NaN factors give NaN."""
    for row in range(z.shape[0]):
        line, target, by = products[row], z[row], factor[row]
        for column in range(target.shape[0]):
            rho = line[column] * by
            target[column] = rho * np.sqrt(nu / max(1.0 - rho * rho, 1e-300))
