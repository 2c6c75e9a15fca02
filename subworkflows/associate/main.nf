// Methods 2 and 3: GWAS of every component in chunks of variants, joined to the minimal dataset.

include { FIT_NULL        } from '../../modules/fit_null/main'
include { PLAN_CHUNKS     } from '../../modules/plan_chunks/main'
include { COMPONENT_GWAS  } from '../../modules/component_gwas/main'
include { MINIMAL_DATASET } from '../../modules/minimal_dataset/main'
include { codeDigest      } from '../parameters/main'

workflow ASSOCIATE {
    take:
    genotypes // [file, chromosome, main, variants, samples]
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
        options.covariate_columns,
        options.categorical_columns,
        codeDigest('fit_null')
    )

    PLAN_CHUNKS(genotypes, options.chunk_variants, codeDigest('plan_chunks'))
    chunks = PLAN_CHUNKS.out.chunks
        .flatMap { file, table -> table.splitCsv(header: true, sep: '\t').collect { row -> [file, row] } }
        .combine(genotypes, by: 0)
        .map { file, row, _chromosome, main, variants, samples ->
            ["${file}.${row.chunk.padLeft(5, '0')}".toString(), row.first_variant, row.n_variants, main, variants, samples]
        }

    COMPONENT_GWAS(
        chunks,
        FIT_NULL.out.null_model,
        options.subject_id,
        options.minor_allele_frequency,
        options.minor_allele_count,
        options.dataset_coding,
        options.genome_build,
        codeDigest('component_gwas')
    )

    MINIMAL_DATASET(
        COMPONENT_GWAS.out.chunk.collect(sort: { chunk -> chunk.name }),
        bases,
        FIT_NULL.out.null_model,
        options.study,
        codeDigest('minimal_dataset')
    )
    dataset = MINIMAL_DATASET.out.dataset

    summaries = FIT_NULL.out.summary.mix(PLAN_CHUNKS.out.summary, COMPONENT_GWAS.out.summary, MINIMAL_DATASET.out.summary)

    emit:
    dataset // value: <study>.rvga.h5
    summaries // json
}
