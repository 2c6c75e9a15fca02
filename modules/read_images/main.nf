process READ_IMAGES {
    tag "batch ${batch}"
    label 'small'

    input:
    tuple val(batch), path(subjects, stageAs: 'ids.txt'), path(images, stageAs: 'images/?????/*')
    path mask, stageAs: 'mask/*'
    val code

    output:
    path "images.${batch}.h5", emit: images
    path "read_images.${batch}.json", emit: summary

    // The engine's logs keep the command: it names neither a subject nor an image, and takes the
    // images by their numbered folders, which are in the order of the ids.
    script:
    """
    rvga_read_images.py \\
        --images images/*/* \\
        --subjects ${subjects} \\
        --mask ${mask} \\
        --out images.${batch}.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary read_images.${batch}.json
    """

    stub:
    """
    touch images.${batch}.h5 read_images.${batch}.json
    """
}
