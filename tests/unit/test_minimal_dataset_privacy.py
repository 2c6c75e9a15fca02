"""No person is in a dataset: not by id, not by value, and not by the variants that few carry."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from rvga.dataset import MinimalDataset
from small_study import (
    MISSING,
    dosages_of,
    hard_calls,
    make_study,
    run_dataset,
    write_pgen,
)

N, N_VOXELS, R = 150, 40, 5


def ids(n: int) -> list[str]:
    """Return ids that would be recognised anywhere."""
    return [f"Person{7919 * (number + 1):07d}" for number in range(n)]


def decompressed(path) -> dict[str, bytes]:
    """Return the bytes of the file as it is, and of all its datasets and attributes."""
    found = {"file": path.read_bytes()}
    with h5py.File(path) as file:
        for key, value in file.attrs.items():
            found[f"@{key}"] = value if isinstance(value, bytes) else np.asarray(value).tobytes()
        names: list[str] = []
        file.visit(names.append)
        for name in names:
            if isinstance(file[name], h5py.Dataset):
                found[name] = file[name][...].tobytes()
    return found


@pytest.mark.parametrize("coding", ["int16", "float32"])
def test_no_value_of_a_person_is_in_the_dataset(tmp_path, monkeypatch, coding):
    monkeypatch.setattr("small_study.subject_names", ids)
    study = make_study(tmp_path, N, n_voxels=N_VOXELS, r=R)
    people = ids(N)
    assert set(study.subjects) == set(people)
    dosage = dosages_of(hard_calls(30, N, seed=1, missing=0.02), seed=2)
    main = write_pgen(tmp_path / "g", dosage, people, "3")
    path = run_dataset(tmp_path / "o", study, [main], "--dataset-coding", coding)
    content = decompressed(path)
    # The search finds what is there.
    assert any(b"rs1050" in held for held in content.values())
    with h5py.File(path) as file:
        bases = file["bases"][...]
    assert bases[3].tobytes() in content["bases"]

    secrets: dict[str, list[bytes]] = {
        "id": [name.encode() for name in people] + [name[6:].encode() for name in people]
    }
    denoised = study.ldrs @ study.B.astype(float).T
    residual = study.covariates @ np.linalg.lstsq(study.covariates, study.ldrs, rcond=None)[0]
    for what, values in (
        ("LDR", study.ldrs),
        ("residual LDR", study.ldrs - residual),
        ("image", denoised),
        ("genotype", np.where(dosage.T == MISSING, np.nan, dosage.T)),
        ("covariate", study.covariates[:, 1:]),
    ):
        for dtype in ("f8", "f4"):
            as_stored = np.ascontiguousarray(values.astype(dtype))
            if what != "genotype":
                # Single values; dosages such as 0 and 1 stand for themselves everywhere.
                secrets[f"{what} {dtype}"] = [value.tobytes() for value in as_stored.ravel()]
            # Two neighbouring values of a person, or of a column of people.
            for table in (as_stored, np.ascontiguousarray(as_stored.T)):
                pairs = [row[start : start + 8].tobytes() for row in table for start in (0, 9)]
                secrets.setdefault(f"{what} {dtype} runs", []).extend(
                    pair for pair in pairs if len(pair) == 8 * as_stored.itemsize
                )
    calls = np.where(dosage == MISSING, 3, np.rint(dosage)).astype(np.int8)
    secrets["hard calls"] = [row.tobytes() for row in (*calls, *calls.T)]
    whole = b"".join(content.values())
    for what, values in secrets.items():
        assert values
        assert not any(value in whole for value in set(values)), what
    # No dataset has a row a person.
    with h5py.File(path) as file:
        sizes: list[int] = []
        file.visititems(lambda _, item: sizes.extend(getattr(item, "shape", ())))
    assert N not in sizes


# What an attacker can do with a dataset that the stages wrote.

PEOPLE, VOXELS, COMPONENTS = 2_000, 200, 60
EACH = 40
# Images of different people are independent: their correlation has this standard deviation.
CHANCE = COMPONENTS**-0.5
FLOORS = (5, 20)


def carried_by(people: np.ndarray, copies: float | np.ndarray = 1) -> np.ndarray:
    """Return the genotypes of a variant that these people carry."""
    genotypes = np.zeros(PEOPLE, dtype=np.float32)
    genotypes[people] = copies
    return genotypes


def genotypes_by_kind() -> dict[str, np.ndarray]:
    """Return genotypes (variants, people) by what an attacker would use them for."""
    rng = np.random.default_rng(3)

    def some(number):
        return rng.choice(PEOPLE, number, replace=False)

    kinds = {
        f"{count} heterozygous": np.stack([carried_by(some(count)) for _ in range(EACH)])
        for count in (1, 5, 20)
    }
    kinds["5 alleles, 1 homozygous"] = np.stack(
        [carried_by(some(4), [2, 1, 1, 1]) for _ in range(EACH)]
    )
    kinds["20 alleles, 1 homozygous"] = np.stack(
        [carried_by(some(19), [2] + [1] * 18) for _ in range(EACH)]
    )
    # As many alleles as the common ones, of which one person's is all that differs.
    kinds["all but one heterozygous"] = np.stack([1 + carried_by(some(1)) for _ in range(EACH)])
    kinds["one dosage among noise"] = np.stack(
        [np.where(carried_by(some(1)) > 0, 1, 0.015) for _ in range(EACH)]
    )
    kinds["one dosage, others uncertain"] = np.stack(
        [
            np.maximum(carried_by(some(1)), rng.uniform(0, width, PEOPLE))
            for width in np.linspace(0.02, 0.3, EACH)
        ]
    )
    kinds["20 imputed carriers"] = np.stack(
        [
            np.maximum(carried_by(some(28), rng.uniform(0.5, 1, 28)), rng.uniform(0, 0.01, PEOPLE))
            for _ in range(EACH)
        ]
    )
    # One person's 20 variants of 20 carriers, person after person.
    kinds["of one person"] = np.stack(
        [
            carried_by(np.append(rng.choice(np.delete(np.arange(PEOPLE), one), 19, False), one))
            for one in range(25)
            for _ in range(20)
        ]
    )
    # Pairs of common variants that differ in one person, the first, second and so on.
    common = rng.binomial(2, 0.3, (EACH, PEOPLE))
    other = common.copy()
    own = np.arange(EACH)
    other[own, own] = np.where(common[own, own] == 2, 1, common[own, own] + 1)
    kinds["common"], kinds["common but for one"] = common, other
    return {name: values.astype(np.float32) for name, values in kinds.items()}


class Released:
    """A dataset, and what only the study knows: genotypes, and images after the covariates."""

    def __init__(self, path, kinds, images):
        self.images = images - images.mean(axis=1, keepdims=True)
        self.images /= np.linalg.norm(self.images, axis=1, keepdims=True)
        self.size = np.linalg.norm(images, axis=1)
        with MinimalDataset.open(path) as dataset:
            kept = (dataset.variants["base_pair_location"].to_numpy() - 1000) // 10
            effect = dataset.voxel_statistics(0, dataset.m)["beta"]
            a = dataset.components().a
        places = np.repeat(np.arange(len(kinds)), [len(values) for values in kinds.values()])[kept]
        self.genotypes, self.beta, self.a = {}, {}, {}
        everything = np.concatenate(list(kinds.values()))
        for place, name in enumerate(kinds):
            here = places == place
            self.genotypes[name] = everything[kept[here]]
            self.beta[name], self.a[name] = effect[here], a[here]

    def correlation(self, guess: np.ndarray) -> np.ndarray:
        """Return the correlation of guessed images (k, N) with everybody's, (k, people)."""
        guess = guess - guess.mean(axis=1, keepdims=True)
        return guess / np.linalg.norm(guess, axis=1, keepdims=True) @ self.images.T

    def attack(self, name: str) -> tuple[np.ndarray, ...]:
        """Take every effect for the image of who weighs most in it.

        Returns the correlation with that image, its expectation (the root of that person's share
        of the variation), and everybody's correlations.
        """
        away = self.genotypes[name] - self.genotypes[name].mean(axis=1, keepdims=True)
        person = np.abs(away).argmax(axis=1)
        each = np.arange(len(away))
        share = away[each, person] ** 2 / (away**2).sum(axis=1)
        # Rare alleles add, so that the effect has the sign of the person's image.
        sign = np.sign(away[each, person])[:, None]
        everybody = self.correlation(sign * self.beta[name])
        return everybody[each, person], np.sqrt(share), everybody


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Return what is released with each floor."""
    folder = tmp_path_factory.mktemp("released")
    study = make_study(folder, PEOPLE, n_voxels=VOXELS, r=COMPONENTS)
    kinds = genotypes_by_kind()
    main = write_pgen(folder / "g", np.concatenate(list(kinds.values())), study.subjects)
    Q = np.linalg.qr(study.covariates)[0]
    images = (study.ldrs - Q @ (Q.T @ study.ldrs)) @ study.B.astype(float).T
    out = {}
    for floor in FLOORS:
        options = ("--minor-allele-count", str(floor))
        out[floor] = Released(
            run_dataset(folder / str(floor), study, [main], *options), kinds, images
        )
    return out


@pytest.mark.parametrize("floor", FLOORS)
def test_variants_of_one_person_are_not_released(released, floor):
    left = {name: len(values) for name, values in released[floor].beta.items()}
    for name in ("1 heterozygous", "all but one heterozygous", "one dosage among noise"):
        assert left[name] == 0, name
    assert left["5 alleles, 1 homozygous"] == 0
    assert left["5 heterozygous"] == (EACH if floor == 5 else 0)
    for name in ("20 heterozygous", "20 alleles, 1 homozygous", "common", "common but for one"):
        assert left[name] == EACH, name
    assert left["20 imputed carriers"] >= EACH // 2
    assert 0 < left["one dosage, others uncertain"] < EACH


RARE = (
    (5, "5 heterozygous"),
    (20, "20 heterozygous"),
    (20, "20 alleles, 1 homozygous"),
    (20, "20 imputed carriers"),
    (20, "one dosage, others uncertain"),
)


@pytest.mark.parametrize(("floor", "name"), RARE)
def test_a_carriers_image_is_mixed_with_those_of_others(released, floor, name):
    own, expected, everybody = released[floor].attack(name)
    print(
        f"{name}: {len(own)} variants, mean {own.mean():.2f}, expected {expected.mean():.2f}, "
        f"largest {own.max():.2f}, closest of all people {everybody.max(axis=1).mean():.2f}"
    )
    assert expected.max() <= np.sqrt(0.2) + 1e-6
    # No more than what the weights of the mean of independent images let expect.
    excess = own - expected
    standard_error = CHANCE / np.sqrt(len(own))
    assert abs(excess.mean()) <= 4 * standard_error
    # And no single one beyond chance, at 4 standard deviations of it.
    assert excess.max() <= 4 * CHANCE


def test_adding_up_the_variants_of_one_person_works_as_said(released):
    """A person who carries t variants that are otherwise carried by different people.

    Adding up their effects leaves t parts of the person against sqrt(t (k - 1)) of others.
    """
    data = released[20]
    effect = data.beta["of one person"].reshape(25, 20, VOXELS)
    for t in (1, 5, 20):
        own = data.correlation(effect[:, :t].sum(axis=1))[np.arange(25), np.arange(25)]
        print(f"{t} variants of 20 carriers: {own.mean():.2f}")
        assert own.mean() == pytest.approx(np.sqrt(t / (t + 19)), abs=4 * CHANCE / 5)


def test_difference_of_two_variants_works_as_said(released):
    """Two variants that differ in one person give that person's image, however common they are.

    a beta is g'PY, so a2 beta2 - a1 beta1 is the residual image times the difference. No floor
    hinders it: this is what the page says of privacy.
    """
    data = released[20]
    first, second = "common", "common but for one"
    difference = (
        data.a[second][:, None] * data.beta[second] - data.a[first][:, None] * data.beta[first]
    )
    each = np.arange(EACH)
    step = (data.genotypes[second] - data.genotypes[first])[each, each]
    everybody = data.correlation(difference * step[:, None])
    own = everybody[each, each]
    print(f"difference: least {own.min():.7f}, mean {own.mean():.7f}")
    assert own.min() > 0.999
    np.testing.assert_array_equal(everybody.argmax(axis=1), each)
    # The size too, not only the shape.
    size = np.linalg.norm(difference, axis=1)
    np.testing.assert_allclose(size, data.size[:EACH], rtol=0.02)
