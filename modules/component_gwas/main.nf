process COMPONENT_GWAS {
    tag "${chunk}"
    label 'medium'

    input:
    tuple val(chunk), val(first_variant), val(n_variants), path(genotypes, stageAs: 'genotypes/*'), path(variants, stageAs: 'variants/*'), path(samples, stageAs: 'samples/*')
    path null_model
    val subject_id
    val minor_allele_frequency
    val minor_allele_count
    val dataset_coding
    val genome_build
    val code

    output:
    path "gwas.${chunk}.h5", emit: chunk
    path "component_gwas.${chunk}.json", emit: summary

    script:
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
