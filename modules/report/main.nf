include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process REPORT {
    tag "${study}"
    label 'small'
    cpus { cpusOf('report') }
    memory { memoryOf('report', [bases: bytesOf(bases), tables: bytesOf(loci) + bytesOf(heritability) + bytesOf(cross_trait)], task.attempt) }
    time { timeOf('report', [bases: bytesOf(bases), tables: bytesOf(loci) + bytesOf(heritability) + bytesOf(cross_trait)], task.attempt) }

    input:
    path summaries, stageAs: 'summaries/*'
    path bases, stageAs: 'bases/*'
    path dataset, stageAs: 'dataset/*'
    path loci, stageAs: 'loci/*'
    path heritability, stageAs: 'heritability/*'
    path cross_trait, stageAs: 'cross_trait/*'
    path cross_trait_regions, stageAs: 'cross_trait_regions/*'
    path regions, stageAs: 'regions/*'
    path truth, stageAs: 'truth/*'
    val study
    val parameters
    val engine_version
    val code

    output:
    path 'report.html', emit: report
    path 'software_versions.tsv', emit: versions
    path 'params.json', emit: parameters
    path 'truth_*.tsv', emit: truth, optional: true
    path 'report.json', emit: summary

    script:
    def bases_option = bases ? "--bases ${bases}" : ''
    def dataset_option = dataset ? "--dataset ${dataset}" : ''
    def loci_options = loci
        ? '--tail loci/tail.h5 --variants loci/variants.tsv.gz --voxels loci/voxels.tsv --loci loci/loci.tsv --lead-variants loci/lead_variants.tsv'
        : ''
    def heritability_options = heritability
        ? '--heritability heritability/heritability.tsv --regions heritability/regions.tsv --intercepts heritability/intercepts.tsv --genetic-correlation heritability/genetic_correlation.tsv --genetic-covariance heritability/genetic_covariance.h5'
        : ''
    def cross_trait_option = cross_trait ? "--cross-trait ${cross_trait}" : ''
    def cross_trait_regions_option = cross_trait_regions ? "--cross-trait-regions ${cross_trait_regions}" : ''
    def regions_option = regions ? "--region-labels ${regions instanceof List ? regions[0] : regions}" : ''
    def truth_options = truth
        ? "--truth ${truth} ${regions_option} --out-truth truth_comparison.tsv --out-truth-loci truth_loci.tsv"
        : ''
    """
    cat > params.json <<'END_OF_PARAMETERS'
    ${parameters}
    END_OF_PARAMETERS

    rvga_report.py \\
        --title '${study}' \\
        --parameters params.json \\
        --summaries summaries/* \\
        ${bases_option} ${dataset_option} \\
        ${loci_options} \\
        ${heritability_options} \\
        ${cross_trait_option} ${cross_trait_regions_option} \\
        ${truth_options} \\
        --engine-version '${engine_version}' \\
        --out report.html \\
        --out-versions software_versions.tsv \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary report.json
    """

    stub:
    """
    touch report.html software_versions.tsv params.json report.json
    ${truth ? 'touch truth_comparison.tsv truth_loci.tsv' : ''}
    """
}
