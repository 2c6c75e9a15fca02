// Method 1: images to a sample, functional principal components and their scores.

include { READ_IMAGES     } from '../../modules/read_images/main'
include { SELECT_SUBJECTS } from '../../modules/select_subjects/main'
include { FIT_BASES       } from '../../modules/fit_bases/main'
include { MAKE_LDRS       } from '../../modules/make_ldrs/main'
include { codeDigest      } from '../parameters/main'

workflow REPRESENT {
    take:
    batches // [batch, file of subject ids, [image]]
    study // value: map of the study's files
    options // map of every parameter

    main:
    mask = study.map { files -> files.mask }
    covariates = study.map { files -> files.covariates }
    samples = study.map { files -> files.genotypes.collect { row -> row[4] } }
    keep = study.map { files -> files.keep }
    remove = study.map { files -> files.remove }

    READ_IMAGES(batches, mask, codeDigest('read_images'))
    images = READ_IMAGES.out.images.collect(sort: { image -> image.name })

    SELECT_SUBJECTS(
        images,
        covariates,
        samples,
        keep,
        remove,
        options.covariate_columns,
        options.categorical_columns,
        options.subject_id,
        codeDigest('select_subjects')
    )
    subjects = SELECT_SUBJECTS.out.subjects

    fit_summary = channel.empty()
    if (options.bases) {
        bases = study.map { files -> files.bases }
    }
    else {
        FIT_BASES(
            images,
            subjects,
            options.bandwidth,
            options.bandwidth_subjects,
            options.components,
            options.components_variance,
            options.seed,
            codeDigest('fit_bases')
        )
        bases = FIT_BASES.out.bases
        fit_summary = FIT_BASES.out.summary
    }

    MAKE_LDRS(images, subjects, bases, codeDigest('make_ldrs'))
    ldrs = MAKE_LDRS.out.ldrs

    summaries = READ_IMAGES.out.summary.mix(SELECT_SUBJECTS.out.summary, fit_summary, MAKE_LDRS.out.summary)

    emit:
    subjects // value: subjects.h5
    bases // value: bases.h5
    ldrs // value: ldrs.h5
    summaries // json
}
