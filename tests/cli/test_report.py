"""REPORT on a small study written by hand: what it shows, says, refuses and repeats."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import StageResult, files_in, run_stage_here, run_stage_process
from rvga import formats, significance, tables
from rvga.chromosomes import RANK
from rvga.dataset import MinimalDataset
from rvga.geometry import Geometry, add_geometry
from rvga.heritability import default_parcels, region_bases

NASTY = "<script>alert(1)</script>"
N_SUBJECTS, N_COVARIATES = 600, 3
GENOME = {"2": (60, 4_000_000), "10": (40, 3_000_000), "X": (20, 2_000_000)}


def _geometry() -> Geometry:
    affine = np.diag([13.0, 13.0, 13.0, 1.0])
    affine[:3, 3] = [-45, -70, -20]
    shape = (8, 8, 5)
    index = np.argwhere(np.ones(shape, dtype=bool)).astype(np.int32)
    return Geometry(affine, shape, index)


class Study:
    """Files of every stage that REPORT reads, consistent with each other."""

    def __init__(self, folder: Path, variant_scale: int = 1):
        self.folder = folder
        self.rng = np.random.default_rng(5)
        self.geometry = _geometry()
        self.N, self.r = len(self.geometry.index), 4
        place = self.geometry.coordinates
        waves = np.cos(place @ self.rng.normal(size=(3, 7)) * 0.03)
        self.bases = np.linalg.qr(waves)[0][:, : self.r]
        self.genetic = waves[:, :3] * 0.6
        self.genome = {
            name: (number * variant_scale, last) for name, (number, last) in GENOME.items()
        }
        self._bases()
        self._truth()
        self._dataset()
        self._scan()
        self._heritability()
        self._summaries()

    def path(self, name: str) -> Path:
        return self.folder / name

    def _bases(self) -> None:
        with formats.create(
            self.path("bases.h5"),
            "bases",
            {
                "geometry_type": "nifti",
                "bandwidth": 6.0,
                "n_eff": 3.2,
                "total_variance": 9.0,
                "n": N_SUBJECTS,
            },
        ) as writer:
            writer.add("bases", self.bases)
            writer.add("eigenvalues", np.array([4.0, 2, 1, 0.5, 0.3]))
            writer.add("mean", np.ones(self.N))
            writer.add("coordinates", self.geometry.coordinates)
            writer.add("candidate_bandwidths", np.array([3.0, 6.0, 9.0, 12.0]))
            writer.add("candidate_scores", np.array([3.0, 2.0, 2.5, np.nan]))
            add_geometry(writer, self.geometry)
        with formats.open_file(self.path("bases.h5"), "bases") as file:
            self.bases_digest = file.digest
            self.bases = file["bases"][...].astype(float)

    def _truth(self) -> None:
        self.residual = np.cos(self.geometry.coordinates @ self.rng.normal(size=(3, 5)) * 0.02)
        self.effect = np.zeros((3, 3))
        self.effect[0, 0] = 0.55
        self.effect[1, 1] = 0.6
        self.effect[2, 2] = 0.01
        self.causal = [("2", 2_000_000, NASTY, 1), ("10", 1_500_000, "planted2", 1),
                       ("X", 500_000, "background", 0)]  # fmt: skip
        with formats.create(
            self.path("truth.h5"),
            "truth",
            {
                key: {"n": N_SUBJECTS, "seed": 1, "trait_heritability": 0.5}.get(key, "")
                for key in formats.KINDS["truth"].attributes
            },
        ) as writer:
            # The truth knows more voxels than the run, and in another order.
            order = self.rng.permutation(self.N)
            writer.add("coordinates", self.geometry.coordinates[order])
            writer.add("geometry/index", self.geometry.index[order])
            writer.add("geometry/affine", self.geometry.affine)
            writer.add("geometry/shape", np.array(self.geometry.shape))
            writer.add("genetic_covariance_factor", self.genetic[order])
            writer.add("residual_covariance_factor", self.residual[order])
            writer.add("noise_variance", np.full(self.N, 0.3))
            writer.add("causal/chromosome", np.array([RANK[row[0]] for row in self.causal]))
            writer.add("causal/base_pair_location", np.array([row[1] for row in self.causal]))
            writer.add("causal/variant_id", [row[2] for row in self.causal])
            writer.add("causal/effect_allele", ["A"] * 3)
            writer.add("causal/planted", np.array([row[3] for row in self.causal]))
            writer.add("causal/effect", self.effect)
            writer.add("causal/dosage_variance", np.full(3, 0.42))
            writer.add("causal/trait_effect", np.zeros(3))
            writer.add("trait_covariance", np.array([0.2, 0.0, 0.1]))

    def _dataset(self) -> None:
        loadings = self.bases.T @ self.genetic
        other = self.bases.T @ self.residual
        self.Gamma = loadings @ loadings.T
        self.Sigma = self.Gamma + other @ other.T + 0.3 * np.eye(self.r)
        A = self.Sigma * N_SUBJECTS
        nu = N_SUBJECTS - N_COVARIATES - 1
        chromosome, position, name = [], [], []
        for label, (number, last) in self.genome.items():
            places = np.sort(self.rng.choice(last, number, replace=False)) + 1
            for row in self.causal:
                if row[0] == label:
                    places[np.argmin(np.abs(places - row[1]))] = row[1]
            for place in np.sort(places):
                chromosome.append(label)
                position.append(int(place))
                known = [row[2] for row in self.causal if row[:2] == (label, place)]
                name.append(known[0] if known else f"v{label}_{place}")
        m = len(name)
        a = np.full(m, 2 * 0.3 * 0.7 * N_SUBJECTS)
        root = np.linalg.cholesky(self.Sigma)
        beta = (self.rng.normal(size=(m, self.r)) @ root.T) / np.sqrt(a[:, None])
        for row, effect in zip(self.causal, self.effect, strict=True):
            beta[name.index(row[2])] += effect @ loadings.T
        variance = np.diag(A)
        z = beta / np.sqrt((variance - a[:, None] * beta**2) / (nu * a[:, None]))
        counts = {
            label: {"read": number + 3, "written": number, "dropped": {"minor allele count": 3},
                    "missing": {}}
            for label, (number, _) in self.genome.items()
        }  # fmt: skip
        attributes = {
            "n": N_SUBJECTS, "p": N_COVARIATES, "coding": "float32", "n_eff": 3.2,
            "genome_build": "GRCh38", "sample_hash": "0" * 16, "minor_allele_count": 20,
            "counts": counts, "geometry_type": "nifti",
        }  # fmt: skip
        with formats.create(
            self.path("study.rvga.h5"), "minimal", attributes, inputs={"bases": self.bases_digest}
        ) as writer:
            writer.add("z", z.astype("f4"))
            writer.add("scale", np.ones(m, dtype="f4"))
            writer.add("a", a)
            writer.add("A", A[None])
            writer.add("A_index", np.zeros(m))
            writer.add("Sigma", self.Sigma)
            writer.add("bases", self.bases)
            writer.add("eigenvalues", np.array([4.0, 2, 1, 0.5, 0.3]))
            writer.add("coordinates", self.geometry.coordinates)
            writer.add("variants/chromosome", np.array([RANK[label] for label in chromosome]))
            writer.add("variants/base_pair_location", np.array(position))
            writer.add("variants/variant_id", name)
            writer.add("variants/effect_allele", ["A"] * m)
            writer.add("variants/other_allele", ["G"] * m)
            writer.add("variants/effect_allele_frequency", np.full(m, 0.3))
            writer.add("variants/missing_rate", np.zeros(m))
            add_geometry(writer, self.geometry)

    def _scan(self) -> None:
        with MinimalDataset.open(self.path("study.rvga.h5")) as dataset:
            self.dataset_digest = dataset.digest
            statistics = dataset.voxel_statistics(0, dataset.m)
            components = dataset.components()
            variants, nu = dataset.variants, dataset.nu
            omnibus = significance.omnibus_neg_log_10_p(
                components.beta, components.a, dataset.A[0], nu
            )
        tail = significance.image_wide_tail(
            np.eye(5), np.eye(5), n_eff=3.2, significance_level=1e-6, draws=200
        )
        with formats.create(
            self.path("tail.h5"),
            "tail",
            {
                "significance": "image_wide",
                "significance_level": 1e-6,
                "critical_z": tail.critical_z,
                "critical_z_image_wide": tail.critical_z_image_wide,
                "critical_z_published": tail.critical_z_published,
                "n_eff": 3.2,
            },
            inputs={"dataset": self.dataset_digest},
        ) as writer:
            for key in ("threshold", "neg_log_10_p", "relative_error"):
                writer.add(key, getattr(tail, key))
        z = statistics["z"]
        normal = np.abs(significance.t_to_normal(z, nu))
        hits = normal > tail.critical_z
        lead = np.argmax(np.abs(z), axis=1)
        rows = np.arange(len(z))
        table = variants.assign(
            n_significant_voxels=hits.sum(axis=1),
            lead_voxel=lead,
            z=z[rows, lead],
            neg_log_10_p_value=statistics["neg_log_10_p_value"][rows, lead],
            neg_log_10_p_image_wide=significance.image_wide_neg_log_10_p(normal.max(axis=1), tail),
            neg_log_10_p_omnibus=omnibus,
        )
        self.variants = table
        tables.write_table(table, self.path("variants.tsv.gz"), "variants")
        voxels = self._voxel_columns()
        voxels["n_significant_variants"] = hits.sum(axis=0)
        voxels["largest_abs_z"] = np.abs(z).max(axis=0)
        tables.write_table(pd.DataFrame(voxels), self.path("voxels.tsv"), "voxels")
        loci, leads = [], []
        found = table[table["n_significant_voxels"] > 0]
        for number, (label, group) in enumerate(found.groupby("chromosome", sort=False), 1):
            best = group.loc[group["neg_log_10_p_image_wide"].idxmax()]
            where = self.geometry.coordinates[int(best["lead_voxel"])]
            bounds = (group["base_pair_location"].min(), group["base_pair_location"].max())
            loci.append(
                [number, label, *bounds, best["variant_id"], best["base_pair_location"], "A", "G",
                 0.3, best["lead_voxel"], *where, 0.1, 0.01, best["z"],
                 best["neg_log_10_p_value"], best["neg_log_10_p_image_wide"],
                 best["n_significant_voxels"], len(group), 1, "yes" if number == 1 else "no",
                 None if number == 1 else "2:1400000"]
            )  # fmt: skip
            leads.append(
                [number, *(best[name] for name in tables.VARIANT_COLUMNS), best["lead_voxel"],
                 best["z"], best["neg_log_10_p_image_wide"], best["n_significant_voxels"],
                 len(group), *bounds]
            )  # fmt: skip
        self.loci = pd.DataFrame(loci, columns=list(tables.TABLES["loci"]))
        tables.write_table(self.loci, self.path("loci.tsv"), "loci")
        tables.write_table(
            pd.DataFrame(leads, columns=list(tables.TABLES["lead_variants"])),
            self.path("lead_variants.tsv"),
            "lead_variants",
        )

    def _voxel_columns(self) -> dict:
        place = self.geometry.coordinates
        return {"voxel": np.arange(self.N), "x_mm": place[:, 0], "y_mm": place[:, 1],
                "z_mm": place[:, 2]}  # fmt: skip

    def _heritability(self) -> None:
        numerator = np.einsum("vr,vr->v", self.bases @ self.Gamma, self.bases)
        true = numerator / np.einsum("vr,vr->v", self.bases @ self.Sigma, self.bases)
        raw = true + 0.03 * self.rng.normal(size=self.N)
        raw[:3] = -0.02
        reason = np.where(raw < 0, "below 0", None)
        shown = np.where(raw < 0, np.nan, raw)
        frame = pd.DataFrame(self._voxel_columns()).assign(
            heritability=shown,
            standard_error=np.where(raw < 0, np.nan, 0.03),
            neg_log_10_p_value=3.0,
            false_discovery_rate=0.01,
            heritability_raw=raw,
            standard_error_raw=0.03,
            se_method="closed_form",
            reason=reason,
        )
        tables.write_table(frame, self.path("heritability.tsv"), "heritability")
        labels = default_parcels(self.geometry.coordinates, 24)
        region, rows = region_bases(self.bases, labels)
        names = np.array([f"parcel {label}" for label in region], dtype=object)
        value = np.einsum("vr,vr->v", rows @ self.Gamma, rows)
        value = value / np.einsum("vr,vr->v", rows @ self.Sigma, rows)
        regions = pd.DataFrame(
            {"region": names, "n_voxels": 1, "x_mm": 0.0, "y_mm": 0.0, "z_mm": 0.0,
             "heritability": value, "standard_error": 0.05, "neg_log_10_p_value": 3.0,
             "false_discovery_rate": 0.01, "heritability_raw": value,
             "standard_error_raw": 0.05, "se_method": "closed_form", "reason": None}
        )  # fmt: skip
        tables.write_table(regions, self.path("regions.tsv"), "regions")
        product = rows @ self.Gamma @ rows.T
        rho = product / np.sqrt(np.outer(np.diag(product), np.diag(product)))
        one, two = np.tril_indices(len(region), -1)
        pairs = pd.DataFrame(
            {"region_1": names[one], "region_2": names[two],
             "genetic_correlation": rho[one, two], "standard_error": 0.1,
             "neg_log_10_p_value": 4 * np.abs(rho[one, two]),
             "false_discovery_rate": 0.01, "genetic_correlation_raw": rho[one, two],
             "standard_error_raw": 0.1,
             "phenotypic_correlation": rho[one, two] / 2, "se_method": "closed_form",
             "reason": None}
        )  # fmt: skip
        tables.write_table(pairs, self.path("genetic_correlation.tsv"), "genetic_correlation")
        own = [str(number + 1) for number in range(self.r)]
        intercepts = pd.DataFrame(
            {"component": own, "other": own, "intercept": [1.0, 1.3, 0.9, 1.1], "expected": 1.0,
             "standard_error": 0.05, "neg_log_10_p_value": 1.0,
             "false_discovery_rate": [0.9, 0.001, 0.04, 0.051]}
        )  # fmt: skip
        tables.write_table(intercepts, self.path("intercepts.tsv"), "intercepts")
        with formats.create(
            self.path("genetic_covariance.h5"),
            "genetic_covariance",
            {"n": N_SUBJECTS, "m": 120, "t_1": 1.0, "t_2": 1.0, "t_4": 1.0,
             "heritability_method": "moments"},
            inputs={"dataset": self.dataset_digest},
        ) as writer:  # fmt: skip
            writer.add("Gamma", self.Gamma)
            writer.add("Sigma", self.Sigma)
            writer.add("s", np.zeros((self.r, self.r)))
            writer.add("bases", self.bases)
            writer.add("coordinates", self.geometry.coordinates)
            add_geometry(writer, self.geometry)
        trait = pd.DataFrame(self._voxel_columns()).assign(
            genetic_correlation=np.linspace(-0.5, 0.9, self.N),
            standard_error=0.1,
            neg_log_10_p_value=2.0,
            false_discovery_rate=0.01,
            genetic_correlation_raw=np.linspace(-0.5, 0.9, self.N),
            standard_error_raw=0.1,
            se_method="closed_form",
            reason=None,
        )
        tables.write_table(trait, self.path("height.tsv"), "cross_trait")
        trait["genetic_correlation"] = np.linspace(0.7, -0.3, self.N)
        trait["genetic_correlation_raw"] = trait["genetic_correlation"]
        tables.write_table(trait, self.path("a $trait.tsv"), "cross_trait")
        rate = np.full((2, len(names)), 0.2)
        rate[1, :3] = 0.05
        rho = np.stack([np.linspace(-0.9, 0.9, len(names)), np.linspace(0.2, -0.4, len(names))])
        rho[0, -1] = np.nan
        by_region = pd.DataFrame(
            {"trait": np.repeat(["a $trait", "height"], len(names)), "region": np.tile(names, 2),
             "genetic_correlation": rho.ravel(), "standard_error": 0.1, "neg_log_10_p_value": 1.0,
             "false_discovery_rate": rate.ravel(), "genetic_correlation_raw": rho.ravel(),
             "standard_error_raw": 0.1, "se_method": "jackknife",
             "reason": np.where(np.isnan(rho.ravel()), "correlation beyond 1", None)}
        )  # fmt: skip
        self.trait_regions = by_region
        tables.write_table(by_region, self.path("cross_trait_regions.tsv"), "cross_trait_regions")

    def _summaries(self) -> None:
        content = {
            "select_subjects": {
                "n": N_SUBJECTS, "n_voxels": self.N, "n_voxels_mask": self.N + 2,
                "n_voxels_dropped_coverage": 2, "n_voxels_dropped_constant": 0,
                "coverage": {
                    "min_coverage": 0.9, "lowest": 0.525, "mean": 0.9987, "n_voxels_full": 1,
                    "n_values_filled": 4321, "n_subjects_filled": 37,
                    "largest_share_filled": 0.043,
                },
                "matches": [{"examples": ["person_007"]}],
                "flow": [
                    {"step": "images", "n_in": 610, "n_out": 605, "reason": f"{NASTY} is odd"},
                    {"step": "covariates", "n_in": 605, "n_out": 600, "reason": "incomplete"},
                ],
            },
            "fit_bases": {
                "n_eff_standard_error": 0.07, "decomposition": "krylov",
                "largest_relative_residual": 3.2e-7,
                "candidates": [{"bandwidth": 6.0, "skipped": ""},
                               {"bandwidth": 12.0, "skipped": "too many neighbours"}],
            },
            "make_ldrs": {
                "quality_components": [1, 2, 4], "quality_correlation": [0.3, 0.5, 0.7],
                "quality_correlation_centred": [0.4, 0.6, 0.8],
                "outliers": {"n": 5, "threshold": 11.25},
            },
            "minimal_dataset": {
                "m": 1000, "r": 5, "variant_bytes": 10_600, "fixed_bytes": 40_000,
                "lambda_gc": [1.01, 1.52, 0.98, None, 1.04],
            },
            "ld_reference": {
                "n_a": 250, "n_b": 250, "n_2": 500, "ld_share": 0.98, "n_variants": 1827,
                "n_blocks": 61, "largest_block": 77,
                "counts": {"in_both": 1960, "kept": 1827, "rare_in_a_panel": 133,
                           "repeated_in_panel_2": 0},
            },
            "heritability": {
                "n_used_variants": 118, "share_of_reference": 0.9833, "n_blocks_used": 7,
                "n_significant_voxels_fdr_5_percent": 200, "n_voxels": self.N,
                "heritability_moments": 0.4123, "heritability_bands": 0.3912,
                "model_difference": 0.0211, "model_difference_standard_error": 0.0123,
                "model_test_z": 1.715, "model_test_neg_log_10_p_value": 1.064,
                "mean_intercept": 1.0452, "mean_intercept_standard_error": 0.0103,
                "mean_intercept_neg_log_10_p_value": 4.94, "n_intercepts_not_1_fdr_5_percent": 3,
                "heterogeneity_variance": 0.00234, "heterogeneity_variance_expected": 0.00172,
                "heterogeneity_p_value": 3.1e-5, "heterogeneity_n_voxels": 319,
                "n_jackknife_groups": 173, "se_method": "jackknife",
                "jackknife_over_closed_form": 2.37,
            },
            "convert_genotypes": {
                "file": "chr2.vcf.gz", "format": "vcf", "n_variants": 12_345, "n_samples": 610,
                "n_left_out": 21, "n_multiallelic_split": 17, "n_multiallelic_dropped": 0,
                "n_need_sex": 0, "field": "DS", "plink2": "v2.00a5",
            },
            "fit_null": {
                "kinship": {"threshold": 0.0442, "n_pairs": 17, "n_people": 31,
                            "n_pairs_listed": 19},
            },
            "cross_trait": {
                "trait": "height", "n_trait": 5000, "n_rows": 130, "n_shared_variants": 117,
                "n_reference_variants": 120, "heritability_trait_raw": 0.5123,
                "standard_error_trait_raw": 0.05, "intercept_trait": 1.0234,
                "n_intercepts_with_trait_fdr_5_percent": 2, "largest_intercept_with_trait": 0.317,
                "format": "LDSC", "build": "study",
                "dropped": {"matched_by_position": 117, "ambiguous_alleles": 9,
                            "not_in_reference": 4, "repeated": 0},
            },
            "image_tail": {"effective_tests": 31.4, "critical_z_published": 4.5},
        }  # fmt: skip
        for stage, numbers in content.items():
            warnings = [f"beware of {NASTY}"] if stage == "heritability" else []
            summary = {"stage": stage, "numbers": numbers, "warnings": warnings}
            self.path(f"{stage}.json").write_text(json.dumps(summary))
        for number in (1, 2):
            summary = {"stage": "component_gwas", "numbers": {"n": 1}, "warnings": ["slow"]}
            self.path(f"component_gwas.{number}.json").write_text(json.dumps(summary))
            images = {
                "n_images": 300 + number, "n_images_not_finite": number, "n_values_not_finite": 8,
                "geometry_type": "nifti",
            }  # fmt: skip
            summary = {"stage": "read_images", "numbers": images, "warnings": []}
            self.path(f"read_images.{number}.json").write_text(json.dumps(summary))
        self.path("params.json").write_text(
            json.dumps({"clump_r2": 0.1, "clump_kb": 250, "outdir": NASTY, "traits": None})
        )

    def arguments(self, *options: object, out: str = "report.html") -> list[object]:
        """Return options with the files to write."""
        versions = self.path(out + ".software_versions.tsv")
        return [*options, "--out", self.path(out), "--out-versions", versions]

    def run(self, *options: object, out: str = "report.html") -> StageResult:
        """Run the stage in this process, as its own would end."""
        return run_stage_here("report", *self.arguments(*options, out=out))

    @property
    def summaries(self) -> list[Path]:
        """The stages' summaries, in an order that says nothing."""
        return sorted(set(self.folder.glob("*.json")) - {self.path("params.json")}, reverse=True)

    @property
    def whole(self) -> list[object]:
        """Options of a run with everything."""
        return [
            "--title", f"Study {NASTY}", "--parameters", self.path("params.json"),
            "--summaries", self.summaries,
            "--bases", self.path("bases.h5"), "--dataset", self.path("study.rvga.h5"),
            *self.scan,
            "--heritability", self.path("heritability.tsv"),
            "--regions", self.path("regions.tsv"), "--intercepts", self.path("intercepts.tsv"),
            "--genetic-correlation", self.path("genetic_correlation.tsv"),
            "--genetic-covariance", self.path("genetic_covariance.h5"),
            "--cross-trait", [self.path("height.tsv"), self.path("a $trait.tsv")],
            "--cross-trait-regions", self.path("cross_trait_regions.tsv"),
            "--truth", self.path("truth.h5"),
            "--out-truth", self.path("truth_comparison.tsv"),
            "--out-truth-loci", self.path("truth_loci.tsv"), "--engine-version", "24.10.0",
        ]  # fmt: skip

    @property
    def from_minimal(self) -> list[object]:
        """Options of a run that starts from the minimal dataset and ends with the loci."""
        return [
            "--parameters", self.path("params.json"), "--dataset", self.path("study.rvga.h5"),
            *self.scan,
        ]  # fmt: skip

    @property
    def scan(self) -> list[object]:
        """Options that hand over what the scan and FIND_LOCI left."""
        return [
            "--tail", self.path("tail.h5"), "--variants", self.path("variants.tsv.gz"),
            "--voxels", self.path("voxels.tsv"), "--loci", self.path("loci.tsv"),
            "--lead-variants", self.path("lead_variants.tsv"),
        ]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def whole(study) -> StageResult:
    """The stage in its own process, with everything."""
    done = run_stage_process("report", *study.arguments(*study.whole))
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def page(study, whole) -> str:
    return study.path("report.html").read_text()


def test_both_rules_are_counted_whichever_decides(study, page):
    section = sections_of(page)["association"]
    rows = re.findall(r"<tr>(.*?)</tr>", section)
    cells = [re.findall(r">([^<]*)</td>", row) for row in rows]
    rules = {row[0]: row for row in cells if row and "p " in row[0]}
    used = next(row for name, row in rules.items() if name.endswith("– used"))
    published = next(row for name, row in rules.items() if "published" in name)
    z = np.abs(tables.read_table(study.path("variants.tsv.gz"), "variants")["z"].to_numpy())
    normal = np.abs(significance.t_to_normal(z, N_SUBJECTS - N_COVARIATES - 1))
    with formats.open_file(study.path("tail.h5"), "tail") as file:
        tail = significance.Tail.of(file)
    assert "image-wide" in used[0]
    for row, limit in (
        (used, tail.critical_z_image_wide),
        (published, tail.critical_z_published),
    ):
        assert row[1] == f"{limit:.3f}"
        assert int(row[3].replace(",", "")) == (normal > limit).sum()


def sections_of(page: str) -> dict[str, str]:
    """Return the text of each section by its id."""
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, flags=re.DOTALL))


def test_every_part_of_a_whole_run_has_its_section(page):
    found = sections_of(page)
    assert list(found) == [
        "glance", "truth", "flow", "representation", "genotypes", "dataset", "association",
        "maps", "loci", "heritability", "correlation", "cross_trait", "methods", "parameters",
        "stages", "versions", "warnings",
    ]  # fmt: skip
    assert "Not run" not in page
    # What the stages' summaries say.
    assert "at least 90 % of the subjects" in found["flow"]
    assert "the least covered voxel has 52.5 %" in found["flow"]
    assert "4,321 missing values of 37 subjects are filled" in found["flow"]
    assert "5 subjects lie far from all others" in found["flow"]
    assert "standard error is 0.07" in found["representation"]
    assert "Dotted: 1 skipped (12 mm: too many neighbours)." in found["representation"]
    assert "largest relative residual is 3.2" in found["representation"]
    assert "50,600" in found["dataset"]
    assert "2.12 bytes a variant and component" in found["dataset"]
    assert "largest 1.52" in found["dataset"]
    for section in found:
        assert f'<a href="#{section}">' in page
    pictures = {name: text.count("<img ") for name, text in found.items()}
    assert pictures["truth"] == 7
    assert pictures["representation"] == 3 + 4  # maps of the components
    assert pictures["association"] == 2
    assert pictures["maps"] == 1 + 1
    assert pictures["heritability"] == 4
    assert pictures["correlation"] == 3
    assert pictures["cross_trait"] == 3


def test_the_page_says_what_was_found(study, page):
    found = sections_of(page)
    significant = int((study.variants["n_significant_voxels"] > 0).sum())
    assert f"{significant} of 120 variants are significant" in found["association"]
    for name in study.loci["lead_variant_id"]:
        if name != NASTY:
            assert name in found["loci"]
    assert "5 below 0" in found["heritability"] or "below 0" in found["heritability"]
    assert "605 → <b>600</b>" in found["flow"]
    assert "117 of 120" in found["cross_trait"]
    assert "600 subjects" in found["methods"]
    assert "500 people" in found["methods"]
    assert "Nextflow" in found["versions"]
    assert "component_gwas: slow (2 tasks)" in found["warnings"]
    assert "Warning: component_gwas: slow (2 tasks)" in found["glance"]
    assert "minor allele count" in found["association"]
    rows = re.findall(r"<tr><td[^>]*>(\w+)</td>", found["association"])
    assert rows == ["2", "10", "X", "all"]


def test_tests_of_the_model_stand_with_heritability(page):
    section = sections_of(page)["heritability"]
    for text in (
        "mean h² by moments", "0.412", "0.391", "0.0211", "0.0123", "0.0863", "1.05", "0.0103",
        "1.1\u00a0×\u00a010⁻⁵", "variance of h² over 319 voxels", "0.00234", "0.00172",
        "3.1\u00a0×\u00a010⁻⁵", "a jackknife of 173 groups", "2.37", "up to 1.5",
    ):  # fmt: skip
        assert text in section, text
    assert re.search(r"whose intercept is not 1[^<]*</td>\s*<td[^>]*>\s*3\s*<", section)


def test_intercepts_and_the_reference_stand_with_heritability(page):
    section = sections_of(page)["heritability"]
    assert "2 of 4 differ from 1 at a false-discovery rate of 5 %" in section
    assert (
        "500 people of the first panel and 500 of the second, 1,827 variants, of 1,960" in section
    )
    assert "in 61 blocks, the largest of 77. Left out: 133 rare in a panel." in section
    assert "320 voxels and 24 of 24 regions are heritable" in section
    assert "leaving out one group of LD blocks" in section


def test_rows_of_traits_are_told_by_their_fate(page):
    section = sections_of(page)["cross_trait"]
    table = next(part for part in section.split('class="caption"') if "What became of" in part)
    assert re.findall(r"<th[^>]*>([^<]*)</th>", table) == [
        "trait", "format", "genome build", "rows read", "left out: ambiguous alleles",
        "left out: not in reference", "matched by position",
    ]  # fmt: skip
    assert re.findall(r"<td[^>]*>([^<]*)</td>", table) == [
        "height", "LDSC", "study", "130", "9", "4", "117",
    ]  # fmt: skip
    assert "0.317" in section


def test_batches_of_images_are_added_up(page):
    found = sections_of(page)
    text = "603 images of the type nifti were read in 2 batches; 3 of them lack 16 values in all."
    assert text in found["flow"]
    assert "301 to 302; together 603" in found["stages"]


def test_traits_by_regions_are_a_picture_with_marks(study, page):
    section = sections_of(page)["cross_trait"]
    pairs = len(study.trait_regions)
    assert f"Genetic correlation of 2 traits with the mean image of {pairs // 2} regions" in section
    assert f"dots: the 3 of {pairs} pairs" in section
    assert f"1 of {pairs} estimates are not shown (1 correlation beyond 1)" in section
    assert "1.02" in section


def test_genotype_files_and_relatives_are_told(page):
    found = sections_of(page)
    for text in ("chr2.vcf.gz", "dosages (DS)", "12,345", "610", "21", "17", "v2.00a5"):
        assert text in found["genotypes"]
    assert "31 people of the sample" in found["dataset"]
    assert "17 of the 19 pairs" in found["dataset"]
    assert "above a kinship of 0.0442" in found["dataset"]


def test_text_of_users_is_escaped(page):
    assert NASTY not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script>") == 1  # the table sorter


def test_the_page_asks_for_nothing_from_a_network(page):
    addresses = re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["']([^"']+)""", page)
    remote = [text for text in addresses if not text.startswith(("#", "data:"))]
    assert set(remote) == {"https://doi.org/10.1038/s41467-026-69816-z"}
    assert not re.search(r"url\(|@import|<link|<iframe|fetch\(|XMLHttp", page)
    assert "connect-src" not in page
    assert "default-src 'none'" in page


def test_no_subject_is_named(page):
    assert "person_007" not in page


def test_equal_input_gives_equal_bytes_in_any_order_and_number_of_threads(study, page):
    options = study.whole
    options[options.index("--summaries") + 1] = list(reversed(study.summaries))
    done = study.run(*options, "--threads", "2", out="again.html")
    assert done.returncode == 0, done.stderr
    assert study.path("again.html").read_text() == page


def test_truth_tables_are_written_and_printed(study, whole):
    table = tables.read_table(study.path("truth_comparison.tsv"), "truth_comparison")
    planted = tables.read_table(study.path("truth_loci.tsv"), "truth_loci")
    assert planted["variant_id"].tolist() == [NASTY, "planted2"]
    rows = table.set_index("quantity")["value"]
    assert rows["planted loci"] == "2"
    found = (planted["found"] == "yes").sum()
    assert rows["planted loci found, whatever their power"] == f"{found} of 2"
    assert float(rows["h² of the denoised image: correlation with the truth"]) > 0.8
    assert float(rows["genetic correlation of voxels: correlation with the truth"]) == 1.0
    for quantity in table["quantity"]:
        assert quantity in whole.stderr


def test_a_run_of_the_representation_only_says_what_was_not_run(study):
    done = study.run(
        "--parameters", study.path("params.json"), "--bases", study.path("bases.h5"),
        out="bases.html",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = sections_of(study.path("bases.html").read_text())
    assert "Not run: the run did not start from images" in found["flow"]
    assert "Not run: it needs ld_panel_1" in found["heritability"]
    assert "Not run: it needs ld_panel_1" in found["cross_trait"]
    assert "Not run" in found["association"]
    assert "truth" not in found
    assert found["representation"].count("<img ") == 2 + 4  # maps of the components
    assert "Reconstruction quality is not shown" in found["representation"]


@pytest.fixture(scope="module")
def minimal(study) -> str:
    """The page of a run that starts from the minimal dataset."""
    done = study.run(*study.from_minimal, out="minimal.html")
    assert done.returncode == 0, done.stderr
    return study.path("minimal.html").read_text()


def test_a_run_from_the_minimal_dataset_shows_what_it_can(minimal):
    found = sections_of(minimal)
    assert found["association"].count("<img ") == 2
    assert found["maps"].count("<img ") == 2
    assert "Not run" in found["flow"]


def test_thousands_of_variants_do_not_make_the_page_larger(minimal, tmp_path):
    large = Study(tmp_path, variant_scale=30)
    done = large.run(*large.from_minimal)
    assert done.returncode == 0, done.stderr
    assert large.path("report.html").stat().st_size < len(minimal.encode()) + 400_000


def test_a_study_without_findings_has_a_page(study, tmp_path):
    for kind, name in (("loci", "loci.tsv"), ("lead_variants", "lead_variants.tsv")):
        tables.write_table(pd.DataFrame(columns=list(tables.TABLES[kind])), tmp_path / name, kind)
    voxels = tables.read_table(study.path("voxels.tsv"), "voxels")
    tables.write_table(voxels.assign(n_significant_variants=0), tmp_path / "voxels.tsv", "voxels")
    options = [
        tmp_path / option.name if getattr(option, "name", "") in files_in(tmp_path) else option
        for option in study.from_minimal
    ]
    done = study.run(*options, out="nothing.html")
    assert done.returncode == 0, done.stderr
    found = sections_of(study.path("nothing.html").read_text())
    assert "No voxel has a significant variant." in found["maps"]
    assert "No locus is significant." in found["loci"]


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--parameters", "{", "not JSON"),
        ("--parameters", "", "is empty"),
        ("--parameters", "[1]", "an object of parameters is due"),
        ("--summaries", '{"stage": "x"}', "not the summary of a stage"),
        ("--loci", "locus\tchromosome\n", "column 'start' is missing"),
        ("--heritability", None, "no such file"),
        ("--bases", "not hdf5", "not a readable HDF5 file"),
        ("--truth", "not hdf5", "not a readable HDF5 file"),
        ("--variants", "chromosome\n", "its columns are not those"),
    ],
)
def test_wrong_input_is_named_and_leaves_nothing(study, tmp_path, option, content, message):
    wrong = tmp_path / "wrong"
    if content is not None:
        wrong.write_text(content)
    options = study.whole
    options[options.index(option) + 1] = wrong
    before = files_in(study.folder)
    done = study.run(*options, out="refused.html")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(study.folder) == before


def test_files_of_two_runs_are_refused(study, tmp_path):
    other = Study(tmp_path, variant_scale=2)
    for option, name in (("--tail", "tail.h5"), ("--genetic-covariance", "genetic_covariance.h5")):
        options = study.whole
        options[options.index(option) + 1] = other.path(name)
        done = study.run(*options, out="refused.html")
        assert done.returncode == 2
        assert "different runs" in done.stderr


def test_regions_of_other_traits_are_refused(study, tmp_path):
    options = study.whole
    options[options.index("--cross-trait") + 1] = [study.path("height.tsv")]
    done = study.run(*options, out="other.html")
    assert done.returncode == 2
    assert "trait 'a $trait' is in the table by region" in done.stderr
    assert not study.path("other.html").exists()


def test_a_table_of_another_number_of_voxels_is_refused(study, tmp_path):
    short = tables.read_table(study.path("heritability.tsv"), "heritability").iloc[:-1]
    tables.write_table(short, tmp_path / "heritability.tsv", "heritability")
    options = study.whole
    options[options.index("--heritability") + 1] = tmp_path / "heritability.tsv"
    done = study.run(*options, out="refused.html")
    assert done.returncode == 2
    assert f"has {study.N - 1} rows, but there are {study.N} voxels" in done.stderr
