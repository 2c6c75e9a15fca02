include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process CROSS_TRAIT {
    tag "${trait}"
    label 'medium'
    cpus { cpusOf('cross_trait') }
    memory { memoryOf('cross_trait', [dataset: bytesOf(dataset), ld: bytesOf(reference)], task.attempt) }
    time { timeOf('cross_trait', [dataset: bytesOf(dataset), ld: bytesOf(reference)], task.attempt) }

    input:
    tuple val(trait), val(columns), val(n), val(n_cases), val(n_controls), val(overlap), path(sumstats, stageAs: 'sumstats/*'), path(chain, stageAs: 'chain/*')
    path dataset, stageAs: 'dataset/*'
    path reference, stageAs: 'reference/*'
    path covariance
    val se_method
    val code

    output:
    path "${trait}.tsv", emit: table
    path "${trait}{,.*}.{nii.gz,mgz,mgh,curv,gii,dscalar.nii,map.tsv}", emit: map
    path "${trait}.regions.tsv", emit: regions
    path "${trait}.intercepts.tsv", emit: intercepts
    path "cross_trait.${trait}.json", emit: summary

    script:
    def columns_option = columns ? "--columns '${columns}'" : ''
    def n_option = n ? "--n ${n}" : ''
    def n_cases_option = n_cases ? "--n-cases ${n_cases}" : ''
    def n_controls_option = n_controls ? "--n-controls ${n_controls}" : ''
    def chain_option = chain ? "--chain ${chain}" : ''
    """
    rvga_cross_trait.py \\
        --dataset ${dataset} \\
        --ld-reference ${reference} \\
        --genetic-covariance ${covariance} \\
        --trait ${trait} \\
        --sumstats ${sumstats} \\
        ${columns_option} ${n_option} ${n_cases_option} ${n_controls_option} ${chain_option} \\
        --overlap ${overlap} \\
        --se-method ${se_method} \\
        --out ${trait}.tsv \\
        --out-map ${trait}.nii.gz \\
        --out-regions ${trait}.regions.tsv \\
        --out-intercepts ${trait}.intercepts.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary cross_trait.${trait}.json
    """

    stub:
    """
    touch ${trait}.tsv ${trait}.nii.gz cross_trait.${trait}.json ${trait}.regions.tsv ${trait}.intercepts.tsv
    """
}
