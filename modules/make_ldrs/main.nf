process MAKE_LDRS {
    label 'medium'

    input:
    path images, stageAs: 'images/*'
    path subjects
    path bases, stageAs: 'bases/*'
    val code

    output:
    path 'ldrs.h5', emit: ldrs
    path 'ldrs.tsv', emit: table
    path 'make_ldrs.json', emit: summary

    script:
    """
    rvga_make_ldrs.py \\
        --images images/* \\
        --subjects ${subjects} \\
        --bases ${bases} \\
        --out ldrs.h5 \\
        --table ldrs.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary make_ldrs.json
    """

    stub:
    """
    touch ldrs.h5 ldrs.tsv make_ldrs.json
    """
}
