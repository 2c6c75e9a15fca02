include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process SCAN_VOXELS {
    tag "part ${part} of ${parts}"
    label 'medium'
    cpus { cpusOf('scan_voxels') }
    memory { memoryOf('scan_voxels', [dataset: bytesOf(dataset)], task.attempt) }
    time { timeOf('scan_voxels', [dataset: bytesOf(dataset)], task.attempt) }

    input:
    val part
    val parts
    val all_hits
    path dataset, stageAs: 'dataset/*'
    path tail
    val code

    output:
    path "hits.${part}.tsv.gz", emit: hits
    path "voxels.${part}.tsv", emit: voxels
    path "significant.${part}.tsv", emit: significant
    path "pairs.${part}.tsv.gz", emit: pairs, optional: true
    path "scan_voxels.${part}.json", emit: summary

    script:
    def pairs_option = all_hits ? "--out-pairs pairs.${part}.tsv.gz" : ''
    """
    rvga_scan_voxels.py \\
        --dataset ${dataset} \\
        --tail ${tail} \\
        --part ${part} \\
        --parts ${parts} \\
        --out hits.${part}.tsv.gz \\
        --out-voxels voxels.${part}.tsv \\
        --out-significant significant.${part}.tsv \\
        ${pairs_option} \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary scan_voxels.${part}.json
    """

    stub:
    def pairs_made = all_hits ? "pairs.${part}.tsv.gz" : ''
    """
    # Loci are sought where something is significant: here, everywhere.
    printf '%s\\n' chromosome {1..22} X Y MT > significant.${part}.tsv
    touch hits.${part}.tsv.gz voxels.${part}.tsv scan_voxels.${part}.json ${pairs_made}
    """
}
