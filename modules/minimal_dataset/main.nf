include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process MINIMAL_DATASET {
    tag "${study}"
    label 'medium'
    cpus { cpusOf('minimal_dataset') }
    memory { memoryOf('minimal_dataset', [chunks: bytesOf(chunks), bases: bytesOf(bases)], task.attempt) }
    time { timeOf('minimal_dataset', [chunks: bytesOf(chunks), bases: bytesOf(bases)], task.attempt) }

    input:
    path chunks, stageAs: 'chunks/*'
    path bases, stageAs: 'bases/*'
    path null_model
    val study
    val code

    output:
    path "${study}.rvga.h5", emit: dataset
    path 'minimal_dataset.json', emit: summary

    script:
    """
    rvga_minimal_dataset.py \\
        --chunks chunks/* \\
        --bases ${bases} \\
        --null ${null_model} \\
        --out ${study}.rvga.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary minimal_dataset.json
    """

    stub:
    """
    touch ${study}.rvga.h5 minimal_dataset.json
    """
}
