include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process IMPORT_SUMSTATS {
    tag "${group}"
    label 'medium'
    cpus { cpusOf('import_sumstats') }
    memory { memoryOf('import_sumstats', [chunk_variants: chunk_variants as long, sumstats: bytesOf(sumstats)], task.attempt) }
    time { timeOf('import_sumstats', [chunk_variants: chunk_variants as long, sumstats: bytesOf(sumstats)], task.attempt) }

    input:
    tuple val(group), val(components), path(sumstats, stageAs: 'sumstats/?/*'), path(variants, stageAs: 'variants/*')
    path null_model
    val minor_allele_frequency
    val minor_allele_count
    val dataset_coding
    val genome_build
    val chunk_variants
    val code

    output:
    path "gwas.${group}.*.h5", emit: chunks
    path "import_sumstats.${group}.json", emit: summary

    script:
    def variants_option = variants ? "--variants ${variants}" : ''
    """
    rvga_import_sumstats.py \\
        --component-sumstats ${sumstats} \\
        --components '${components}' \\
        ${variants_option} \\
        --null ${null_model} \\
        --minor-allele-frequency ${minor_allele_frequency} \\
        --minor-allele-count ${minor_allele_count} \\
        --dataset-coding ${dataset_coding} \\
        --genome-build '${genome_build}' \\
        --chunk-variants ${chunk_variants} \\
        --out gwas.${group} \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary import_sumstats.${group}.json
    """

    stub:
    """
    touch gwas.${group}.00001.h5 import_sumstats.${group}.json
    """
}
