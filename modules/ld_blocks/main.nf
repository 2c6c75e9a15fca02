include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process LD_BLOCKS {
    tag "chromosome ${chromosome}"
    label 'medium'
    cpus { cpusOf('ld_blocks') }
    memory { memoryOf('ld_blocks', [samples: bytesOf(samples_1) + bytesOf(samples_2), variant_list: bytesOf(variants_1) + bytesOf(variants_2)], task.attempt) }
    time { timeOf('ld_blocks', [samples: bytesOf(samples_1) + bytesOf(samples_2), variant_list: bytesOf(variants_1) + bytesOf(variants_2)], task.attempt) }

    input:
    tuple val(chromosome), path(genotypes_1, stageAs: 'panel_1/*/*'), path(variants_1, stageAs: 'panel_1_variants/*/*'), path(samples_1, stageAs: 'panel_1_samples/*/*'), path(genotypes_2, stageAs: 'panel_2/*/*'), path(variants_2, stageAs: 'panel_2_variants/*/*'), path(samples_2, stageAs: 'panel_2_samples/*/*')
    path ld_blocks, stageAs: 'ld_blocks/*'
    val ld_share
    val seed
    val code

    output:
    path "ld.${chromosome}.h5", emit: chunk
    path "ld_blocks.${chromosome}.json", emit: summary

    script:
    def ld_blocks_option = ld_blocks ? "--ld-blocks ${ld_blocks}" : ''
    """
    rvga_ld_blocks.py \\
        --chromosome ${chromosome} \\
        --panel-1 ${genotypes_1} \\
        --panel-1-variants ${variants_1} \\
        --panel-1-samples ${samples_1} \\
        --panel-2 ${genotypes_2} \\
        --panel-2-variants ${variants_2} \\
        --panel-2-samples ${samples_2} \\
        ${ld_blocks_option} \\
        --ld-share ${ld_share} \\
        --seed ${seed} \\
        --out ld.${chromosome}.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary ld_blocks.${chromosome}.json
    """

    stub:
    """
    touch ld.${chromosome}.h5 ld_blocks.${chromosome}.json
    """
}
