process SCAN_VOXELS {
    tag "part ${part} of ${parts}"
    label 'medium'

    input:
    val part
    val parts
    path dataset, stageAs: 'dataset/*'
    path tail
    val code

    output:
    path "hits.${part}.tsv.gz", emit: hits
    path "voxels.${part}.tsv", emit: voxels
    path "scan_voxels.${part}.json", emit: summary

    script:
    """
    rvga_scan_voxels.py \\
        --dataset ${dataset} \\
        --tail ${tail} \\
        --part ${part} \\
        --parts ${parts} \\
        --out hits.${part}.tsv.gz \\
        --out-voxels voxels.${part}.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary scan_voxels.${part}.json
    """

    stub:
    """
    touch hits.${part}.tsv.gz voxels.${part}.tsv scan_voxels.${part}.json
    """
}
