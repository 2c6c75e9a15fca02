"""Which stage takes files from which, and so what runs again when one does."""

from __future__ import annotations

from engine import REPOSITORY

STAGES = sorted(path.parent.name for path in REPOSITORY.glob("modules/*/main.nf"))
# What a simulated study has no input for.
OTHER_INPUTS = {"CONVERT_GENOTYPES", "IMPORT_LDRS", "IMPORT_SUMSTATS"}
# The processes of a simulated study.
REACHED = {stage.upper() for stage in STAGES} - OTHER_INPUTS
FEEDS = {
    "CONVERT_GENOTYPES": """SELECT_SUBJECTS MAKE_LDRS IMPORT_LDRS PLAN_CHUNKS COMPONENT_GWAS
        CLUMP_VARIANTS""",
    "READ_IMAGES": "SELECT_SUBJECTS FIT_BASES PROJECT_IMAGES",
    "SELECT_SUBJECTS": "FIT_BASES PROJECT_IMAGES MAKE_LDRS FIT_NULL CLUMP_VARIANTS",
    "FIT_BASES": "PROJECT_IMAGES MAKE_LDRS FIT_NULL MINIMAL_DATASET",
    "PROJECT_IMAGES": "MAKE_LDRS",
    "MAKE_LDRS": "FIT_NULL",
    "IMPORT_LDRS": "FIT_NULL CLUMP_VARIANTS",
    "FIT_NULL": "COMPONENT_GWAS IMPORT_SUMSTATS MINIMAL_DATASET",
    # It hands numbers over, no file: chunks that are planned alike do not run again.
    "PLAN_CHUNKS": "",
    "COMPONENT_GWAS": "MINIMAL_DATASET",
    "IMPORT_SUMSTATS": "MINIMAL_DATASET",
    "MINIMAL_DATASET": "IMAGE_TAIL SCAN_VOXELS FIND_LOCI HERITABILITY CROSS_TRAIT",
    "IMAGE_TAIL": "SCAN_VOXELS FIND_LOCI",
    "SCAN_VOXELS": "CLUMP_VARIANTS FIND_LOCI",
    "CLUMP_VARIANTS": "FIND_LOCI",
    "FIND_LOCI": "",
    "LD_BLOCKS": "LD_REFERENCE",
    "LD_REFERENCE": "HERITABILITY CROSS_TRAIT",
    "HERITABILITY": "CROSS_TRAIT",
    "CROSS_TRAIT": "CROSS_TRAIT_TABLE",
    "CROSS_TRAIT_TABLE": "",
}


def runs_again(processes: set[str], reached: set[str]) -> set[str]:
    """Return the processes that run again when these do; the report, which tells of all, too."""
    again, waiting = set(), list(processes & reached)
    while waiting:
        process = waiting.pop()
        if process not in again:
            again.add(process)
            waiting += [name for name in FEEDS.get(process, "").split() if name in reached]
    return again | {"REPORT"}
