include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process PROJECT_IMAGES {
    tag "batch ${batch}"
    label 'medium'
    cpus { cpusOf('project_images') }
    memory { memoryOf('project_images', [batch: bytesOf(images), bases: bytesOf(bases)], task.attempt) }
    time { timeOf('project_images', [batch: bytesOf(images), bases: bytesOf(bases)], task.attempt) }

    input:
    tuple val(batch), path(images, stageAs: 'images/*')
    path subjects
    path bases, stageAs: 'bases/*'
    val code

    output:
    path "scores.${batch}.h5", emit: scores
    path "project_images.${batch}.json", emit: summary

    script:
    """
    rvga_project_images.py \\
        --images ${images} \\
        --subjects ${subjects} \\
        --bases ${bases} \\
        --out scores.${batch}.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary project_images.${batch}.json
    """

    stub:
    """
    touch scores.${batch}.h5 project_images.${batch}.json
    """
}
