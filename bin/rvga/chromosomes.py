"""One spelling of chromosome names: ``1`` … ``22``, ``X``, ``Y``, ``MT``; where X pairs with Y."""

from __future__ import annotations

import numpy as np

from rvga.errors import InputError

AUTOSOMES = tuple(str(number) for number in range(1, 23))
CHROMOSOMES = (*AUTOSOMES, "X", "Y", "MT")
RANK = {name: rank for rank, name in enumerate(CHROMOSOMES, start=1)}
_ALIASES = {
    **{name: name for name in CHROMOSOMES},
    **{f"0{number}": str(number) for number in range(1, 10)},
    "23": "X",
    "24": "Y",
    "25": "X",
    "26": "MT",
    "0X": "X",
    "XY": "X",
    "PAR": "X",
    "PAR1": "X",
    "PAR2": "X",
    "0Y": "Y",
    "M": "MT",
    "0M": "MT",
}
# First and last base of PAR1 and PAR2 on X, counted from 1: Genome Reference Consortium, pages of
# the assemblies GRCh37 and GRCh38 ("pseudoautosomal regions"). The bases before PAR1 and after
# PAR2 are telomere without variants.
PSEUDOAUTOSOMAL = {
    "GRCh37": ((60_001, 2_699_520), (154_931_044, 155_260_560)),
    "GRCh38": ((10_001, 2_781_479), (155_701_383, 156_030_895)),
}


def normalise_chromosome(name: object, where: str = "input") -> str:
    """Return the project's spelling of a chromosome.

    Parameters
    ----------
    name : object
        As found in a file: ``chr1``, ``01``, ``23``, ``XY``, ``M`` … Numbers above 22
        follow PLINK: 23 is X, 24 Y, 25 the pseudo-autosomal part of X, 26 MT.
    where : str
        File and line for the message.

    Raises
    ------
    InputError
        The name is none that is known.

    Examples
    --------
    >>> normalise_chromosome("chr01"), normalise_chromosome(23)
    ('1', 'X')
    """
    text = str(name).strip()
    if text[:3].lower() == "chr":
        text = text[3:]
    known = _ALIASES.get(text.upper())
    if known is None:
        raise InputError(
            f"{where}: chromosome '{name}' is unknown; use 1-22, X, Y or MT "
            "(with or without 'chr'), or leave such variants out"
        )
    return known


def pseudoautosomal(base_pair_location: np.ndarray, genome_build: str) -> np.ndarray:
    """Return which positions of chromosome X are in a pseudo-autosomal region.

    There men have two copies as women do; elsewhere on X they have one.

    Parameters
    ----------
    base_pair_location : (m,) array of int
        Positions on X, from 1.
    genome_build : {"GRCh37", "GRCh38", ""}
        The build of the positions; it may be empty only where there are no positions.

    Returns
    -------
    (m,) array of bool

    Raises
    ------
    InputError
        There are variants on X but no build that is known.
    """
    position = np.asarray(base_pair_location)
    inside = np.zeros(position.shape, dtype=bool)
    if position.size == 0:
        return inside
    regions = PSEUDOAUTOSOMAL.get(genome_build)
    if regions is None:
        given = f"'{genome_build}' is none" if genome_build else "none is given"
        raise InputError(
            f"there are {position.size} variants on chromosome X, whose pseudo-autosomal regions "
            f"depend on the genome build, but {given}: set genome_build to "
            f"{' or '.join(PSEUDOAUTOSOMAL)}"
        )
    for first, last in regions:
        inside |= (position >= first) & (position <= last)
    return inside
