include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process IMPORT_LDRS {
    label 'small'
    cpus { cpusOf('import_ldrs') }
    memory { memoryOf('import_ldrs', [ldrs: bytesOf(table), covariates: bytesOf(covariates), samples: bytesOf(samples)], task.attempt) }
    time { timeOf('import_ldrs', [ldrs: bytesOf(table), covariates: bytesOf(covariates), samples: bytesOf(samples)], task.attempt) }

    input:
    path table, stageAs: 'ldrs/*'
    path bases, stageAs: 'bases/*'
    path covariates, stageAs: 'covariates/*'
    path samples, stageAs: 'samples/*/*'
    path keep, stageAs: 'keep/*'
    path remove, stageAs: 'remove/*'
    val covariate_columns
    val categorical_columns
    val subject_id
    val code

    output:
    path 'subjects.h5', emit: subjects
    path 'ldrs.h5', emit: ldrs
    path 'import_ldrs.json', emit: summary

    script:
    def samples_option = samples ? "--samples ${samples}" : ''
    def keep_option = keep ? "--keep ${keep}" : ''
    def remove_option = remove ? "--remove ${remove}" : ''
    """
    rvga_import_ldrs.py \\
        --ldrs ${table} \\
        --bases ${bases} \\
        --covariates ${covariates} \\
        --covariate-columns '${covariate_columns}' \\
        --categorical-columns '${categorical_columns}' \\
        --subject-id ${subject_id} \\
        ${samples_option} ${keep_option} ${remove_option} \\
        --subjects subjects.h5 \\
        --out ldrs.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary import_ldrs.json
    """

    stub:
    """
    touch subjects.h5 ldrs.h5 import_ldrs.json
    """
}
