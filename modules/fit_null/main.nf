process FIT_NULL {
    label 'small'

    input:
    path ldrs
    path subjects
    path covariates, stageAs: 'covariates/*'
    val covariate_columns
    val categorical_columns
    val code

    output:
    path 'null.h5', emit: null_model
    path 'fit_null.json', emit: summary

    script:
    """
    rvga_fit_null.py \\
        --ldrs ${ldrs} \\
        --subjects ${subjects} \\
        --covariates ${covariates} \\
        --covariate-columns '${covariate_columns}' \\
        --categorical-columns '${categorical_columns}' \\
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
