"""One spelling of chromosome names: ``1`` … ``22``, ``X``, ``Y``, ``MT``."""

from __future__ import annotations

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
    "XY": "X",
    "PAR": "X",
    "PAR1": "X",
    "PAR2": "X",
    "M": "MT",
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
