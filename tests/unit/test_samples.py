"""Lists of subjects and how they are matched."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from rvga import samples
from rvga.errors import InputError


def write(path, text):
    """Write a text file and return its path."""
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "iid", "fid_iid"),
    [
        ("f1 a 0 0 1 -9\nf2 b 0 0 2 -9\n", ["a", "b"], ["f1_a", "f2_b"]),
        ("#FID\tIID\tSEX\nf1\ta\t1\nf2\tb\t2\n", ["a", "b"], ["f1_a", "f2_b"]),
        ("##note\n#IID SID SEX\na 1 1\nb 1 2\n", ["a", "b"], ["0_a", "0_b"]),
        ("#FID SEX IID\nf1 1 a\n", ["a"], ["f1_a"]),
    ],
)
def test_samples_of_both_formats(tmp_path, text, iid, fid_iid):
    path = write(tmp_path / "x.psam", text)
    assert samples.read_samples(path, "IID").tolist() == iid
    assert samples.read_samples(path, "FID_IID").tolist() == fid_iid
    path.write_bytes(gzip.compress(text.encode()))
    assert samples.read_samples(path).tolist() == iid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("#FID IID\n", "holds no subjects"),
        ("#FID SEX\nf1 1\n", "line 1 is not the header"),
        ("f1 a 0 0 1 -9\nf2\n", "line 2 has 1 columns"),
        ("f1 a 0 0 1 1\nf2 b 0 0 1 1\nf3 a 0 0 1 1\n", r"'a' is there twice \(lines 1 and 3\)"),
    ],
)
def test_bad_sample_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        samples.read_samples(write(tmp_path / "x.fam", text), "IID")


def test_ids_shared_by_families_are_told_apart_by_fid_iid(tmp_path):
    path = write(tmp_path / "x.fam", "f1 a 0 0 1 1\nf2 a 0 0 1 1\n")
    assert samples.read_samples(path, "FID_IID").tolist() == ["f1_a", "f2_a"]


def test_id_lists(tmp_path):
    path = tmp_path / "keep.txt"
    assert samples.read_id_list(write(path, "a\nb\n\n")) == {"a", "b"}
    assert samples.read_id_list(write(path, "#IID\na\n")) == {"a"}
    assert samples.read_id_list(write(path, "FID IID\nf a\n")) == {"a"}
    assert samples.read_id_list(write(path, "f a\ng b\n"), "FID_IID") == {"f_a", "g_b"}
    with pytest.raises(InputError, match="holds no subject id"):
        samples.read_id_list(write(path, "#FID IID\n"))


def test_order_is_by_bytes_and_hash_is_of_the_sorted_ids():
    subjects = ["b", "a10", "a9", "Z", "é"]
    assert samples.sort_by_bytes(subjects) == ["Z", "a10", "a9", "b", "é"]
    expected = hashlib.sha256("Z\na10\na9\nb\né".encode()).hexdigest()[:16]
    assert samples.sample_hash(subjects) == samples.sample_hash(subjects[::-1]) == expected
    assert samples.sample_hash(["a", "b"]) != samples.sample_hash(["ab"])


def test_flow_counts_every_step():
    sample = samples.Sample.start("abcdef", "images", "have an image")
    sample.keep("abcdx", "covariates", "are in the table")
    sample.remove("bz", "remove list", "are not listed")
    assert sample.subjects == set("acd")
    counts = [(step["step"], step["n_in"], step["n_out"]) for step in sample.flow]
    assert counts == [("images", 6, 6), ("covariates", 6, 4), ("remove list", 4, 3)]


def people(n, form="{:04d}"):
    """Return n ids."""
    return [form.format(number) for number in range(1000, 1000 + n)]


def test_enough_overlap_passes():
    samples.require_overlap(people(20), people(15), "one", "other")
    samples.require_overlap(people(20), [*people(10), *people(900, "x{}")], "one", "other")


@pytest.mark.parametrize(
    ("one", "other", "hint"),
    [
        ("sub-{}", "{}", "prefix 'sub-'"),
        ("{}", "0_{}", "prefix '0_'"),
        ("{}", "fam_{}", "family id before '_'"),
        ("{}", "00{}", "leading zeros"),
        ("{}", "{}.0", "the '.0' at the end"),
        ("P{}", "{}", "letters before the number"),
        ("{}_20252_2_0", "{}", "everything from '_' on"),
        ("s{}x", "S{}X", "upper and lower case"),
    ],
)
def test_ids_that_differ_by_form_get_a_hint(one, other, hint):
    with pytest.raises(InputError, match=f"no subject of the images .*{hint}"):
        samples.require_overlap(people(30, one), people(30, other), "the images", "the table")


def test_no_overlap_names_three_examples_a_side():
    with pytest.raises(InputError) as caught:
        samples.require_overlap(people(30, "a{}"), people(20, "{}b"), "one", "other")
    message = str(caught.value)
    assert "(30: a1000, a1001, a1002, …)" in message
    assert "(20: 1000b, 1001b, 1002b, …)" in message


@pytest.mark.parametrize(("common", "one", "other"), [(9, 9, 9), (9, 30, 30), (15, 400, 200)])
def test_little_overlap_is_refused(common, one, other):
    first = [*people(common), *people(one - common, "x{}")]
    second = [*people(common), *people(other - common, "y{}")]
    with pytest.raises(InputError, match=f"only {common} subjects of first"):
        samples.require_overlap(first, second, "first", "second")


def test_match_report_names_nobody():
    report = samples.match_report(["a", "b"], ["b", "c", "d"], "images", "covariates")
    assert report == {
        "first": "images", "second": "covariates", "n_first": 2, "n_second": 3, "n_common": 1,
    }  # fmt: skip
