include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process LD_REFERENCE {
    label 'small'
    cpus { cpusOf('ld_reference') }
    memory { memoryOf('ld_reference', [ld: bytesOf(chunks)], task.attempt) }
    time { timeOf('ld_reference', [ld: bytesOf(chunks)], task.attempt) }

    input:
    path chunks, stageAs: 'chunks/*'
    val code

    output:
    path 'panel.ld.h5', emit: reference
    path 'ld_reference.json', emit: summary

    script:
    """
    rvga_ld_reference.py \\
        --chunks chunks/* \\
        --out panel.ld.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary ld_reference.json
    """

    stub:
    """
    touch panel.ld.h5 ld_reference.json
    """
}
