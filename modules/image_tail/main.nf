include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process IMAGE_TAIL {
    tag "${significance}"
    label 'medium'
    cpus { cpusOf('image_tail') }
    memory { memoryOf('image_tail', [dataset: bytesOf(dataset)], task.attempt) }
    time { timeOf('image_tail', [dataset: bytesOf(dataset)], task.attempt) }

    input:
    path dataset, stageAs: 'dataset/*'
    val significance
    val significance_level
    val tail_draws
    val seed
    val code

    output:
    path 'tail.h5', emit: tail
    path 'image_tail.json', emit: summary

    script:
    """
    rvga_image_tail.py \\
        --dataset ${dataset} \\
        --significance ${significance} \\
        --significance-level ${significance_level} \\
        --draws ${tail_draws} \\
        --seed ${seed} \\
        --out tail.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary image_tail.json
    """

    stub:
    """
    touch tail.h5 image_tail.json
    """
}
