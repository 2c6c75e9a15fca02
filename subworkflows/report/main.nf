// The report of whatever was made.

include { REPORT         } from '../../modules/report/main'
include { codeDigest     } from '../parameters/main'
include { parametersJson } from '../parameters/main'

workflow WRITE_REPORT {
    take:
    summaries // json of every task
    bases // value: bases.h5, or an empty list
    dataset // value: <study>.rvga.h5, or an empty list
    loci // value: files of RECONSTRUCT, or an empty list
    heritability // value: files of ESTIMATE_HERITABILITY, or an empty list
    trait_tables // value: [<trait>.tsv], perhaps empty
    trait_regions // value: cross_trait_regions.tsv, or an empty list
    study // value: map of the study's files
    options // map of every parameter
    engine_version // text

    main:
    REPORT(
        summaries.collect(sort: { summary -> summary.name }),
        bases,
        dataset,
        loci,
        heritability,
        trait_tables,
        trait_regions,
        study.map { files -> files.regions },
        study.map { files -> files.truth },
        options.study,
        parametersJson(options),
        engine_version,
        codeDigest('report')
    )
    report = REPORT.out.report
    truth = REPORT.out.truth
    summary = REPORT.out.summary

    emit:
    report // report.html
    truth // [truth_comparison.tsv, truth_loci.tsv], where the truth is known
    summary // json
}
