process CROSS_TRAIT {
    tag "${trait}"
    label 'medium'

    input:
    tuple val(trait), val(columns), val(n), val(n_cases), val(n_controls), path(sumstats, stageAs: 'sumstats/*')
    path dataset, stageAs: 'dataset/*'
    path reference, stageAs: 'reference/*'
    path covariance
    val code

    output:
    path "${trait}.tsv", emit: table
    path "${trait}.nii.gz", emit: map
    path "cross_trait.${trait}.json", emit: summary

    script:
    def columns_option = columns ? "--columns '${columns}'" : ''
    def n_option = n ? "--n ${n}" : ''
    def n_cases_option = n_cases ? "--n-cases ${n_cases}" : ''
    def n_controls_option = n_controls ? "--n-controls ${n_controls}" : ''
    """
    rvga_cross_trait.py \\
        --dataset ${dataset} \\
        --ld-reference ${reference} \\
        --genetic-covariance ${covariance} \\
        --trait ${trait} \\
        --sumstats ${sumstats} \\
        ${columns_option} ${n_option} ${n_cases_option} ${n_controls_option} \\
        --out ${trait}.tsv \\
        --out-map ${trait}.nii.gz \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary cross_trait.${trait}.json
    """

    stub:
    """
    touch ${trait}.tsv ${trait}.nii.gz cross_trait.${trait}.json
    """
}
