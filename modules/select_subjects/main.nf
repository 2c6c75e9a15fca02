include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process SELECT_SUBJECTS {
    label 'small'
    cpus { cpusOf('select_subjects') }
    memory { memoryOf('select_subjects', [images: bytesOf(images), covariates: bytesOf(covariates), samples: bytesOf(samples)], task.attempt) }
    time { timeOf('select_subjects', [images: bytesOf(images), covariates: bytesOf(covariates), samples: bytesOf(samples)], task.attempt) }

    input:
    path images, stageAs: 'images/*'
    path covariates, stageAs: 'covariates/*'
    path samples, stageAs: 'samples/*/*'
    path keep, stageAs: 'keep/*'
    path remove, stageAs: 'remove/*'
    val covariate_columns
    val categorical_columns
    val subject_id
    val min_coverage
    val code

    output:
    path 'subjects.h5', emit: subjects
    path 'coverage{,.*}.{nii.gz,mgz,mgh,curv,gii,dscalar.nii,map.tsv}', emit: coverage
    path 'select_subjects.json', emit: summary

    script:
    def samples_option = samples ? "--samples ${samples}" : ''
    def keep_option = keep ? "--keep ${keep}" : ''
    def remove_option = remove ? "--remove ${remove}" : ''
    """
    rvga_select_subjects.py \\
        --images images/* \\
        --covariates ${covariates} \\
        --covariate-columns '${covariate_columns}' \\
        --categorical-columns '${categorical_columns}' \\
        --subject-id ${subject_id} \\
        ${samples_option} ${keep_option} ${remove_option} \\
        --min-coverage ${min_coverage} \\
        --out subjects.h5 \\
        --out-coverage coverage \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary select_subjects.json
    """

    stub:
    """
    touch subjects.h5 coverage.nii.gz select_subjects.json
    """
}
