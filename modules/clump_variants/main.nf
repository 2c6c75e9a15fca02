include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process CLUMP_VARIANTS {
    tag "chromosome ${chromosome}"
    label 'small'
    cpus { cpusOf('clump_variants') }
    memory { memoryOf('clump_variants', [significant: bytesOf(significant), samples: bytesOf(samples), variant_list: bytesOf(variants)], task.attempt) }
    time { timeOf('clump_variants', [significant: bytesOf(significant), samples: bytesOf(samples), variant_list: bytesOf(variants)], task.attempt) }

    input:
    tuple val(chromosome), path(genotypes, stageAs: 'genotypes/*/*'), path(variants, stageAs: 'variants/*/*'), path(samples, stageAs: 'samples/*/*')
    path significant, stageAs: 'significant/*'
    path subjects
    val subject_id
    val clump_r2
    val clump_kb
    val code

    output:
    path "clumps.${chromosome}.h5", emit: clumps
    path "clump_variants.${chromosome}.json", emit: summary

    script:
    def subjects_option = subjects ? "--subjects ${subjects}" : ''
    """
    rvga_clump_variants.py \\
        --significant significant/* \\
        --chromosome ${chromosome} \\
        --genotypes ${genotypes} \\
        --variants ${variants} \\
        --samples ${samples} \\
        ${subjects_option} \\
        --subject-id ${subject_id} \\
        --clump-r2 ${clump_r2} \\
        --clump-kb ${clump_kb} \\
        --out clumps.${chromosome}.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary clump_variants.${chromosome}.json
    """

    stub:
    """
    touch clumps.${chromosome}.h5 clump_variants.${chromosome}.json
    """
}
