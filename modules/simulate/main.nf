include { cpusOf } from '../../subworkflows/resources/main'
include { memoryOf } from '../../subworkflows/resources/main'
include { timeOf } from '../../subworkflows/resources/main'

process SIMULATE {
    tag "${preset}"
    label 'medium'
    cpus { cpusOf('simulate') }
    memory { memoryOf('simulate', [:], task.attempt) }
    time { timeOf('simulate', [:], task.attempt) }

    input:
    val preset
    val seed
    val code

    output:
    path 'study', emit: study
    path 'simulate.json', emit: summary

    script:
    """
    rvga_simulate.py \\
        --preset ${preset} \\
        --seed ${seed} \\
        --out study \\
        --code ${code} \\
        --threads ${task.cpus} \\
        --summary simulate.json
    """

    stub:
    """
    mkdir -p study/{images,genotypes,ld_panel_1,ld_panel_2,traits}
    cd study
    touch mask.nii.gz covariates.tsv known_loci.tsv regions.nii.gz truth.h5
    touch images/s{1..4}.nii.gz traits/height.tsv
    touch {genotypes,ld_panel_1,ld_panel_2}/chr{21,22}.{pgen,pvar,psam}
    printf 'subject,image\\n' > images.csv
    printf '%s\\n' s{1..4} | sed 's|.*|&,images/&.nii.gz|' >> images.csv
    for sheet in genotypes ld_panel_1 ld_panel_2; do
        printf 'chromosome,path\\n' > \$sheet.csv
        printf '%s\\n' 21 22 | sed "s|.*|&,\$sheet/chr&.pgen|" >> \$sheet.csv
    done
    printf 'trait,path,n\\nheight,traits/height.tsv,1000\\n' > traits.csv
    touch ../simulate.json
    """
}
