include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process PLAN_CHUNKS {
    tag "file ${files[0]} and ${files.size() - 1} more"
    label 'small'
    cpus { cpusOf('plan_chunks') }
    memory { memoryOf('plan_chunks', [variant_list: bytesOf(variants), samples: bytesOf(samples)], task.attempt) }
    time { timeOf('plan_chunks', [variant_list: bytesOf(variants), samples: bytesOf(samples)], task.attempt) }

    input:
    tuple val(files), val(chromosomes), path(genotypes, stageAs: 'genotypes/*/*'), path(variants, stageAs: 'variants/*/*'), path(samples, stageAs: 'samples/*/*')
    val chunk_variants
    val code

    output:
    path 'chunks.tsv', emit: chunks
    path "plan_chunks.${files[0]}.json", emit: summary

    script:
    def genotypes_option = genotypes ? "--genotypes ${genotypes}" : ''
    def samples_option = samples ? "--samples ${samples}" : ''
    """
    rvga_plan_chunks.py \\
        ${genotypes_option} ${samples_option} \\
        --variants ${variants} \\
        --chromosome ${chromosomes.join(' ')} \\
        --file ${files.join(' ')} \\
        --chunk-variants ${chunk_variants} \\
        --out chunks.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary plan_chunks.${files[0]}.json
    """

    stub:
    """
    printf 'file\\tchunk\\tchromosome\\tfirst_variant\\tn_variants\\n' > chunks.tsv
    for file in ${files.join(' ')}; do
        printf "\${file}\\t1\\t1\\t0\\t1000\\n\${file}\\t2\\t1\\t1000\\t1000\\n" >> chunks.tsv
    done
    touch plan_chunks.${files[0]}.json
    """
}
