include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process CONVERT_GENOTYPES {
    tag "file ${file}, ${format}, chromosome ${chromosome}"
    label 'medium'
    cpus { cpusOf('convert_genotypes') }
    memory { memoryOf('convert_genotypes', [genotypes: bytesOf(genotypes), samples: bytesOf(samples)], task.attempt) }
    time { timeOf('convert_genotypes', [genotypes: bytesOf(genotypes), samples: bytesOf(samples)], task.attempt) }

    input:
    tuple val(file), val(format), val(chromosome), path(genotypes, stageAs: 'genotypes/*'), path(samples, stageAs: 'samples/*')
    val genome_build
    val need_sex
    val code

    output:
    tuple val(file), val(chromosome), path('converted/*.pgen'), path('converted/*.pvar'), path('converted/*.psam'), emit: genotypes
    path "convert_genotypes.${file}.json", emit: summary

    script:
    def sex_option = need_sex ? '' : '--sex-not-needed'
    def samples_option = samples ? "--samples ${samples}" : ''
    """
    rvga_convert_genotypes.py \\
        --genotypes ${genotypes} \\
        --format ${format} \\
        ${samples_option} ${sex_option} \\
        --chromosome ${chromosome} \\
        --genome-build '${genome_build}' \\
        --memory ${task.memory.toMega()} \\
        --out converted \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary convert_genotypes.${file}.json
    """

    stub:
    """
    mkdir converted
    touch converted/g.pgen converted/g.pvar converted/g.psam convert_genotypes.${file}.json
    """
}
