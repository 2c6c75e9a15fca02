// Method 5b: linkage disequilibrium of two panels, block by block.

include { LD_BLOCKS    } from '../../modules/ld_blocks/main'
include { LD_REFERENCE } from '../../modules/ld_reference/main'
include { codeDigest   } from '../parameters/main'
include { ldPanels     } from '../parameters/main'

workflow BUILD_LD_REFERENCE {
    take:
    sets // value: list of both panels' genotype sets, [file, chromosome, main, variants, samples]
    study // value: map of the study's files
    options // map of every parameter

    main:
    LD_BLOCKS(
        sets.flatMap { rows -> ldPanels(rows) },
        study.map { files -> files.ld_blocks },
        options.ld_share,
        options.seed,
        codeDigest('ld_blocks')
    )
    LD_REFERENCE(
        LD_BLOCKS.out.chunk.collect(sort: { chunk -> chunk.name }),
        codeDigest('ld_reference')
    )
    reference = LD_REFERENCE.out.reference
    summaries = LD_BLOCKS.out.summary.mix(LD_REFERENCE.out.summary)

    emit:
    reference // value: panel.ld.h5
    summaries // json
}
