"""What runs again after a change, and what does not (``-stub-run``).

A task runs again when one of its inputs is another one, or when a task runs again that it takes a
file from. Both are read from what the engine makes its hashes of, for every parameter in one
start: each has a value of its own, which tells where it goes. Runs with ``-resume`` then show that
the engine does what follows from it.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from pathlib import Path

import pytest

from dataflow import FEEDS, REACHED, STAGES, runs_again
from engine import REPOSITORY, Case, run_several

pytestmark = pytest.mark.xdist_group("nextflow-stub")

BIN = REPOSITORY / "bin/rvga"
SCHEMA = json.loads((REPOSITORY / "nextflow_schema.json").read_text())
PARAMETERS = [name for group in SCHEMA["$defs"].values() for name in group["properties"]]

# Where a parameter goes: the inputs of processes that are other ones when it is. Every process
# that follows runs again too, and so does the report, which tells the parameters.
GOES_TO = {
    "images": "READ_IMAGES.images",
    "image_pattern": "READ_IMAGES.images READ_IMAGES.subjects",
    "image_subjects": "READ_IMAGES.subjects",
    "mask": "READ_IMAGES.masks",
    "surface": "READ_IMAGES.surfaces",
    "coordinates": "READ_IMAGES.coordinate_rule",
    "parts": "READ_IMAGES.coordinates",
    "cifti_maps": "READ_IMAGES.cifti_maps",
    "zero_is_missing": "READ_IMAGES.zero_is_missing",
    "min_coverage": "SELECT_SUBJECTS.min_coverage",
    "genotypes": """CONVERT_GENOTYPES.genotypes CONVERT_GENOTYPES.samples
        PLAN_CHUNKS.genotypes PLAN_CHUNKS.variants PLAN_CHUNKS.samples
        SELECT_SUBJECTS.samples MAKE_LDRS.samples IMPORT_LDRS.samples
        COMPONENT_GWAS.genotypes COMPONENT_GWAS.variants COMPONENT_GWAS.samples
        CLUMP_VARIANTS.genotypes CLUMP_VARIANTS.variants CLUMP_VARIANTS.samples""",
    "covariates": "SELECT_SUBJECTS.covariates IMPORT_LDRS.covariates FIT_NULL.covariates",
    "covariate_columns": """SELECT_SUBJECTS.covariate_columns IMPORT_LDRS.covariate_columns
        FIT_NULL.covariate_columns""",
    "categorical_columns": """SELECT_SUBJECTS.categorical_columns
        IMPORT_LDRS.categorical_columns FIT_NULL.categorical_columns""",
    "sex_column": "FIT_NULL.sex_column",
    "subject_id": """SELECT_SUBJECTS.subject_id MAKE_LDRS.subject_id IMPORT_LDRS.subject_id
        COMPONENT_GWAS.subject_id CLUMP_VARIANTS.subject_id""",
    "keep": "SELECT_SUBJECTS.keep IMPORT_LDRS.keep",
    "remove": "SELECT_SUBJECTS.remove IMPORT_LDRS.remove",
    "genome_build": """CONVERT_GENOTYPES.genome_build COMPONENT_GWAS.genome_build
        IMPORT_SUMSTATS.genome_build""",
    "ld_panel_1": "LD_BLOCKS.genotypes_1 LD_BLOCKS.variants_1 LD_BLOCKS.samples_1",
    "ld_panel_2": "LD_BLOCKS.genotypes_2 LD_BLOCKS.variants_2 LD_BLOCKS.samples_2",
    "ld_blocks": "LD_BLOCKS.ld_blocks",
    "ld_reference": "HERITABILITY.reference CROSS_TRAIT.reference",
    "traits": "CROSS_TRAIT.sumstats",
    "known_loci": "FIND_LOCI.known_loci",
    "regions": "HERITABILITY.regions REPORT.regions",
    "bases": """PROJECT_IMAGES.bases MAKE_LDRS.bases IMPORT_LDRS.bases FIT_NULL.bases
        MINIMAL_DATASET.bases REPORT.bases""",
    "ldrs": "IMPORT_LDRS.table",
    "component_sumstats": "IMPORT_SUMSTATS.sumstats",
    "residual_cross_product": "FIT_NULL.residual_cross_product",
    "n_subjects": "FIT_NULL.n_subjects",
    "n_covariates": "FIT_NULL.n_covariates",
    "loco_predictions": "FIT_NULL.loco_predictions",
    "kinship": "FIT_NULL.kinship",
    "minimal": """IMAGE_TAIL.dataset SCAN_VOXELS.dataset FIND_LOCI.dataset HERITABILITY.dataset
        CROSS_TRAIT.dataset REPORT.dataset""",
    "truth": "REPORT.truth",
    "simulate": "SIMULATE.preset",
    "study": "MINIMAL_DATASET.study REPORT.study",
    "images_per_batch": """READ_IMAGES.batch READ_IMAGES.images READ_IMAGES.subjects
        PROJECT_IMAGES.batch""",
    "bandwidth": "FIT_BASES.bandwidth",
    "bandwidth_subjects": "FIT_BASES.bandwidth_subjects",
    "surface_distance": "FIT_BASES.surface_distance",
    "components": "FIT_BASES.components",
    "components_correlation": "FIT_BASES.components_correlation",
    "components_variance": "FIT_BASES.components_variance",
    "seed": "SIMULATE.seed FIT_BASES.seed IMAGE_TAIL.seed LD_BLOCKS.seed",
    "chunk_variants": "PLAN_CHUNKS.chunk_variants IMPORT_SUMSTATS.chunk_variants",
    "split_genotypes": """PLAN_CHUNKS.chunk_variants PLAN_CHUNKS.genotypes
        PLAN_CHUNKS.samples""",
    "minor_allele_frequency": """COMPONENT_GWAS.minor_allele_frequency
        IMPORT_SUMSTATS.minor_allele_frequency""",
    "minor_allele_count": """COMPONENT_GWAS.minor_allele_count
        IMPORT_SUMSTATS.minor_allele_count""",
    "minimum_info": "COMPONENT_GWAS.minimum_info",
    "maximum_missing_rate": "COMPONENT_GWAS.maximum_missing_rate",
    "hardy_weinberg_p": "COMPONENT_GWAS.hardy_weinberg_p",
    "keep_variants": "COMPONENT_GWAS.keep_variants",
    "remove_variants": "COMPONENT_GWAS.remove_variants",
    "dataset_coding": "COMPONENT_GWAS.dataset_coding IMPORT_SUMSTATS.dataset_coding",
    "significance": "IMAGE_TAIL.significance",
    "significance_level": "IMAGE_TAIL.significance_level",
    "tail_draws": "IMAGE_TAIL.tail_draws",
    "scan_parts": "SCAN_VOXELS.part SCAN_VOXELS.parts",
    "all_hits": "SCAN_VOXELS.all_hits",
    "clump_r2": "CLUMP_VARIANTS.clump_r2 FIND_LOCI.clump_r2",
    "clump_kb": "CLUMP_VARIANTS.clump_kb FIND_LOCI.clump_kb",
    "ld_share": "LD_BLOCKS.ld_share",
    "heritability_method": "HERITABILITY.heritability_method",
    "intercept": "HERITABILITY.intercept",
    "se_method": "HERITABILITY.se_method CROSS_TRAIT.se_method",
    "correlation_voxels": "HERITABILITY.correlation_voxels",
    "genetic_correlation_matrix": "HERITABILITY.genetic_correlation_matrix",
}
# Where results go and how the engine works: nothing runs again.
NOWHERE = {
    *("outdir", "publish_dir_mode", "container", "queue", "aws_region", "aws_work_dir"),
    *("spot_attempts", "help", "version"),
}
# What no value tells apart: seen by which inputs differ between two runs.
SEEN_BY_CHANGE = {
    *("images_per_batch", "scan_parts", "image_pattern", "zero_is_missing", "all_hits"),
    *("genetic_correlation_matrix", "split_genotypes"),
}
# A file in a task's folder.
MADE = re.compile(r"/work/[0-9a-f]{2}/[0-9a-f]{30}/")


# ----------------------------------------------------------------------------------------------
# Every parameter
# ----------------------------------------------------------------------------------------------

# Two values of every parameter where images are given. All second ones differ from each other, so
# that a process's input tells which parameter it comes from; a name with a number is a file.
IMAGES: dict[str, tuple[object, object]] = {
    "images": ("images_0.csv", "images_1.csv"),
    "mask": ("mask_0.nii", "mask_1.nii"),
    "surface": ("surface_0.gii", "surface_1.gii"),
    "coordinates": ("index", "none"),
    "parts": ("parts_0.csv", "parts_1.csv"),
    "cifti_maps": ("all", "second"),
    "zero_is_missing": (False, True),
    "min_coverage": (1.0, 0.51),
    "genotypes": ("genotypes_0.csv", "genotypes_1.csv"),
    "covariates": ("covariates_0.tsv", "covariates_1.tsv"),
    "covariate_columns": ("age", "age,height"),
    "categorical_columns": ("site", "site,scanner"),
    "sex_column": ("sex", "gender"),
    "subject_id": ("IID", "FID_IID"),
    "keep": ("keep_0.txt", "keep_1.txt"),
    "remove": ("remove_0.txt", "remove_1.txt"),
    "genome_build": ("GRCh37", "GRCh38"),
    "ld_panel_1": ("panel_0.csv", "panel_1.csv"),
    "ld_panel_2": ("panel_2.csv", "panel_3.csv"),
    "ld_blocks": ("blocks_0.bed", "blocks_1.bed"),
    "traits": ("traits_0.csv", "traits_1.csv"),
    "known_loci": ("known_0.tsv", "known_1.tsv"),
    "regions": ("regions_0.nii", "regions_1.nii"),
    "n_subjects": (0, 901),
    "n_covariates": (-1, 41),
    "loco_predictions": ("predictions_0.csv", "predictions_1.csv"),
    "kinship": ("kinship_0.txt", "kinship_1.txt"),
    "truth": ("truth_0.h5", "truth_1.h5"),
    "study": ("one", "another"),
    "images_per_batch": (1, 2),
    "bandwidth": ("auto", "6.25"),
    "bandwidth_subjects": (500, 402),
    "surface_distance": ("geodesic", "euclidean"),
    "components": (0, 7),
    "components_correlation": (0, 0.93),
    "components_variance": (0.8, 0.74),
    "seed": (1, 17),
    "chunk_variants": (20000, 10005),
    "minor_allele_frequency": (0.01, 0.026),
    "minor_allele_count": (20, 37),
    "minimum_info": (0, 0.38),
    "maximum_missing_rate": (1, 0.19),
    "hardy_weinberg_p": (0, 1e-6),
    "keep_variants": ("keep_variants_0.txt", "keep_variants_1.txt"),
    "remove_variants": ("remove_variants_0.txt", "remove_variants_1.txt"),
    "dataset_coding": ("int16", "float32"),
    "significance": ("image_wide", "published"),
    "significance_level": (5e-8, 1e-8),
    "tail_draws": (20000, 3010),
    "scan_parts": (1, 2),
    "all_hits": (False, True),
    "clump_r2": (0.1, 0.211),
    "clump_kb": (250, 312),
    "ld_share": (0.98, 0.913),
    "heritability_method": ("balanced", "bands"),
    "intercept": ("fixed", "free"),
    "se_method": ("closed_form", "jackknife"),
    "correlation_voxels": ("1", "5,6"),
    "genetic_correlation_matrix": (False, True),
}
SECOND = {name: second for name, (_, second) in IMAGES.items()}
COMPONENTS = {"covariates": "covariates_1.tsv", "bases": "bases_1.h5"}
STATISTICS = {"component_sumstats": "statistics_1.csv", "scan_parts": 1}
GENOTYPES = {
    **COMPONENTS,
    "ldrs": "ldrs_1.tsv",
    "genotypes": "genotypes_1.csv",
    "genome_build": "GRCh38",
    "subject_id": "FID_IID",
    "scan_parts": 1,
}
FOLDER = {"images": "folder_0", "mask": "mask_0.nii", **COMPONENTS}


def second(*names: str) -> dict[str, object]:
    """Return the second values of some parameters."""
    return {name: SECOND[name] for name in names}


def pick(changed: set[str]) -> dict[str, object]:
    """Return the study of images with some parameters changed."""
    return {name: pair[name in changed] for name, pair in IMAGES.items()}


# The runs: two that only differ by switches, so that three switches have patterns of their own.
SWITCHES = {"all_hits", "genetic_correlation_matrix"}
CASES: dict[str, dict[str, object]] = {
    "images": pick(set()),
    "all but one changed": pick(set(IMAGES) - {"all_hits"}),
    "two switches changed": pick(SWITCHES),
    "folder": {**FOLDER, "image_pattern": "(a).nii"},
    "folder, pattern changed": {**FOLDER, "image_pattern": "([ab]).nii"},
    "volumes": {
        "images": "volumes_0.nii",
        "image_subjects": "ids_1.txt",
        "mask": "mask_0.nii",
        "covariates": "covariates_1.tsv",
    },
    "components and their statistics": {
        **COMPONENTS,
        **STATISTICS,
        "ldrs": "ldrs_1.tsv",
        **second("covariate_columns", "categorical_columns", "subject_id", "keep", "remove"),
        **second("minor_allele_frequency", "minor_allele_count", "dataset_coding"),
        **second("genome_build", "chunk_variants"),
    },
    "components and genotypes": {**GENOTYPES, "split_genotypes": True},
    "components and genotypes, not split": {**GENOTYPES, "split_genotypes": False},
    "cross-product": {
        **STATISTICS,
        "residual_cross_product": "product_1.tsv",
        "bases": "bases_1.h5",
        **second("n_subjects", "n_covariates"),
    },
    "dataset": {
        "minimal": "minimal_1.h5",
        "ld_reference": "reference_1.h5",
        **second("traits", "se_method", "regions", "known_loci"),
        "scan_parts": 1,
    },
    "simulated": {"simulate": "demo", "seed": 17, "scan_parts": 1},
}
# What a sheet brings into a process's inputs, where it is not the sheet itself.
MARKS = {
    "images": r"/[ab]_1\.nii",
    "parts": r"/places_1\.tsv",
    "genotypes": r"/(one|two)_1\.",
    "ld_panel_1": r"/panel1\.",
    "ld_panel_2": r"/panel3\.",
    "traits": r"/trait_1\.txt",
    "loco_predictions": r"/loco_1\.txt",
    "component_sumstats": r"/statistics_1\.txt",
}
SHEETS = {
    "images": "subject,image,part\na,a_{0}.nii,lh\nb,b_{0}.nii,lh\n",
    "parts": "part,coordinates\nlh,places_{0}.tsv\n",
    "genotypes": "chromosome,path\n1,one_{0}.pgen\n2,two_{0}.bgen\n",
    "panel": "chromosome,path\n1,panel{0}.bed\n",
    "traits": "trait,path,n\nheight,trait_{0}.txt,1000\n",
    "predictions": "component,path\nLDR1,loco_{0}.txt\n",
    "statistics": "component,path\nLDR1,statistics_{0}.txt\n",
}
FILES = """
one_{0}.pgen one_{0}.pvar one_{0}.psam two_{0}.bgen two_{0}.sample panel{0}.bed panel{0}.bim
panel{0}.fam a_{0}.nii b_{0}.nii places_{0}.tsv trait_{0}.txt loco_{0}.txt statistics_{0}.txt
"""


def write_files(folder: Path) -> None:
    """Write every file that the studies name, and what their sheets name."""
    for name in itertools.chain.from_iterable(case.values() for case in CASES.values()):
        if isinstance(name, str) and re.search(r"_\d\.", name):
            (folder / name).write_text(name)
    for number in range(4):
        for name in FILES.split():
            (folder / name.format(number)).write_text(name.format(number))
        for name, text in SHEETS.items():
            (folder / f"{name}_{number}.csv").write_text(text.format(number))
    (folder / "volumes_0.nii").write_bytes((348).to_bytes(4, "little") + bytes(400))
    (folder / "folder_0").mkdir()
    for name in "ab":
        (folder / f"folder_0/{name}.nii").touch()


@pytest.fixture(scope="module")
def studied(tmp_path_factory, nextflow, pipeline_copy):
    """Return what the tasks of each case are made from, by one start of the engine."""
    folder = tmp_path_factory.mktemp("parameters")
    write_files(folder)
    ran = run_several(nextflow, pipeline_copy, folder, list(CASES.values()))
    return dict(zip(CASES, ran, strict=True))


def inputs(case: Case) -> dict[str, set[str]]:
    """Return PROCESS.input → its values over the tasks, without files that tasks made."""
    found: dict[str, set[str]] = {}
    for (process, _), values in case.hashes.items():
        for name, value in values.items():
            if f"{process}.{name}" != "REPORT.parameters":
                found.setdefault(f"{process}.{name}", set()).add(given(value))
    return found


def given(value: str) -> str:
    """Return an input's value; of files the paths, without those that tasks made."""
    if "FileHolder(" not in value:
        return "" if value == "[]" else value
    paths = re.findall(r"FileHolder\(sourceObj:([^,]+),", value)
    return " ".join(path for path in paths if not MADE.search(path))


def tells(value: str, name: str, chosen: object) -> bool:
    """Tell whether a process's input has a parameter's value in it."""
    if name in MARKS:
        return re.search(MARKS[name], value) is not None
    if isinstance(chosen, str) and re.search(r"_\d\.", chosen):
        return f"/{chosen}" in value
    try:
        return float(value) == float(chosen)
    except ValueError:
        return value == chosen


def test_every_parameter_has_a_row():
    assert set(GOES_TO) | NOWHERE == set(PARAMETERS)
    assert not set(GOES_TO) & NOWHERE
    # Every one is tried, and no two have one value.
    values = {name: given for case in CASES.values() for name, given in case.items()}
    assert set(values) == set(GOES_TO)
    told = [str(SECOND[name]) for name in set(SECOND) - SEEN_BY_CHANGE]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("name", sorted(set(GOES_TO) - SEEN_BY_CHANGE))
def test_a_parameter_goes_where_its_row_says(studied, name):
    """Its value is in those inputs of processes, and in no other."""
    expected, observed = set(), set()
    for label, given in CASES.items():
        if name not in given or given[name] != SECOND.get(name, given[name]):
            continue
        reached = studied[label].processes()
        expected |= {place for place in GOES_TO[name].split() if place.split(".")[0] in reached}
        for place, values in inputs(studied[label]).items():
            if any(tells(value, name, given[name]) for value in values):
                observed.add(place)
    assert observed == expected
    assert observed == set(GOES_TO[name].split())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("images", "all but one changed"),
        ("images", "two switches changed"),
        ("folder", "folder, pattern changed"),
        ("components and genotypes", "components and genotypes, not split"),
    ],
)
def test_nothing_else_is_another_one(studied, before, after):
    """The inputs that differ between two runs are those of the parameters that differ."""
    first, second = inputs(studied[before]), inputs(studied[after])
    different = {place for place in {*first, *second} if first.get(place) != second.get(place)}
    changed = {name for name in CASES[before] if CASES[before][name] != CASES[after][name]}
    reached = studied[before].processes()
    places = {place for name in changed for place in GOES_TO[name].split()}
    assert different == {place for place in places if place.split(".")[0] in reached}


def test_the_report_tells_every_parameter_that_counts(studied):
    for label, given in CASES.items():
        [said] = [
            values["parameters"]
            for (process, _), values in studied[label].hashes.items()
            if process == "REPORT"
        ]
        told = json.loads(said)
        assert {name: told.get(name) for name in given} == given
        assert not NOWHERE & set(told)


def test_files_go_from_process_to_process_as_the_table_says(studied):
    """What takes a file out of another task's folder, told by the summaries that all tasks make."""
    expected = {(giver, taker) for giver, names in FEEDS.items() for taker in names.split()}
    observed = set()
    for case in studied.values():
        observed |= edges(case)
    # (family ids are those of the first genotype file, which is not a converted one here)
    observed.add(("CONVERT_GENOTYPES", "MAKE_LDRS"))
    assert {edge for edge in observed if edge[1] != "REPORT"} == expected
    givers = {giver for giver, taker in observed if taker == "REPORT"}
    assert givers >= {stage.upper() for stage in STAGES} - {"REPORT"}


def edges(case: Case) -> set[tuple[str, str]]:
    """Return (giver, taker) of every file that one task has from another.

    A task's folder is that of its summary, which the report takes from every task.
    """
    [report] = [values for (process, _), values in case.hashes.items() if process == "REPORT"]
    owner = {}
    for path in re.findall(r"sourceObj:([^,]+),", report["summaries"]):
        owner[Path(path).parent.name] = Path(path).name.split(".")[0].upper()
    found = set()
    for (process, _), values in case.hashes.items():
        for folder in re.findall(r"sourceObj:[^,]*?/work/[0-9a-f]{2}/([0-9a-f]{30})/", str(values)):
            found.add((owner[folder], process))
    return {edge for edge in found if edge[0] != "SIMULATE" or edge[1] == "REPORT"}


# ----------------------------------------------------------------------------------------------
# Runs with -resume
# ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nextflow, pipeline_copy):
    """Return the launch folder of a finished stub run."""
    folder = tmp_path_factory.mktemp("stub")
    run = nextflow(folder, "-profile", "test", "-stub-run", pipeline=pipeline_copy / "main.nf")
    assert run.returncode == 0, run.text
    assert run.processes("COMPLETED") == REACHED
    return folder


@pytest.fixture
def again(folder, nextflow, pipeline_copy):
    """Return a function that runs once more with ``-resume`` and tells what was not cached."""

    def resume(*arguments):
        options = ("-profile", "test", "-stub-run", "-resume", *arguments)
        run = nextflow(folder, *options, pipeline=pipeline_copy / "main.nf")
        assert run.returncode == 0, run.text
        assert run.processes("CACHED") | run.processes("COMPLETED") == REACHED
        return run.processes("COMPLETED")

    return resume


@pytest.fixture
def edited(pipeline_copy):
    """Return a function that changes a module's code; the change is taken back afterwards."""
    before = {}

    def edit(name):
        path = pipeline_copy / "bin/rvga" / name
        before[path] = path.read_text()
        path.write_text(before[path] + "\nCHANGED = True\n")

    yield edit
    for path, text in before.items():
        path.write_text(text)


def test_what_counts_for_no_result_runs_nothing_again(again):
    assert again(
        *("--publish_dir_mode", "symlink", "--container", "other", "--queue", "other"),
        *("--aws_region", "eu-west-1", "--aws_work_dir", "s3://b/w", "--spot_attempts", 1),
    ) == set()  # fmt: skip


def test_code_of_the_report_runs_the_report_again(again, edited):
    edited("report.py")
    assert again() == {"REPORT"}


def test_code_of_the_representation_runs_what_follows_again(again, edited):
    edited("fpca.py")
    users = {
        stage.upper()
        for stage in STAGES
        if "fpca.py" in {path.name for path in imported(REPOSITORY / f"bin/rvga_{stage}.py", BIN)}
    }
    assert "FIT_BASES" in users & REACHED
    assert not users & {"READ_IMAGES", "PLAN_CHUNKS", "LD_BLOCKS", "LD_REFERENCE"}
    assert again() == runs_again(users, REACHED)


def test_fingerprint_covers_every_module_that_a_stage_imports(tmp_path, nextflow, pipeline_copy):
    script = pipeline_copy / "fingerprint.nf"
    script.write_text(
        "include { importedSources } from './subworkflows/parameters/main'\n"
        "workflow {\n"
        f"    {STAGES!r}.each {{ stage ->\n"
        '        def start = file("${projectDir}/bin/rvga_${stage}.py")\n'
        "        def names = importedSources([start], []).collect { source -> source.name }\n"
        "        println(\"STAGE ${stage} ${names.sort().join(' ')}\")\n"
        "    }\n"
        "}\n"
    )
    run = nextflow(tmp_path, pipeline=script)
    assert run.returncode == 0, run.text
    found = {
        stage: set(names.split())
        for stage, names in re.findall(r"^STAGE (\S+) (.*)$", run.text, re.MULTILINE)
    }
    assert set(found) == set(STAGES)
    for stage in STAGES:
        entrypoint = pipeline_copy / f"bin/rvga_{stage}.py"
        expected = {path.name for path in imported(entrypoint, pipeline_copy / "bin/rvga")}
        assert expected <= found[stage], stage
        extra = found[stage] - expected
        assert all(not name.endswith(".py") for name in extra), (stage, extra)
    templates = {path.name for path in (pipeline_copy / "bin/rvga/templates").iterdir()}
    assert templates
    assert templates <= found["report"]


def imported(source: Path, package: Path) -> set[Path]:
    """Return a source and all files of the package that it imports, by the syntax tree."""
    seen: set[Path] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = ".".join(filter(None, ["rvga" if node.level else "", node.module]))
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            for name in names:
                parts = name.split(".")
                if parts[0] != "rvga":
                    continue
                file = package.joinpath(*parts[1:]).with_suffix(".py")
                own = [package / "__init__.py"] + ([file] if len(parts) > 1 else [])
                waiting += [candidate for candidate in own if candidate.is_file()]
    return seen
