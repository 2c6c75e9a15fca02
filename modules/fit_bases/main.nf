include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process FIT_BASES {
    tag "bandwidth ${bandwidth}"
    label 'large'
    cpus { cpusOf('fit_bases') }
    memory { memoryOf('fit_bases', [images: bytesOf(images), subjects: bytesOf(subjects)], task.attempt) }
    time { timeOf('fit_bases', [images: bytesOf(images), subjects: bytesOf(subjects)], task.attempt) }

    input:
    path images, stageAs: 'images/*'
    path subjects
    val bandwidth
    val bandwidth_subjects
    val surface_distance
    val components
    val components_correlation
    val components_variance
    val seed
    val code

    output:
    path 'bases.h5', emit: bases
    path 'fit_bases.json', emit: summary

    script:
    """
    rvga_fit_bases.py \\
        --images images/* \\
        --subjects ${subjects} \\
        --bandwidth ${bandwidth} \\
        --bandwidth-subjects ${bandwidth_subjects} \\
        --surface-distance ${surface_distance} \\
        --components ${components} \\
        --components-correlation ${components_correlation} \\
        --components-variance ${components_variance} \\
        --seed ${seed} \\
        --out bases.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary fit_bases.json
    """

    stub:
    """
    touch bases.h5 fit_bases.json
    """
}
