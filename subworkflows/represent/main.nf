// Method 1: images to a sample, functional principal components and their scores.

include { READ_IMAGES     } from '../../modules/read_images/main'
include { SELECT_SUBJECTS } from '../../modules/select_subjects/main'
include { FIT_BASES       } from '../../modules/fit_bases/main'
include { PROJECT_IMAGES  } from '../../modules/project_images/main'
include { MAKE_LDRS       } from '../../modules/make_ldrs/main'
include { codeDigest      } from '../parameters/main'
include { coordinateRules } from '../parameters/main'

workflow REPRESENT {
    take:
    batches // [batch, share of files of many subjects, [list of subject ids], [image]]
    sets // value: list of genotype sets, [file, chromosome, main, variants, samples]
    study // value: map of the study's files
    options // map of every parameter

    main:
    parts = study.map { files -> files.image_parts }
    covariates = study.map { files -> files.covariates }
    samples = sets.map { rows -> rows.collect { row -> row[4] } }
    keep = study.map { files -> files.keep }
    remove = study.map { files -> files.remove }

    READ_IMAGES(
        batches,
        parts.map { part -> part.mask },
        parts.map { part -> part.surface },
        parts.map { part -> part.coordinates },
        parts.map { part -> part.specifications },
        options.coordinates in coordinateRules() ? options.coordinates : 'auto',
        options.cifti_maps,
        options.zero_is_missing,
        codeDigest('read_images')
    )
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
        options.min_coverage,
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
            options.surface_distance,
            options.components,
            options.components_correlation,
            options.components_variance,
            options.seed,
            codeDigest('fit_bases')
        )
        bases = FIT_BASES.out.bases
        fit_summary = FIT_BASES.out.summary
    }

    PROJECT_IMAGES(
        READ_IMAGES.out.images.map { image -> [image.baseName - 'images.', image] },
        subjects,
        bases,
        codeDigest('project_images')
    )

    // Family ids are those of the first set of genotypes.
    MAKE_LDRS(
        PROJECT_IMAGES.out.scores.collect(sort: { score -> score.name }),
        subjects,
        bases,
        samples.map { files -> files.take(1) },
        options.subject_id,
        codeDigest('make_ldrs')
    )
    ldrs = MAKE_LDRS.out.ldrs

    summaries = READ_IMAGES.out.summary.mix(
        SELECT_SUBJECTS.out.summary,
        fit_summary,
        PROJECT_IMAGES.out.summary,
        MAKE_LDRS.out.summary
    )

    emit:
    subjects // value: subjects.h5
    bases // value: bases.h5
    ldrs // value: ldrs.h5
    summaries // json
}
