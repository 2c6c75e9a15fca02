include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process MAKE_LDRS {
    label 'medium'
    cpus { cpusOf('make_ldrs') }
    memory { memoryOf('make_ldrs', [scores: bytesOf(scores), bases: bytesOf(bases)], task.attempt) }
    time { timeOf('make_ldrs', [scores: bytesOf(scores), bases: bytesOf(bases)], task.attempt) }

    input:
    path scores, stageAs: 'scores/*'
    path subjects
    path bases, stageAs: 'bases/*'
    path samples, stageAs: 'samples/*'
    val subject_id
    val code

    output:
    path 'ldrs.h5', emit: ldrs
    path 'ldrs.tsv', emit: table
    path 'ldrs.pheno', emit: phenotypes
    path 'ldr_outliers.tsv', emit: outliers
    path 'make_ldrs.json', emit: summary

    script:
    """
    rvga_make_ldrs.py \\
        --scores scores/* \\
        --subjects ${subjects} \\
        --bases ${bases} \\
        ${samples ? "--samples ${samples}" : ''} \\
        --subject-id ${subject_id} \\
        --out ldrs.h5 \\
        --table ldrs.tsv \\
        --phenotypes ldrs.pheno \\
        --outliers ldr_outliers.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary make_ldrs.json
    """

    stub:
    """
    touch ldrs.h5 ldrs.tsv ldrs.pheno ldr_outliers.tsv make_ldrs.json
    """
}
