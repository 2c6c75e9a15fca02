"""Variants of a trait against a reference: alleles, strands, builds, frequencies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rvga.errors import InputError
from rvga.liftover import Chain
from rvga.trait_matching import (
    TraitMatch,
    WantedRows,
    check_frequencies,
    check_signs,
    drop_summary,
    match_trait,
)

M = 600
SHIFT = 1_000_000


@pytest.fixture(scope="module")
def reference():
    """Return 600 variants on two chromosomes."""
    rng = np.random.default_rng(1)
    pairs = [("A", "G"), ("C", "T"), ("A", "C"), ("G", "T"), ("AT", "A")]
    chosen = [pairs[k] for k in rng.integers(0, len(pairs), M)]
    return pd.DataFrame(
        {
            "chromosome": np.repeat(["1", "2"], M // 2).astype(object),
            "base_pair_location": 1000 + 137 * (np.arange(M) % (M // 2)),
            "variant_id": [f"rs{k}" for k in range(M)],
            "effect_allele": [pair[0] for pair in chosen],
            "other_allele": [pair[1] for pair in chosen],
            "effect_allele_frequency": rng.uniform(0.05, 0.95, M),
        }
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Return a chain that shifts chromosome 1 and turns chromosome 2 round."""
    path = tmp_path_factory.mktemp("chain") / "shift.chain"
    path.write_text(
        f"chain 1 1 9000000 + {SHIFT} {SHIFT + 90000} 1 9000000 + 0 90000 1\n90000\n\n"
        "chain 1 2 9000000 + 5000000 5090000 2 9000000 - 8910000 9000000 2\n90000\n"
    )
    return Chain.read(path)


def other_build(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table where the chain would lift it from."""
    moved = table.copy()
    two = moved.chromosome == "2"
    moved.loc[~two, "base_pair_location"] += SHIFT
    moved.loc[two, "base_pair_location"] = 5_090_001 - moved.base_pair_location[two]
    turned = str.maketrans("ACGT", "TGCA")
    for column in ("effect_allele", "other_allele"):
        moved.loc[two, column] = [text.translate(turned) for text in moved[column][two]]
    return moved


def trait(reference: pd.DataFrame) -> pd.DataFrame:
    return reference.rename(columns={"variant_id": "rsid"}).assign(z=np.arange(M) + 1.0, n=1000.0)


def found(reference, table, chain=None):
    wanted = WantedRows(reference, chain)
    assert wanted(table).any()
    return match_trait(reference, table.reset_index(drop=True), "t.tsv", chain, wanted)


def test_swapped_and_other_strand_alleles_are_found(reference):
    table = trait(reference).drop(columns="rsid")
    turned = str.maketrans("ACGT", "TGCA")
    swap, strand = np.arange(M) % 3 == 0, np.arange(M) % 5 == 0
    for k in range(M):
        pair = [table.effect_allele[k], table.other_allele[k]]
        if strand[k] and len(pair[0]) == 1:
            pair = [text.translate(turned) for text in pair]
        if swap[k]:
            pair = pair[::-1]
        table.loc[k, ["effect_allele", "other_allele"]] = pair
    order = np.random.default_rng(2).permutation(M)
    match = found(reference, table.iloc[order])
    np.testing.assert_array_equal(order[match.row], np.arange(M))
    np.testing.assert_array_equal(match.sign, np.where(swap, -1.0, 1.0))
    assert match.counts["alleles_swapped"] == swap.sum()
    single = (reference.effect_allele.str.len() == 1).to_numpy()
    assert match.counts["strand_flipped"] == (strand & single).sum()
    assert match.build == "study"


def test_duplicates_and_other_alleles_are_counted_and_left_out(reference):
    table = trait(reference).drop(columns="rsid")
    table = pd.concat([table, table.iloc[[7]], table.iloc[[9]].assign(effect_allele="GG")])
    match = found(reference, table)
    assert match.row[7] == -1
    assert (match.row >= 0).sum() == M - 1
    assert match.counts["repeated"] == 2
    assert match.counts["other_alleles"] == 1


def test_every_row_has_one_fate_and_ids_do_not_undo_duplicates(reference):
    """Rows at one place with two ids stay out, also where one of the ids is the reference's."""
    table = trait(reference)
    table = pd.concat(
        [
            table,
            table.iloc[[3]].assign(rsid="rs_other"),
            table.iloc[[5]].assign(base_pair_location=999_999_999),
            table.iloc[[6]].assign(effect_allele="GGG"),
            table.iloc[[8, 8]].assign(base_pair_location=888_888_888),
        ]
    ).reset_index(drop=True)
    # Known by its id only.
    table.loc[11, "base_pair_location"] = 777_777_777
    match = found(reference, table)
    assert match.row[3] == -1
    assert match.row[[5, 6, 8, 11]].tolist() == [5, 6, 8, 11]
    counts = match.counts
    assert counts["matched_by_rsid"] == 1
    assert counts["matched_by_position"] == M - 2
    # Both rows of the fourth variant, the second of the sixth, and two of the ninth.
    assert counts["repeated"] == 5
    assert counts["other_alleles"] == 1
    fates = ("matched_by_position", "matched_by_rsid", "repeated", "other_alleles")
    assert sum(counts[fate] for fate in fates) == len(table)


@pytest.mark.parametrize("ids", [False, True])
def test_another_build_is_lifted(reference, chain, ids):
    table = other_build(trait(reference))
    single = (reference.effect_allele.str.len() == 1).to_numpy()
    if not ids:
        table = table.drop(columns="rsid")
    match = found(reference, table, chain)
    assert match.build == "lifted"
    hit = match.row >= 0
    # Without its id an insertion on the strand that is turned round cannot be placed.
    turned = (reference.chromosome == "2").to_numpy() & ~single
    np.testing.assert_array_equal(hit, ~turned)
    np.testing.assert_array_equal(match.row[hit], np.flatnonzero(hit))
    assert (match.sign[hit] == 1).all()


def test_a_chain_that_is_not_needed_is_not_used(reference, chain):
    match = found(reference, trait(reference).drop(columns="rsid"), chain)
    assert match.build == "study"
    np.testing.assert_array_equal(match.row, np.arange(M))


def test_positions_of_another_build_are_not_used_when_ids_tell(reference):
    table = trait(reference)
    # Each variant is where its neighbour is in the study's build.
    table["base_pair_location"] += 137
    match = found(reference, table)
    assert match.build == "rsid"
    np.testing.assert_array_equal(match.row, np.arange(M))
    assert "matched_by_position" not in match.counts


@pytest.mark.parametrize("way", ["chain", "rsid", "chromosome"])
def test_a_mixture_of_builds_is_refused(reference, chain, way):
    table = trait(reference)
    part = np.arange(M) % 3 == 0
    if way == "chain":
        mixed = table.drop(columns="rsid")
        mixed = pd.concat([mixed[part], other_build(mixed)[~part]])
        given = chain
    elif way == "rsid":
        mixed, given = table, None
        mixed.loc[part, "base_pair_location"] += 33
    else:
        mixed, given = table.drop(columns="rsid"), None
        mixed.loc[mixed.chromosome == "2", "base_pair_location"] += 33
    with pytest.raises(InputError, match="positions are of two genome builds"):
        found(reference, mixed, given)


def test_windows_of_a_reference_are_no_mixture(reference):
    # On chromosome 2 the reference has two windows far apart, the trait's file is even.
    table = trait(reference).drop(columns="rsid")
    between = table[table.chromosome == "2"].iloc[:200].copy()
    between = pd.concat([between.assign(base_pair_location=500_000 + 7 * k) for k in range(200)])
    between["base_pair_location"] += np.arange(len(between)) * 11
    reference = reference.copy()
    far = (reference.chromosome == "2") & (reference.index >= M - 100)
    reference.loc[far, "base_pair_location"] += 3_000_000
    table.loc[far, "base_pair_location"] += 3_000_000
    match = found(reference, pd.concat([table, between]))
    np.testing.assert_array_equal(match.row, np.arange(M))


def test_a_file_without_positions_is_matched_by_id(reference):
    table = trait(reference).drop(columns=["chromosome", "base_pair_location"])
    match = found(reference, table)
    assert match.build == "none"
    np.testing.assert_array_equal(match.row, np.arange(M))


def test_all_alleles_swapped_are_refused(reference):
    table = trait(reference)
    swapped = table.rename(
        columns={"effect_allele": "other_allele", "other_allele": "effect_allele"}
    )
    match = found(reference, swapped)
    with pytest.raises(InputError, match="effect and other allele are swapped"):
        check_frequencies(reference, swapped, match, "t.tsv")


def test_frequencies_that_agree_are_reported_and_others_warned_of(reference):
    table = trait(reference)
    match = found(reference, table)
    numbers, warnings = check_frequencies(reference, table, match, "t.tsv")
    assert numbers == {"n_frequencies": M, "frequency_correlation": pytest.approx(1)}
    assert not warnings
    frequency = table.effect_allele_frequency
    minor = table.assign(effect_allele_frequency=np.minimum(frequency, 1 - frequency))
    _, warnings = check_frequencies(reference, minor, match, "t.tsv")
    assert "minor allele" in warnings[0]
    few = table.assign(effect_allele_frequency=np.where(np.arange(M) < 20, frequency, np.nan))
    assert check_frequencies(reference, few, match, "t.tsv") == ({"n_frequencies": 20}, [])
    nothing = table.drop(columns="effect_allele_frequency")
    assert check_frequencies(reference, nothing, match, "t.tsv") == ({}, [])


def test_effects_of_one_sign_are_warned_of():
    k = 200
    match = TraitMatch(np.r_[-1, np.arange(k)], np.ones(k + 1), "study", {})
    rng = np.random.default_rng(1)
    for z, said in (
        (np.abs(rng.normal(size=k)), "100% of the effects of t.tsv are above 0"),
        (-np.abs(rng.normal(size=k)), "100% of the effects of t.tsv are below 0"),
        (rng.normal(size=k), ""),
        (np.where(np.arange(k) < 40, 1.0, 0.0), ""),
    ):
        found = check_signs(pd.DataFrame({"z": z}), match, "t.tsv")
        assert len(found) == bool(said)
        assert all(said in text for text in found)


def test_a_chunk_is_filtered_by_place_lifted_place_and_id(reference, chain):
    table = other_build(trait(reference)).iloc[[0, 1, M - 1]].copy()
    strange = table.iloc[[0]].assign(base_pair_location=5, rsid="rs_none")
    chunk = pd.concat([table, strange, trait(reference).iloc[[3]].assign(rsid=None)])
    assert WantedRows(reference, chain)(chunk).tolist() == [True] * 3 + [False, True]
    without = chunk.drop(columns="rsid")
    assert WantedRows(reference, chain)(without).tolist() == [True] * 3 + [False, True]
    assert WantedRows(reference, None)(without).tolist() == [False] * 4 + [True]


def test_reasons_are_summed_up_most_frequent_first():
    assert drop_summary({"a_b": 3, "c": 0, "d": 7}) == "7 d, 3 a b"
    counts = {"matched_by_position": 9, "matched_by_rsid": 8, "alleles_swapped": 7}
    counts |= {"strand_flipped": 6, "other_alleles": 5, "repeated": 1}
    assert drop_summary(counts) == "5 other alleles, 1 repeated"
