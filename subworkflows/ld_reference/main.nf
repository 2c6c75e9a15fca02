// Method 5b: linkage disequilibrium of two panels, block by block.

include { LD_BLOCKS         } from '../../modules/ld_blocks/main'
include { LD_REFERENCE      } from '../../modules/ld_reference/main'
include { PREPARE_GENOTYPES } from '../genotypes/main'
include { codeDigest        } from '../parameters/main'
include { ldPanels          } from '../parameters/main'

workflow BUILD_LD_REFERENCE {
    take:
    study // value: map of the study's files
    options // map of every parameter

    main:
    PREPARE_GENOTYPES(study.flatMap { files -> files.ld_panels }, options.genome_build, false)
    LD_BLOCKS(
        PREPARE_GENOTYPES.out.sets.flatMap { rows -> ldPanels(rows) },
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
    summaries = PREPARE_GENOTYPES.out.summaries.mix(LD_BLOCKS.out.summary, LD_REFERENCE.out.summary)

    emit:
    reference // value: panel.ld.h5
    summaries // json
}
