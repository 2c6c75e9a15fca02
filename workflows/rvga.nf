// From images and genotypes to the report: the order of the parts, and what passes between them.

include { codeDigest            } from '../subworkflows/parameters/main'
include { orExit                } from '../subworkflows/parameters/main'
include { simulatedStudy        } from '../subworkflows/parameters/main'
include { studyFiles            } from '../subworkflows/parameters/main'
include { planText              } from '../subworkflows/plan/main'
// One include of both: the strict parser of 25.04 refuses a script that is included twice.
include { PREPARE_GENOTYPES ; PREPARE_GENOTYPES as PREPARE_PANELS } from '../subworkflows/genotypes/main'
include { IMPORT_LDRS           } from '../modules/import_ldrs/main'
include { SIMULATE              } from '../modules/simulate/main'
include { REPRESENT             } from '../subworkflows/represent/main'
include { ASSOCIATE             } from '../subworkflows/associate/main'
include { RECONSTRUCT           } from '../subworkflows/reconstruct/main'
include { BUILD_LD_REFERENCE    } from '../subworkflows/ld_reference/main'
include { ESTIMATE_HERITABILITY } from '../subworkflows/heritability/main'
include { WRITE_REPORT          } from '../subworkflows/report/main'

workflow RVGA {
    take:
    options // map of every parameter, checked
    steps // map: which parts the inputs reach
    engine_version // text, for the report

    main:
    // value: map of the study's files, the user's or simulated ones
    summaries = channel.empty()
    if (options.simulate) {
        SIMULATE(options.simulate, options.seed, codeDigest('simulate'))
        found = SIMULATE.out.study.map { folder -> studyFiles(simulatedStudy(options, folder)) }
        summaries = SIMULATE.out.summary
    }
    else {
        found = channel.value(orExit { studyFiles(options) })
    }
    // On the way of all files, so that the plan is printed before the first stage starts.
    study = found.map { files ->
        log.info(planText(options, steps, files, Runtime.getRuntime().availableProcessors()))
        files
    }

    // Genotypes of any format to PLINK sets; LD alone needs no sexes
    need_sex = steps.associate && !steps.import_sumstats
    PREPARE_GENOTYPES(study.flatMap { files -> files.genotypes }, options.genome_build, need_sex)
    sets = PREPARE_GENOTYPES.out.sets
    summaries = summaries.mix(PREPARE_GENOTYPES.out.summaries)

    // Images to components
    subjects = channel.value([])
    bases = channel.value([])
    if (steps.represent) {
        REPRESENT(study.flatMap { files -> files.images }, sets, study, options)
        subjects = REPRESENT.out.subjects
        bases = REPRESENT.out.bases
        summaries = summaries.mix(REPRESENT.out.summaries)
    }

    ldrs = steps.represent ? REPRESENT.out.ldrs : channel.value([])
    if (steps.import_ldrs || steps.import_sumstats) {
        bases = study.map { files -> files.bases }
    }
    if (steps.import_ldrs) {
        IMPORT_LDRS(
            study.map { files -> files.ldrs },
            bases,
            study.map { files -> files.covariates },
            steps.import_sumstats ? channel.value([]) : sets.map { rows -> rows.collect { row -> row[4] } },
            study.map { files -> files.keep },
            study.map { files -> files.remove },
            options.covariate_columns,
            options.categorical_columns,
            options.subject_id,
            codeDigest('import_ldrs')
        )
        subjects = IMPORT_LDRS.out.subjects
        ldrs = IMPORT_LDRS.out.ldrs
        summaries = summaries.mix(IMPORT_LDRS.out.summary)
    }

    // Components and genotypes, or components' summary statistics, to the minimal dataset
    dataset = study.map { files -> files.minimal }
    if (steps.associate) {
        ASSOCIATE(sets, subjects, bases, ldrs, study, options)
        dataset = ASSOCIATE.out.dataset
        summaries = summaries.mix(ASSOCIATE.out.summaries)
    }

    // Voxels and loci
    loci = channel.value([])
    if (steps.reconstruct) {
        RECONSTRUCT(dataset, subjects, sets, study, options)
        loci = RECONSTRUCT.out.loci
        summaries = summaries.mix(RECONSTRUCT.out.summaries)
    }

    // Linkage disequilibrium
    reference = study.map { files -> files.ld_reference }
    if (steps.ld_reference) {
        PREPARE_PANELS(study.flatMap { files -> files.ld_panels }, options.genome_build, false)
        BUILD_LD_REFERENCE(PREPARE_PANELS.out.sets, study, options)
        reference = BUILD_LD_REFERENCE.out.reference
        summaries = summaries.mix(PREPARE_PANELS.out.summaries, BUILD_LD_REFERENCE.out.summaries)
    }

    // Heritability and genetic correlation
    heritability = channel.value([])
    trait_tables = channel.value([])
    trait_regions = channel.value([])
    if (steps.heritability) {
        ESTIMATE_HERITABILITY(dataset, reference, study, options, steps.cross_trait)
        heritability = ESTIMATE_HERITABILITY.out.heritability
        trait_tables = ESTIMATE_HERITABILITY.out.trait_tables
        trait_regions = ESTIMATE_HERITABILITY.out.trait_regions
        summaries = summaries.mix(ESTIMATE_HERITABILITY.out.summaries)
    }

    WRITE_REPORT(summaries, bases, dataset, loci, heritability, trait_tables, trait_regions, study, options, engine_version)
    report = WRITE_REPORT.out.report
    truth = WRITE_REPORT.out.truth
    summaries = summaries.mix(WRITE_REPORT.out.summary)

    emit:
    report // report.html
    truth // [truth_comparison.tsv, truth_loci.tsv], where the truth is known
    summaries // json of every task
}
