// Method 4: scan of every voxel, significance over the image, loci.

include { IMAGE_TAIL  } from '../../modules/image_tail/main'
include { SCAN_VOXELS } from '../../modules/scan_voxels/main'
include { FIND_LOCI   } from '../../modules/find_loci/main'
include { codeDigest  } from '../parameters/main'

workflow RECONSTRUCT {
    take:
    dataset // value: <study>.rvga.h5
    subjects // value: subjects.h5, or an empty list
    sets // value: list of genotype sets, [file, chromosome, main, variants, samples]
    study // value: map of the study's files
    options // map of every parameter

    main:
    IMAGE_TAIL(
        dataset,
        options.significance,
        options.significance_level,
        options.tail_draws,
        options.seed,
        codeDigest('image_tail')
    )
    tail = IMAGE_TAIL.out.tail

    SCAN_VOXELS(
        channel.fromList((1..options.scan_parts).toList()),
        options.scan_parts,
        options.all_hits,
        dataset,
        tail,
        codeDigest('scan_voxels')
    )

    FIND_LOCI(
        SCAN_VOXELS.out.hits.collect(sort: { hits -> hits.name }),
        SCAN_VOXELS.out.voxels.collect(sort: { voxels -> voxels.name }),
        SCAN_VOXELS.out.pairs.toSortedList { one, other -> one.name <=> other.name },
        dataset,
        tail,
        sets.map { rows -> rows.collect { row -> row[2] } },
        sets.map { rows -> rows.collect { row -> row[3] } },
        sets.map { rows -> rows.collect { row -> row[4] } },
        subjects,
        study.map { files -> files.known_loci },
        options.subject_id,
        options.clump_r2,
        options.clump_kb,
        codeDigest('find_loci')
    )
    loci = tail.mix(FIND_LOCI.out.variants, FIND_LOCI.out.voxels, FIND_LOCI.out.loci, FIND_LOCI.out.lead_variants)
        .collect(sort: { table -> table.name })

    summaries = IMAGE_TAIL.out.summary.mix(SCAN_VOXELS.out.summary, FIND_LOCI.out.summary)

    emit:
    loci // value: [tail.h5, variants.tsv.gz, voxels.tsv, loci.tsv, lead_variants.tsv] by name
    summaries // json
}
