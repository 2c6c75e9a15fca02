// Genotype files of any format as PLINK sets: BGEN, VCF and BCF files are converted once.

include { CONVERT_GENOTYPES } from '../../modules/convert_genotypes/main'
include { codeDigest        } from '../parameters/main'

workflow PREPARE_GENOTYPES {
    take:
    rows // [file, format, chromosome, main, variants, samples]
    genome_build // text
    need_sex // whether variants on X need the people's sex

    main:
    by_format = rows.branch { _file, format, _chromosome, _main, _variants, _samples ->
        plink: format in ['pgen', 'bed']
        other: true
    }
    CONVERT_GENOTYPES(
        by_format.other.map { file, format, chromosome, main, _variants, samples -> [file, format, chromosome, main, samples] },
        genome_build,
        need_sex,
        codeDigest('convert_genotypes')
    )
    sets = by_format.plink
        .map { file, _format, chromosome, main, variants, samples -> [file, chromosome, main, variants, samples] }
        .mix(CONVERT_GENOTYPES.out.genotypes)
        .toSortedList { one, other -> one[0] <=> other[0] }
    summaries = CONVERT_GENOTYPES.out.summary

    emit:
    sets // value: list of [file, chromosome, main, variants, samples], in the sheet's order
    summaries // json
}
