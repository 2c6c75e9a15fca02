process FIND_LOCI {
    tag "r2 ${clump_r2}, ${clump_kb} kb"
    label 'small'

    input:
    path hits, stageAs: 'hits/*'
    path voxels, stageAs: 'voxels/*'
    path dataset, stageAs: 'dataset/*'
    path tail
    path genotypes, stageAs: 'genotypes/*/*'
    path variants, stageAs: 'variants/*/*'
    path samples, stageAs: 'samples/*/*'
    path subjects
    path known_loci, stageAs: 'known_loci/*'
    val subject_id
    val clump_r2
    val clump_kb
    val code

    output:
    path 'variants.tsv.gz', emit: variants
    path 'voxels.tsv', emit: voxels
    path 'loci.tsv', emit: loci
    path 'lead_variants.tsv', emit: lead_variants
    path 'maps', emit: maps
    path 'find_loci.json', emit: summary

    script:
    def genotype_options = genotypes ? "--genotypes ${genotypes} --variants ${variants} --samples ${samples}" : ''
    def subjects_option = subjects ? "--subjects ${subjects}" : ''
    def known_loci_option = known_loci ? "--known-loci ${known_loci}" : ''
    """
    rvga_find_loci.py \\
        --hits hits/* \\
        --voxels voxels/* \\
        --dataset ${dataset} \\
        --tail ${tail} \\
        ${genotype_options} ${subjects_option} ${known_loci_option} \\
        --subject-id ${subject_id} \\
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
    """
    mkdir maps
    touch variants.tsv.gz voxels.tsv loci.tsv lead_variants.tsv find_loci.json
    """
}
