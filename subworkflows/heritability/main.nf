// Methods 5 and 6: heritability, genetic correlation, and genetic correlation with other traits.

include { HERITABILITY      } from '../../modules/heritability/main'
include { CROSS_TRAIT       } from '../../modules/cross_trait/main'
include { CROSS_TRAIT_TABLE } from '../../modules/cross_trait_table/main'
include { codeDigest        } from '../parameters/main'

workflow ESTIMATE_HERITABILITY {
    take:
    dataset // value: <study>.rvga.h5
    reference // value: panel.ld.h5
    study // value: map of the study's files
    options // map of every parameter
    cross_trait // true where there are external traits

    main:
    HERITABILITY(
        dataset,
        reference,
        study.map { files -> files.regions },
        options.heritability_method,
        options.intercept,
        options.se_method,
        options.correlation_voxels,
        options.genetic_correlation_matrix,
        codeDigest('heritability')
    )
    heritability = HERITABILITY.out.heritability
        .mix(HERITABILITY.out.regions, HERITABILITY.out.intercepts, HERITABILITY.out.correlation, HERITABILITY.out.covariance)
        .collect(sort: { table -> table.name })
    summaries = HERITABILITY.out.summary
    trait_tables = channel.value([])
    trait_regions = channel.value([])

    if (cross_trait) {
        CROSS_TRAIT(
            study.flatMap { files -> files.traits },
            dataset,
            reference,
            HERITABILITY.out.covariance,
            options.se_method,
            codeDigest('cross_trait')
        )
        CROSS_TRAIT_TABLE(CROSS_TRAIT.out.regions.collect(sort: { table -> table.name }), codeDigest('cross_trait_table'))
        trait_tables = CROSS_TRAIT.out.table.collect(sort: { table -> table.name })
        trait_regions = CROSS_TRAIT_TABLE.out.table
        summaries = summaries.mix(CROSS_TRAIT.out.summary, CROSS_TRAIT_TABLE.out.summary)
    }

    emit:
    heritability // value: [heritability.tsv, regions.tsv, intercepts.tsv, genetic_correlation.tsv, genetic_covariance.h5] by name
    trait_tables // value: [<trait>.tsv]
    trait_regions // value: cross_trait_regions.tsv, or an empty list
    summaries // json
}
