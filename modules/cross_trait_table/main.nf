include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process CROSS_TRAIT_TABLE {
    label 'small'
    cpus { cpusOf('cross_trait_table') }
    memory { memoryOf('cross_trait_table', [tables: bytesOf(regions)], task.attempt) }
    time { timeOf('cross_trait_table', [tables: bytesOf(regions)], task.attempt) }

    input:
    path regions, stageAs: 'regions/*'
    val code

    output:
    path 'cross_trait_regions.tsv', emit: table
    path 'cross_trait_table.json', emit: summary

    script:
    """
    rvga_cross_trait_table.py \\
        --tables ${regions} \\
        --out cross_trait_regions.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary cross_trait_table.json
    """

    stub:
    """
    touch cross_trait_regions.tsv cross_trait_table.json
    """
}
