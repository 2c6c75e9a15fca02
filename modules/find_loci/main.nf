include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process FIND_LOCI {
    tag "r2 ${clump_r2}, ${clump_kb} kb"
    label 'small'
    cpus { cpusOf('find_loci') }
    memory { memoryOf('find_loci', [hits: bytesOf(hits) + bytesOf(pairs)], task.attempt) }
    time { timeOf('find_loci', [hits: bytesOf(hits) + bytesOf(pairs)], task.attempt) }

    input:
    path hits, stageAs: 'hits/*'
    path voxels, stageAs: 'voxels/*'
    path pairs, stageAs: 'pairs/*'
    path dataset, stageAs: 'dataset/*'
    path tail
    path clumps, stageAs: 'clumps/*'
    path known_loci, stageAs: 'known_loci/*'
    val by_ld
    val clump_r2
    val clump_kb
    val code

    output:
    path 'variants.tsv.gz', emit: variants
    path 'voxels.tsv', emit: voxels
    path 'pairs.tsv.gz', emit: pairs, optional: true
    path 'loci.tsv', emit: loci
    path 'lead_variants.tsv', emit: lead_variants
    path 'maps', emit: maps
    path 'find_loci.json', emit: summary

    script:
    def pairs_option = pairs ? '--pairs pairs/* --out-pairs pairs.tsv.gz' : ''
    def ld_option = by_ld ? '--ld' : ''
    def clumps_option = clumps ? '--clumps clumps/*' : ''
    def known_loci_option = known_loci ? "--known-loci ${known_loci}" : ''
    """
    rvga_find_loci.py \\
        --hits hits/* \\
        --voxels voxels/* \\
        --dataset ${dataset} \\
        --tail ${tail} \\
        ${pairs_option} ${ld_option} ${clumps_option} ${known_loci_option} \\
        --clump-r2 ${clump_r2} \\
        --clump-kb ${clump_kb} \\
        --out-variants variants.tsv.gz \\
        --out-voxels voxels.tsv \\
        --out-loci loci.tsv \\
        --out-lead-variants lead_variants.tsv \\
        --out-maps maps \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary find_loci.json
    """

    stub:
    def pairs_made = pairs ? 'pairs.tsv.gz' : ''
    """
    mkdir maps
    touch variants.tsv.gz voxels.tsv loci.tsv lead_variants.tsv find_loci.json ${pairs_made}
    """
}
