"""No person is in a dataset: not by id, not by value, and not by the variants that few carry."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from rvga.coding import decode_z, encode_z
from rvga.reconstruction import beta_from_z
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


# What an attacker can do with the effects of rare variants.

PEOPLE, VOXELS, COMPONENTS = 2_000, 400, 60


@pytest.fixture(scope="module")
def cohort():
    """Return denoised images (n, N), their LDRs, bases, covariates; images share a pattern."""
    rng = np.random.default_rng(11)
    place = np.linspace(0, 1, VOXELS)
    smooth = np.exp(-(((place[:, None] - place[None, :]) / 0.02) ** 2))
    values, vectors = np.linalg.eigh(smooth)
    bases = vectors[:, ::-1][:, :COMPONENTS]
    deviation = np.sqrt(values[::-1][:COMPONENTS].clip(min=1e-9))
    common = 5 * np.sin(9 * place) @ bases
    ldrs = common + rng.normal(size=(PEOPLE, COMPONENTS)) * deviation
    covariates = np.column_stack([np.ones(PEOPLE), rng.normal(size=(PEOPLE, 3))])
    return ldrs, bases, covariates


def effects(cohort, carriers: list[np.ndarray]) -> np.ndarray:
    """Return what a dataset tells of beta at every voxel, (variants, N), after int16 coding.

    By least squares, which tests of the exactness hold the stages to.
    """
    ldrs, bases, covariates = cohort
    Q = np.linalg.qr(covariates)[0]
    residual = ldrs - Q @ (Q.T @ ldrs)
    genotypes = np.zeros((len(carriers), PEOPLE))
    for row, people in enumerate(carriers):
        genotypes[row, people] = 1
    g = genotypes - genotypes @ Q @ Q.T
    a = (g * g).sum(axis=1)
    beta = g @ residual / a[:, None]
    A = residual.T @ residual
    nu = PEOPLE - Q.shape[1] - 1
    z = beta / np.sqrt((np.diag(A) - a[:, None] * beta**2) / (nu * a[:, None]))
    decoded = decode_z(*encode_z(z))
    return beta_from_z(decoded, a.astype("f4").astype(float), np.diag(A), nu) @ bases.T


def correlation(guess: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the correlation of a guessed image with each image (k, N)."""
    guess = guess - guess.mean()
    images = images - images.mean(axis=1, keepdims=True)
    return images @ guess / np.linalg.norm(images, axis=1) / np.linalg.norm(guess)


def attack(cohort, count: int, variants: int = 40, seed: int = 3):
    """Rebuild images from single variants of ``count`` carriers.

    Returns the correlations with the carriers' images and with as many others', where the
    attacker knows the mean of everybody's images (it is no secret) and takes it out.
    """
    ldrs, bases, _ = cohort
    rng = np.random.default_rng(seed)
    carriers = [rng.choice(PEOPLE, count, replace=False) for _ in range(variants)]
    images = (ldrs - ldrs.mean(axis=0)) @ bases.T
    own, others = [], []
    for people, guess in zip(carriers, effects(cohort, carriers), strict=True):
        all_of_them = correlation(guess, images)
        own.append(all_of_them[people])
        strangers = np.setdiff1d(np.arange(PEOPLE), people)
        others.append(all_of_them[rng.choice(strangers, count, replace=False)])
    return np.concatenate(own), np.concatenate(others)


def test_one_carrier_gives_his_image_away(cohort):
    own, others = attack(cohort, 1)
    print(f"1 carrier: mean {own.mean():.3f}, least {own.min():.3f}, others {others.max():.3f}")
    # This is why there is a floor: if it failed, the attack below would prove nothing.
    assert own.min() > 0.99
    assert np.abs(others).max() < 0.8


@pytest.mark.parametrize("count", [5, 20])
def test_at_the_floor_a_carriers_image_is_lost_among_the_others(cohort, count):
    own, others = attack(cohort, count)
    print(
        f"{count} carriers: mean {own.mean():.3f}, largest {own.max():.3f}; others: mean "
        f"{others.mean():.3f}, largest {np.abs(others).max():.3f}; 1/sqrt {count**-0.5:.3f}"
    )
    # The mean of k independent images has correlation 1 / sqrt(k) with each of them.
    assert own.mean() == pytest.approx(count**-0.5, abs=0.05)
    spread = others.std()
    assert own.max() < count**-0.5 + 5 * spread
    if count == 20:
        # The best guess of all 800 is below what some stranger's image gives by chance + 0.2.
        assert own.max() < np.abs(others).max() + 0.2
        assert own.mean() < 2 * spread


def test_many_rare_variants_of_one_person_add_up_as_said(cohort):
    """A person who carries t variants that are otherwise carried by different people.

    Adding up their effects leaves t parts of the person against sqrt(t (k - 1)) of others.
    """
    ldrs, bases, _ = cohort
    rng = np.random.default_rng(5)
    images = (ldrs - ldrs.mean(axis=0)) @ bases.T
    found = {}
    for t in (1, 5, 20):
        guesses = []
        for person in range(25):
            others = np.delete(np.arange(PEOPLE), person)
            carriers = [np.append(rng.choice(others, 19, replace=False), person) for _ in range(t)]
            guess = effects(cohort, carriers).sum(axis=0)
            guesses.append(correlation(guess, images[[person]])[0])
        found[t] = float(np.mean(guesses))
        expected = np.sqrt(t / (t + 19))
        assert found[t] == pytest.approx(expected, abs=0.08), t
    print({t: round(value, 3) for t, value in found.items()})
