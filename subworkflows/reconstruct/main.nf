// Method 4: scan of every voxel, significance over the image, loci.

include { IMAGE_TAIL     } from '../../modules/image_tail/main'
include { SCAN_VOXELS    } from '../../modules/scan_voxels/main'
include { CLUMP_VARIANTS } from '../../modules/clump_variants/main'
include { FIND_LOCI      } from '../../modules/find_loci/main'
include { codeDigest     } from '../parameters/main'

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

    // LD: a task reads the genotypes of its own chromosome, and only where something is significant
    significant = SCAN_VOXELS.out.significant.collect(sort: { table -> table.name })
    chromosomes = SCAN_VOXELS.out.significant
        .splitCsv(header: true, sep: '\t')
        .map { row -> row.chromosome }
        .unique()
        .toList()
    CLUMP_VARIANTS(
        sets.flatMap { rows -> byChromosome(rows) }
            .combine(chromosomes.map { names -> [names] })
            .filter { chromosome, _mains, _variants, _samples, names -> chromosome == 'all' ? names : chromosome in names }
            .map { chromosome, mains, variants, samples, _names -> [chromosome, mains, variants, samples] },
        significant,
        subjects,
        options.subject_id,
        options.clump_r2,
        options.clump_kb,
        codeDigest('clump_variants')
    )

    FIND_LOCI(
        SCAN_VOXELS.out.hits.collect(sort: { hits -> hits.name }),
        SCAN_VOXELS.out.voxels.collect(sort: { voxels -> voxels.name }),
        SCAN_VOXELS.out.pairs.toSortedList { one, other -> one.name <=> other.name },
        dataset,
        tail,
        CLUMP_VARIANTS.out.clumps.toSortedList { one, other -> one.name <=> other.name },
        study.map { files -> files.known_loci },
        sets.map { rows -> rows as boolean },
        options.clump_r2,
        options.clump_kb,
        codeDigest('find_loci')
    )
    loci = tail.mix(FIND_LOCI.out.variants, FIND_LOCI.out.voxels, FIND_LOCI.out.loci, FIND_LOCI.out.lead_variants)
        .collect(sort: { table -> table.name })

    summaries = IMAGE_TAIL.out.summary.mix(SCAN_VOXELS.out.summary, CLUMP_VARIANTS.out.summary, FIND_LOCI.out.summary)

    emit:
    loci // value: [tail.h5, variants.tsv.gz, voxels.tsv, loci.tsv, lead_variants.tsv] by name
    summaries // json
}

// [chromosome, [main], [variants], [samples]] of the genotype files that go together: those of a
// chromosome, or all files where one of them holds several chromosomes.
def byChromosome(sets) {
    def together = sets.any { row -> row[1] == 'all' }
    return sets.groupBy { row -> together ? 'all' : row[1] }.collect { chromosome, rows -> [chromosome] + rows.transpose().drop(2) }
}
