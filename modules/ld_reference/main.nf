process LD_REFERENCE {
    label 'small'

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
