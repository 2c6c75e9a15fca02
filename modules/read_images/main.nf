include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process READ_IMAGES {
    tag "batch ${batch}"
    label 'small'
    cpus { cpusOf('read_images') }
    memory { memoryOf('read_images', [image: bytesOf([images].flatten().take(1))], task.attempt) }
    time { timeOf('read_images', [image: bytesOf([images].flatten().take(1))], task.attempt) }

    input:
    tuple val(batch), val(share), path(subjects, stageAs: 'ids/???/*'), path(images, stageAs: 'images/?????/*')
    path masks, stageAs: 'mask/???/*'
    path surfaces, stageAs: 'surface/???/*'
    path coordinates, stageAs: 'coordinates/???/*'
    val parts
    val coordinate_rule
    val cifti_maps
    val zero_is_missing
    val code

    output:
    path "images.${batch}.h5", emit: images
    path "read_images.${batch}.json", emit: summary

    // The engine's logs keep the command: it names neither a subject nor an image, and takes the
    // files by their numbered folders, which are in the order of the ids.
    script:
    def subjects_option = subjects ? '--subjects ids/*/*' : ''
    def share_option = share ? "--share ${share}" : ''
    def mask_option = masks ? '--mask mask/*/*' : ''
    def surface_option = surfaces ? '--surface surface/*/*' : ''
    def coordinates_option = coordinates ? '--coordinates coordinates/*/*' : ''
    def part_option = parts.collect { part -> "--part '${part}'" }.join(' ')
    """
    rvga_read_images.py \\
        --images images/*/* \\
        ${subjects_option} ${share_option} \\
        ${part_option} ${mask_option} ${surface_option} ${coordinates_option} \\
        --coordinate-rule ${coordinate_rule} \\
        --cifti-maps '${cifti_maps}' \\
        --zero-is-missing ${zero_is_missing} \\
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
