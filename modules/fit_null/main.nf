include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process FIT_NULL {
    label 'small'
    cpus { cpusOf('fit_null') }
    memory { memoryOf('fit_null', [ldrs: bytesOf(ldrs), covariates: bytesOf(covariates), offsets: bytesOf(loco_predictions)], task.attempt) }
    time { timeOf('fit_null', [ldrs: bytesOf(ldrs), covariates: bytesOf(covariates), offsets: bytesOf(loco_predictions)], task.attempt) }

    input:
    path ldrs
    path subjects
    path covariates, stageAs: 'covariates/*'
    path loco_predictions, stageAs: 'loco/?/*'
    path kinship, stageAs: 'kinship/*'
    path residual_cross_product, stageAs: 'cross_product/*'
    path bases, stageAs: 'bases/*'
    val covariate_columns
    val categorical_columns
    val sex_column
    val loco_components
    val chromosomes
    val n_subjects
    val n_covariates
    val code

    output:
    path 'null.h5', emit: null_model
    path 'fit_null.json', emit: summary

    script:
    def people_options = residual_cross_product
        ? "--residual-cross-product ${residual_cross_product} --bases ${bases} --n-subjects ${n_subjects} --n-covariates ${n_covariates}"
        : "--ldrs ${ldrs} --subjects ${subjects} --covariates ${covariates}"
    def loco_options = loco_predictions
        ? "--loco-predictions ${loco_predictions} --loco-components '${loco_components}' --chromosomes '${chromosomes}'"
        : ''
    def kinship_option = kinship ? "--kinship ${kinship}" : ''
    """
    rvga_fit_null.py \\
        ${people_options} \\
        --covariate-columns '${covariate_columns}' \\
        --categorical-columns '${categorical_columns}' \\
        --sex-column '${sex_column}' \\
        ${loco_options} ${kinship_option} \\
        --out null.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary fit_null.json
    """

    stub:
    """
    touch null.h5 fit_null.json
    """
}
