// For the tests of stages that need the results of others: a simulated study, carried as far as
// the test asks for, by the pipeline's own parts.

include { SIMULATE              } from '../modules/simulate/main'
include { REPRESENT             } from '../subworkflows/represent/main'
include { ASSOCIATE             } from '../subworkflows/associate/main'
include { RECONSTRUCT           } from '../subworkflows/reconstruct/main'
include { BUILD_LD_REFERENCE    } from '../subworkflows/ld_reference/main'
include { ESTIMATE_HERITABILITY } from '../subworkflows/heritability/main'
include { checkParameters       } from '../subworkflows/parameters/main'
include { parameterSchema       } from '../subworkflows/parameters/main'
include { simulatedStudy        } from '../subworkflows/parameters/main'
include { studyFiles            } from '../subworkflows/parameters/main'

workflow STUDY {
    take:
    parts // names of the parts to run: represent, associate, reconstruct, ld_reference, heritability

    main:
    def options = checkParameters(params.subMap(parameterSchema().keySet())) + [bandwidth: 'none', components: 6]

    SIMULATE('small', 1, 'code')
    files = SIMULATE.out.study.map { folder -> studyFiles(simulatedStudy(options, folder)) }
    sets = files.map { found -> setsOf(found.genotypes) }
    panels = files.map { found -> setsOf(found.ld_panels) }
    summaries = SIMULATE.out.summary

    subjects = channel.empty()
    bases = channel.empty()
    ldrs = channel.empty()
    if ('represent' in parts) {
        REPRESENT(files.flatMap { found -> found.images }, sets, files, options)
        subjects = REPRESENT.out.subjects
        bases = REPRESENT.out.bases
        ldrs = REPRESENT.out.ldrs
        summaries = summaries.mix(REPRESENT.out.summaries)
    }

    dataset = channel.empty()
    if ('associate' in parts) {
        ASSOCIATE(sets, subjects, bases, ldrs, files, options)
        dataset = ASSOCIATE.out.dataset
        summaries = summaries.mix(ASSOCIATE.out.summaries)
    }

    loci = channel.empty()
    if ('reconstruct' in parts) {
        RECONSTRUCT(dataset, subjects, sets, files, options)
        loci = RECONSTRUCT.out.loci
        summaries = summaries.mix(RECONSTRUCT.out.summaries)
    }

    reference = channel.empty()
    if ('ld_reference' in parts) {
        BUILD_LD_REFERENCE(panels, files, options)
        reference = BUILD_LD_REFERENCE.out.reference
        summaries = summaries.mix(BUILD_LD_REFERENCE.out.summaries)
    }

    heritability = channel.empty()
    if ('heritability' in parts) {
        ESTIMATE_HERITABILITY(dataset, reference, files, options, false)
        heritability = ESTIMATE_HERITABILITY.out.heritability
        summaries = summaries.mix(ESTIMATE_HERITABILITY.out.summaries)
    }

    emit:
    files // value: map of the study's files
    sets // value: list of genotype sets, [file, chromosome, main, variants, samples]
    panels // value: list of both panels' sets
    subjects // value: subjects.h5
    bases // value: bases.h5
    ldrs // value: ldrs.h5
    dataset // value: test.rvga.h5
    loci // value: files of RECONSTRUCT
    reference // value: panel.ld.h5
    heritability // value: files of ESTIMATE_HERITABILITY
    summaries // json
}

// What PREPARE_GENOTYPES makes of files that need no conversion.
def setsOf(rows) {
    return rows.collect { file, _format, chromosome, main, variants, samples -> [file, chromosome, main, variants, samples] }
}
