process PLAN_CHUNKS {
    tag "file ${file}, chromosome ${chromosome}"
    label 'small'

    input:
    tuple val(file), val(chromosome), path(genotypes, stageAs: 'genotypes/*'), path(variants, stageAs: 'variants/*'), path(samples, stageAs: 'samples/*')
    val chunk_variants
    val code

    output:
    tuple val(file), path('chunks.tsv'), emit: chunks
    path "plan_chunks.${file}.json", emit: summary

    script:
    """
    rvga_plan_chunks.py \\
        --genotypes ${genotypes} \\
        --variants ${variants} \\
        --samples ${samples} \\
        --chromosome ${chromosome} \\
        --chunk-variants ${chunk_variants} \\
        --out chunks.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary plan_chunks.${file}.json
    """

    stub:
    """
    printf 'chunk\\tchromosome\\tfirst_variant\\tn_variants\\n' > chunks.tsv
    printf '1\\t${chromosome}\\t0\\t1000\\n2\\t${chromosome}\\t1000\\t1000\\n' >> chunks.tsv
    touch plan_chunks.${file}.json
    """
}
