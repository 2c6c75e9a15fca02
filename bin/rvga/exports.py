"""GWAS tables in the forms that other programs read: LDSC, HEIG's pair of files, PheWeb.

Blocks of rows in (columns as ``MinimalDataset.gwas_blocks`` gives them), files out; nothing is
kept in memory. GWAS-SSF has its own module.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from rvga.atomic import replacing
from rvga.errors import InputError
from rvga.gwas_ssf import CHROMOSOME_CODES
from rvga.sink import Sink

# Components of one dataset of HEIG's files, and rows of their chunks.
HEIG_BLOCK = 20
_HEIG_ROWS = 10_000
_COMPLEMENT = {"A": "T", "T": "A", "C": "G", "G": "C"}
NO_ESTIMATE, NO_ID, REPEATED_ID = "without estimate", "without id", "id not unique"
NOT_ACGT, AMBIGUOUS = "alleles other than ACGT", "no unambiguous SNP"


@contextlib.contextmanager
def _hdf5_file(temporary: Path, path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file; a full disk is an OSError that names ``path``."""
    with Sink(temporary, path) as sink:
        try:
            with h5py.File(sink, "w") as file:
                yield file
        except Exception:
            sink.check()  # what could not be written explains all that follows from it
            raise
    sink.check()


@contextlib.contextmanager
def _text_file(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield a writer of bytes; gzip, without name and time inside, where the name says so."""
    with replacing(path) as temporary, temporary.open("wb") as plain:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 5, plain, mtime=0) as packed:
                yield packed.write
        else:
            yield plain.write


def _lines(table: pd.DataFrame, header: bool) -> bytes:
    buffer = io.StringIO()
    table.to_csv(
        buffer, sep="\t", na_rep="NA", index=False, header=header, float_format="%.8g",
        lineterminator="\n",
    )  # fmt: skip
    return buffer.getvalue().encode()


def repeated_ids(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Return 64-bit hashes of the ids that occur more than once, sorted.

    Eight bytes a variant are held; that two different ids share a hash is as good as excluded.
    """
    hashes = [pd.util.hash_array(np.asarray(ids, dtype=object)) for ids in blocks]
    values, counts = np.unique(np.concatenate([np.zeros(0, "u8"), *hashes]), return_counts=True)
    return values[counts > 1]


def _has_own_id(block: pd.DataFrame, repeated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have an id, and which of them have it alone."""
    ids = block["variant_id"].to_numpy(dtype=object)
    named = np.array([name not in ("", ".") for name in ids], dtype=bool)
    hashes = pd.util.hash_array(ids) if len(ids) else np.zeros(0, "u8")
    return named, ~np.isin(hashes, repeated)


def _kept(left_out: Counter, *tests: tuple[str, np.ndarray]) -> np.ndarray:
    """Return the rows that pass all tests; the others are counted under their first failure."""
    keep = np.ones(len(tests[0][1]), dtype=bool)
    for reason, passes in tests:
        left_out[reason] += int((keep & ~passes).sum())
        keep &= passes
    return keep


def _is_acgt(values: pd.Series) -> np.ndarray:
    return values.str.fullmatch(r"[ACGTacgt]+").to_numpy(dtype=bool)


def write_ldsc(
    blocks: Iterable[pd.DataFrame], path: str | Path, n: int, repeated: np.ndarray
) -> tuple[int, Counter]:
    """Write LDSC's ``SNP A1 A2 N Z``; A1 is the effect allele.

    Rows without an estimate, without an id, or whose id another row has too are left out.

    Parameters
    ----------
    path : path
        ``*.sumstats.gz``.
    n : int
        Subjects.
    repeated : array
        As :func:`repeated_ids` gives.

    Returns
    -------
    int, Counter
        Rows written; rows left out, by reason.
    """
    path = Path(path)
    if not path.name.endswith(".sumstats.gz"):
        raise InputError(f"{path}: a table for LDSC must be named *.sumstats.gz")
    left_out: Counter = Counter()
    written = 0
    with _text_file(path) as write:
        write(b"SNP\tA1\tA2\tN\tZ\n")
        for block in blocks:
            named, alone = _has_own_id(block, repeated)
            keep = _kept(
                left_out,
                (NO_ESTIMATE, np.isfinite(block["z"].to_numpy())),
                (NO_ID, named),
                (REPEATED_ID, alone),
            )
            rows = block[keep]
            table = pd.DataFrame(
                {
                    "SNP": rows["variant_id"],
                    "A1": rows["effect_allele"],
                    "A2": rows["other_allele"],
                    "N": n,
                    "Z": rows["z"],
                }
            )
            write(_lines(table, header=False))
            written += len(rows)
    return written, left_out


def write_pheweb(blocks: Iterable[pd.DataFrame], path: str | Path) -> tuple[int, Counter]:
    """Write PheWeb's ``chrom pos ref alt pval beta sebeta af`` and ``<path>.pheno-list.json``.

    The effect allele is ``alt``. A p that no double can hold is written out in digits. Rows
    without an estimate or with other letters than ACGT in their alleles are left out.
    """
    path = Path(path)
    if not path.name.endswith((".tsv", ".tsv.gz")):
        raise InputError(f"{path}: a table for PheWeb must be named *.tsv or *.tsv.gz")
    left_out: Counter = Counter()
    written = 0
    with _text_file(path) as write:
        write(b"chrom\tpos\tref\talt\tpval\tbeta\tsebeta\taf\n")
        for block in blocks:
            keep = _kept(
                left_out,
                (NO_ESTIMATE, np.isfinite(block["neg_log_10_p_value"].to_numpy())),
                (NOT_ACGT, _is_acgt(block["effect_allele"]) & _is_acgt(block["other_allele"])),
            )
            rows = block[keep]
            table = pd.DataFrame(
                {
                    "chrom": rows["chromosome"],
                    "pos": rows["base_pair_location"],
                    "ref": rows["other_allele"],
                    "alt": rows["effect_allele"],
                    "pval": p_digits(rows["neg_log_10_p_value"].to_numpy()),
                    "beta": rows["beta"],
                    "sebeta": rows["standard_error"],
                    "af": rows["effect_allele_frequency"],
                }
            )
            write(_lines(table, header=False))
            written += len(rows)
    code = path.name.removesuffix(".gz").removesuffix(".tsv")
    with replacing(path.with_name(f"{path.name}.pheno-list.json")) as temporary:
        entry = {"phenocode": code, "assoc_files": [path.name]}
        temporary.write_text(json.dumps([entry], indent=1) + "\n")
    return written, left_out


def p_digits(neg_log_10_p: np.ndarray) -> list[str]:
    """Return p as text of eight digits, however small: ``4.5e-1234``."""
    exponent = np.ceil(neg_log_10_p)
    digits = 10.0 ** (exponent - neg_log_10_p)
    texts = []
    for digit, power in zip(digits, exponent.astype(int), strict=True):
        text = f"{digit:.8g}"
        if text == "10":
            text, power = "1", power - 1
        texts.append(text if power == 0 else f"{text}e-{power}")
    return texts


def write_heig(
    blocks: Iterable[tuple[pd.DataFrame, np.ndarray, np.ndarray]],
    prefix: str | Path,
    n: int,
    k: int,
    repeated: np.ndarray,
) -> tuple[int, Counter]:
    """Write HEIG's pair ``<prefix>.sumstats`` (HDF5) and ``<prefix>.snpinfo``.

    As HEIG itself prepares such files, unambiguous single-nucleotide variants whose id is theirs
    alone are kept, with an estimate for every phenotype.

    Parameters
    ----------
    blocks : iterable of (variants, beta, z)
        Variants as ``tables.VARIANT_COLUMNS``; beta and z (rows, k).
    n : int
        Subjects.
    k : int
        Phenotypes.
    """
    prefix = Path(prefix)
    left_out: Counter = Counter()
    written = 0
    table_path = prefix.with_name(f"{prefix.name}.snpinfo")
    data_path = prefix.with_name(f"{prefix.name}.sumstats")
    parts = [(low, min(low + HEIG_BLOCK, k)) for low in range(0, k, HEIG_BLOCK)]
    # Both are complete before either appears.
    with (
        replacing(data_path) as data,
        replacing(table_path) as text,
        text.open("wb") as plain,
        _hdf5_file(data, data_path) as file,
    ):
        write = plain.write
        write(b"CHR\tPOS\tSNP\tA1\tA2\tN\n")
        targets = {
            f"{name}{number}": file.create_dataset(
                f"{name}{number}",
                shape=(0, high - low),
                maxshape=(None, high - low),
                chunks=(_HEIG_ROWS, high - low),
                dtype="f4",
            )
            for name in ("beta", "z")
            for number, (low, high) in enumerate(parts)
        }
        for block, beta, z in blocks:
            named, alone = _has_own_id(block, repeated)
            pairs = zip(block["effect_allele"], block["other_allele"], strict=True)
            clear = [
                one in _COMPLEMENT and other in _COMPLEMENT and _COMPLEMENT[one] != other
                for one, other in pairs
            ]
            keep = _kept(
                left_out,
                (NO_ESTIMATE, np.isfinite(z).all(axis=1) & np.isfinite(beta).all(axis=1)),
                (NO_ID, named),
                (REPEATED_ID, alone),
                (AMBIGUOUS, np.array(clear, dtype=bool)),
            )
            rows = block[keep]
            table = pd.DataFrame(
                {
                    "CHR": rows["chromosome"].map(CHROMOSOME_CODES).astype("int64"),
                    "POS": rows["base_pair_location"],
                    "SNP": rows["variant_id"],
                    "A1": rows["effect_allele"],
                    "A2": rows["other_allele"],
                    "N": n,
                }
            )
            write(_lines(table, header=False))
            stop = written + len(rows)
            for number, (low, high) in enumerate(parts):
                for name, values in (("beta", beta), ("z", z)):
                    target = targets[f"{name}{number}"]
                    target.resize(stop, axis=0)
                    target[written:stop] = values[keep, low:high]
            written = stop
        file.attrs["n_snps"] = written
        file.attrs["n_gwas"] = k
        file.attrs["n_blocks"] = len(parts)
    return written, left_out


def write_heig_bases(prefix: str | Path, bases: np.ndarray, ldr_cov: np.ndarray) -> None:
    """Write what HEIG needs beside the components: bases (N, r) and covariance (r, r) as .npy."""
    prefix = Path(prefix)
    r = bases.shape[1]
    for name, values in (("bases", bases), ("ldr_cov", ldr_cov)):
        path = prefix.with_name(f"{prefix.name}_{name}_top{r}.npy")
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
