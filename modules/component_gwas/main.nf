include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process COMPONENT_GWAS {
    tag "${chunk}"
    label 'medium'
    cpus { cpusOf('component_gwas') }
    memory { memoryOf('component_gwas', [chunk_variants: n_variants as long, null: bytesOf(null_model), samples: bytesOf(samples), variant_list: bytesOf(variants)], task.attempt) }
    time { timeOf('component_gwas', [chunk_variants: n_variants as long, null: bytesOf(null_model), samples: bytesOf(samples), variant_list: bytesOf(variants)], task.attempt) }

    input:
    tuple val(chunk), val(first_variant), val(n_variants), path(genotypes, stageAs: 'genotypes/*'), path(variants, stageAs: 'variants/*'), path(samples, stageAs: 'samples/*')
    path null_model
    val subject_id
    path keep_variants, stageAs: 'keep_variants/*'
    path remove_variants, stageAs: 'remove_variants/*'
    val minor_allele_frequency
    val minor_allele_count
    val minimum_info
    val maximum_missing_rate
    val hardy_weinberg_p
    val dataset_coding
    val genome_build
    val code

    output:
    path "gwas.${chunk}.h5", emit: chunk
    path "component_gwas.${chunk}.json", emit: summary

    script:
    def keep_option = keep_variants ? "--keep-variants ${keep_variants}" : ''
    def remove_option = remove_variants ? "--remove-variants ${remove_variants}" : ''
    """
    rvga_component_gwas.py \\
        --genotypes ${genotypes} \\
        --variants ${variants} \\
        --samples ${samples} \\
        --subject-id ${subject_id} \\
        --first-variant ${first_variant} \\
        --n-variants ${n_variants} \\
        --null ${null_model} \\
        --minor-allele-frequency ${minor_allele_frequency} \\
        --minor-allele-count ${minor_allele_count} \\
        --minimum-info ${minimum_info} \\
        --maximum-missing-rate ${maximum_missing_rate} \\
        --hardy-weinberg-p ${hardy_weinberg_p} \\
        ${keep_option} ${remove_option} \\
        --dataset-coding ${dataset_coding} \\
        --genome-build '${genome_build}' \\
        --out gwas.${chunk}.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary component_gwas.${chunk}.json
    """

    stub:
    """
    touch gwas.${chunk}.h5 component_gwas.${chunk}.json
    """
}
