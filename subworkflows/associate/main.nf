// Methods 2 and 3: GWAS of every component in chunks of variants, joined to the minimal dataset.

include { FIT_NULL        } from '../../modules/fit_null/main'
include { IMPORT_SUMSTATS } from '../../modules/import_sumstats/main'
include { PLAN_CHUNKS     } from '../../modules/plan_chunks/main'
include { COMPONENT_GWAS  } from '../../modules/component_gwas/main'
include { MINIMAL_DATASET } from '../../modules/minimal_dataset/main'
include { codeDigest      } from '../parameters/main'

workflow ASSOCIATE {
    take:
    sets // value: list of genotype sets, [file, chromosome, main, variants, samples]
    subjects // value: subjects.h5
    bases // value: bases.h5
    ldrs // value: ldrs.h5
    study // value: map of the study's files
    options // map of every parameter

    main:
    covariates = study.map { files -> files.covariates }

    FIT_NULL(
        ldrs,
        subjects,
        covariates,
        study.map { files -> files.loco_predictions ? files.loco_predictions[1] : [] },
        study.map { files -> files.kinship },
        study.map { files -> files.residual_cross_product },
        bases,
        options.covariate_columns,
        options.categorical_columns,
        options.sex_column,
        study.map { files -> files.loco_predictions ? files.loco_predictions[0] : '' },
        analysedChromosomes(sets, options),
        options.n_subjects,
        options.n_covariates,
        codeDigest('fit_null')
    )

    // Chunks of the dataset: imported, or from genotypes
    if (options.component_sumstats) {
        IMPORT_SUMSTATS(
            study.flatMap { files -> files.component_sumstats },
            FIT_NULL.out.null_model,
            options.minor_allele_frequency,
            options.minor_allele_count,
            options.dataset_coding,
            options.genome_build,
            options.chunk_variants,
            codeDigest('import_sumstats')
        )
        parts = IMPORT_SUMSTATS.out.chunks.flatten()
        part_summaries = IMPORT_SUMSTATS.out.summary
    }
    else {
        // Planning is quick: several files share a task.
        PLAN_CHUNKS(
            sets.flatMap { rows -> rows.collate(8).collect { batch -> planned(batch.transpose(), options) } },
            options.split_genotypes ? options.chunk_variants : wholeFile(),
            codeDigest('plan_chunks')
        )
        chunks = PLAN_CHUNKS.out.chunks
            .splitCsv(header: true, sep: '\t')
            .map { row -> [row.file, row] }
            .combine(sets.flatMap { rows -> rows }, by: 0)
            .map { file, row, _chromosome, main, variants, samples ->
                ["${file}.${row.chunk.padLeft(5, '0')}".toString(), row.first_variant, row.n_variants, main, variants, samples]
            }

        COMPONENT_GWAS(
            chunks,
            FIT_NULL.out.null_model,
            options.subject_id,
            study.map { files -> files.keep_variants },
            study.map { files -> files.remove_variants },
            options.minor_allele_frequency,
            options.minor_allele_count,
            options.minimum_info,
            options.maximum_missing_rate,
            options.hardy_weinberg_p,
            options.dataset_coding,
            options.genome_build,
            codeDigest('component_gwas')
        )
        parts = COMPONENT_GWAS.out.chunk
        part_summaries = PLAN_CHUNKS.out.summary.mix(COMPONENT_GWAS.out.summary)
    }

    MINIMAL_DATASET(
        parts.collect(sort: { chunk -> chunk.name }),
        bases,
        FIT_NULL.out.null_model,
        options.study,
        codeDigest('minimal_dataset')
    )
    dataset = MINIMAL_DATASET.out.dataset

    summaries = FIT_NULL.out.summary.mix(part_summaries, MINIMAL_DATASET.out.summary)

    emit:
    dataset // value: <study>.rvga.h5
    summaries // json
}

// [files, chromosomes, [main], [variants], [samples]] of several sets. A task a genotype file needs
// its list of variants only: the file itself is then brought to one task.
def planned(columns, options) {
    return options.split_genotypes ? columns : [columns[0], columns[1], [], columns[3], []]
}

// More variants than any file has.
def wholeFile() {
    return 2147483647
}

// The chromosomes of the genotype sheet, separated by commas; empty where a file holds several.
def analysedChromosomes(sets, options) {
    return sets.map { rows ->
        def names = rows.collect { row -> row[1] }.unique()
        options.component_sumstats || 'all' in names ? '' : names.join(',')
    }
}
