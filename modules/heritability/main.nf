include { bytesOf } from '../../subworkflows/resources/main'
include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process HERITABILITY {
    tag "${heritability_method}, ${se_method}"
    label 'large'
    cpus { cpusOf('heritability') }
    memory { memoryOf('heritability', [dataset: bytesOf(dataset), ld: bytesOf(reference), matrix: genetic_correlation_matrix ? 1 : 0], task.attempt) }
    time { timeOf('heritability', [dataset: bytesOf(dataset), ld: bytesOf(reference), matrix: genetic_correlation_matrix ? 1 : 0], task.attempt) }

    input:
    path dataset, stageAs: 'dataset/*'
    path reference, stageAs: 'reference/*'
    path regions, stageAs: 'regions/*'
    val heritability_method
    val intercept
    val se_method
    val correlation_voxels
    val genetic_correlation_matrix
    val code

    output:
    path 'heritability.tsv', emit: heritability
    path 'heritability{,.*}.{nii.gz,mgz,mgh,curv,gii,dscalar.nii,map.tsv}', emit: map
    path 'regions.tsv', emit: regions
    path 'intercepts.tsv', emit: intercepts
    path 'genetic_correlation.tsv', emit: correlation
    path 'genetic_covariance.h5', emit: covariance
    path 'correlation_matrix.h5', emit: matrix, optional: true
    path 'voxel_maps', emit: voxel_maps, optional: true
    path 'heritability.json', emit: summary

    script:
    def regions_option = regions ? "--regions ${regions instanceof List ? regions[0] : regions}" : ''
    def voxels_option = correlation_voxels ? "--correlation-voxels ${correlation_voxels} --out-voxel-maps voxel_maps" : ''
    def matrix_option = genetic_correlation_matrix ? '--genetic-correlation-matrix --out-matrix correlation_matrix.h5' : ''
    """
    rvga_heritability.py \\
        --dataset ${dataset} \\
        --ld-reference ${reference} \\
        --heritability-method ${heritability_method} \\
        --intercept ${intercept} \\
        --se-method ${se_method} \\
        ${regions_option} ${voxels_option} ${matrix_option} \\
        --out heritability.tsv \\
        --out-map heritability.nii.gz \\
        --out-regions regions.tsv \\
        --out-intercepts intercepts.tsv \\
        --out-correlation genetic_correlation.tsv \\
        --out-covariance genetic_covariance.h5 \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary heritability.json
    """

    stub:
    """
    touch heritability.{tsv,nii.gz,json} regions.tsv intercepts.tsv genetic_correlation.tsv genetic_covariance.h5
    ${correlation_voxels ? 'mkdir voxel_maps' : ''}
    ${genetic_correlation_matrix ? 'touch correlation_matrix.h5' : ''}
    """
}
