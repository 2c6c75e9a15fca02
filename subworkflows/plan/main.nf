// The plan of a run: tasks, memory, bytes and hours by the formulas of conf/resources.json, from
// what is cheap to know at the head. What is not known is null here, and a '?' in the table.

include { bytesOf           } from '../resources/main'
include { memoryBytes       } from '../resources/main'
include { resourceConstants } from '../resources/main'
include { sumOf             } from '../resources/main'

// The plan as text, from the study's options and files.
def planText(options, steps, files, cores) {
    def constants = resourceConstants()
    def study = studyNumbers(constants, options, steps, files)
    return planTable(planRows(constants, study, reachedStages(steps, options, files)), study, cores)
}

// One map a stage: tasks, memory (bytes of one task), seconds (on one core), writes (bytes).
def planRows(constants, study, stages) {
    def sizes = constants.files.collectEntries { name, terms -> [name, known(terms, study)] }
    // What the study gives goes before what is predicted.
    def quantities = sizes + study
    return stages.collect { stage ->
        def entry = constants.stages[stage]
        def tasks = study.tasks.containsKey(stage) && study.tasks[stage] == null ? null : study.tasks[stage] ?: 1
        def one = quantities + [cpus: entry.cpus] + (study.shares[stage] ?: [:])
        [
            stage: stage,
            cpus: entry.cpus,
            tasks: tasks,
            memory: known(entry.memory, one) == null ? null : memoryBytes(constants, stage, one),
            seconds: known(entry.seconds, quantities) == null || tasks == null ? null : known(entry.seconds, quantities) + tasks * constants.seconds_per_task,
            writes: known(entry.writes, quantities)
        ]
    }
}

// A sum of terms, or null where a quantity of it is not known.
def known(terms, quantities) {
    def names = terms.keySet().collectMany { product -> product.tokenize('*') }.unique() - ['1']
    return names.any { name -> quantities[name] == null } ? null : sumOf(terms, quantities)
}

// Hours that k cores take: stages one after another, each on as many cores as its tasks can use.
def planHours(rows, cores) {
    def seconds = rows.findAll { row -> row.seconds != null }.collect { row -> row.seconds / Math.min(cores, row.cpus * row.tasks) }
    return (seconds.sum() ?: 0) / 3600
}

def planTable(rows, study, cores) {
    def cells = [['stage', 'tasks', 'memory each', 'core-hours', 'writes']] + rows.collect { row ->
        [row.stage, row.tasks == null ? '?' : grouped(row.tasks), row.memory == null ? '?' : nextflow.util.MemoryUnit.of(row.memory).toString(), row.seconds == null ? '?' : shortNumber(row.seconds / 3600), gigabytes(row.writes)]
    }
    def widths = cells.transpose().collect { column -> column.collect { cell -> cell.size() }.max() }
    def lines = cells.collect { row -> '  ' + row.withIndex().collect { cell, column -> column ? cell.padLeft(widths[column]) : cell.padRight(widths[column]) }.join('  ') }
    def counted = rows.findAll { row -> row.tasks != null }
    def hours = rows.collect { row -> (row.seconds ?: 0) / 3600 }.sum()
    def open = ['tasks', 'seconds', 'writes'].collectEntries { column -> [column, rows.any { row -> row[column] == null } ? 'at least ' : ''] }
    def spent = hours ? "${open.seconds}${shortNumber(hours)} core-hours (${shortNumber(planHours(rows, cores))} h on ${cores} cores, ${shortNumber(planHours(rows, 100))} h on 100)" : '? core-hours'
    def written = rows.collect { row -> row.writes ?: 0 }.sum()
    def total = "  total: ${open.tasks}${grouped(counted.collect { row -> row.tasks }.sum())} tasks, ${spent}, ${written || !open.writes ? "${open.writes}${gigabytes(written)}" : '?'} written"
    return (["Plan of the run, by rates measured elsewhere (docs/usage.md, Planning)${study.described ? ": ${study.described}" : ''}"] + lines + [total] + study.notes.collect { note -> "  ${note}" }).join('\n')
}

def grouped(number) {
    return String.format(java.util.Locale.ROOT, '%,d', number as long)
}

def gigabytes(bytes) {
    return bytes == null ? '?' : bytes >= 1.0e9 || bytes == 0 ? "${shortNumber(bytes / 1.0e9)} GB" : "${shortNumber(bytes / 1.0e6)} MB"
}

def shortNumber(number) {
    def value = number as double
    return value >= 100 ? grouped(Math.round(value)) : String.format(java.util.Locale.ROOT, value >= 10 ? '%.0f' : value >= 0.1 ? '%.1f' : value == 0 ? '0' : '%.2g', value)
}

// The stages that a run has, in order.
def reachedStages(steps, options, files) {
    def sheets = files.genotypes + files.ld_panels
    def when = [
        convert_genotypes: sheets.any { row -> !(row[1] in ['pgen', 'bed']) },
        read_images: steps.represent,
        select_subjects: steps.represent,
        fit_bases: steps.represent && !options.bases,
        project_images: steps.represent,
        make_ldrs: steps.represent,
        import_ldrs: steps.import_ldrs,
        fit_null: steps.associate,
        plan_chunks: steps.associate && !steps.import_sumstats,
        component_gwas: steps.associate && !steps.import_sumstats,
        import_sumstats: steps.import_sumstats,
        minimal_dataset: steps.associate,
        image_tail: steps.reconstruct,
        scan_voxels: steps.reconstruct,
        clump_variants: steps.reconstruct && files.genotypes,
        find_loci: steps.reconstruct,
        ld_blocks: steps.ld_reference,
        ld_reference: steps.ld_reference,
        heritability: steps.heritability,
        cross_trait: steps.cross_trait,
        cross_trait_table: steps.cross_trait,
        report: true
    ]
    return when.findAll { _stage, runs -> runs }.keySet().toList()
}

// ---------------------------------------------------------------------------------------------
// What is known at the head
// ---------------------------------------------------------------------------------------------

// The numbers of the study by name, how many tasks each stage has, and what to say of them.
def studyNumbers(constants, options, steps, files) {
    def sets = files.genotypes.collect { row -> genotypeNumbers(row) }
    def panels = files.ld_panels.collect { row -> genotypeNumbers(row) + [chromosome: row[2], panel: row[0].tokenize('.')[0]] }
    def first = panels.findAll { panel -> panel.panel == 'ld_panel_1' }
    def images = imageNumbers(files)
    def rows = files.covariates ? lineCount(files.covariates) : null
    def people = [images.people, rows ? rows - 1 : null].findAll { number -> number }
    def in_genotypes = sets.collect { set -> set.people }.findAll { number -> number != null }.min()
    def n = steps.represent || steps.import_ldrs ? (people + [in_genotypes]).findAll { number -> number != null }.min() : options.n_subjects ?: null
    def N = steps.represent ? images.voxels : null
    def r = options.components ?: files.component_sumstats.collect { row -> row[1].tokenize(',').size() }.findAll { number -> number > 1 }.max()
    def variants = steps.associate && !steps.import_sumstats ? total(sets.collect { set -> set.variants }) : null
    def chunks = variants == null ? null : sets.collect { set -> options.split_genotypes ? Math.ceil(set.variants / options.chunk_variants) as long : 1L }.sum()
    def panel_variants = total(first.collect { panel -> panel.variants })
    def converted = (files.genotypes + files.ld_panels).findAll { row -> !(row[1] in ['pgen', 'bed']) }
    def sampled = files.genotypes.find { row -> row[5] }
    def numbers = [
        people: n,
        voxels: N,
        smoothed_voxels: N != null && options.bandwidth == 'none' ? 0 : N,
        components: r ?: constants.components_assumed,
        covariates: files.covariates ? covariateCount(options, files.covariates) : options.n_covariates < 0 ? null : options.n_covariates,
        variants: variants,
        chunks: chunks,
        genotype_files: sets.size(),
        clump_tasks: clumpTasks(files.genotypes),
        batches: files.images.size(),
        batch_people: n == null ? null : Math.min(n, options.images_per_batch),
        image_bytes: images.bytes,
        image: images.image,
        draws: options.tail_draws,
        parts: options.scan_parts,
        traits: files.traits.size(),
        panel_tasks: first.collect { panel -> panel.chromosome }.unique().size(),
        panel_variants: panel_variants,
        panel_people: panels.collect { panel -> panel.people }.findAll { number -> number != null }.max(),
        converted_bytes: converted ? total(converted.collect { row -> sizeOf(row[3]) }) : 0,
        genotypes: most(converted.collect { row -> sizeOf(row[3]) }),
        samples: sampled ? sizeOf(sampled[5]) : n == null ? 0 : 20 * n,
        variant_list: most(files.genotypes.collect { row -> row[4] ? sizeOf(row[4]) : 0 }),
        chunk_variants: options.split_genotypes ? options.chunk_variants : sets.collect { set -> set.variants ?: 0 }.max() ?: 0,
        offsets: files.loco_predictions ? sizeOf(files.loco_predictions[1]) : 0,
        sumstats: most(files.component_sumstats.collect { row -> sizeOf(row[2]) }),
        matrix: options.genetic_correlation_matrix ? 1 : 0,
        tables: 0
    ]
    def given = [dataset: files.minimal, ld: files.ld_reference].findAll { _name, file -> file }.collectEntries { name, file -> [name, sizeOf(file)] }
    def columns = numbers.covariates == null ? null : numbers.components + numbers.covariates
    def lengths = files.covariates ? sizeOf(files.covariates) : 0
    return numbers + given + [
        columns: columns,
        tasks: [
            convert_genotypes: converted.size(),
            read_images: files.images.size(),
            project_images: files.images.size(),
            plan_chunks: Math.ceil(sets.size() / 8) as long,
            component_gwas: chunks,
            import_sumstats: files.component_sumstats.size(),
            scan_voxels: options.scan_parts,
            clump_variants: numbers.clump_tasks,
            ld_blocks: numbers.panel_tasks,
            cross_trait: files.traits.size()
        ],
        // What these names mean in the formulas of some stages: the size of a file, the panels' files.
        shares: ['select_subjects', 'import_ldrs', 'fit_null'].collectEntries { stage -> [stage, [covariates: lengths]] } + [
            ld_blocks: [samples: panelBytes(files, 5), variant_list: panelBytes(files, 4)]
        ],
        described: described(numbers, images, steps, r),
        notes: notes(numbers, options, steps, r)
    ]
}

// A task a chromosome of the genotypes at most: where something is significant.
def clumpTasks(rows) {
    def names = rows.collect { row -> row[2] }.unique()
    return 'all' in names ? 1 : names.size()
}

// Bytes of a companion of both panels' genotypes, of the chromosome where it is largest.
def panelBytes(files, column) {
    def sizes = files.ld_panels.groupBy { row -> row[2] }.collect { _chromosome, rows -> total(rows.collect { row -> row[column] ? sizeOf(row[column]) : 0 }) }
    return most(sizes)
}

// What an action finds out about a file; null where it cannot be read. A plan ends no run: the
// stage that needs the file names it and says what is wrong with it.
def readable(action) {
    try {
        return action.call()
    }
    catch (Exception _unreadable) {
        return null
    }
}

// Bytes of a file or of files, or null.
def sizeOf(files) {
    return readable { bytesOf(files) }
}

// The largest, 0 of none; null where one is not known.
def most(numbers) {
    return numbers.any { number -> number == null } ? null : numbers.max() ?: 0
}

def total(numbers) {
    return numbers && numbers.every { number -> number != null } ? numbers.sum() : null
}

def described(numbers, images, steps, r) {
    def said = [
        numbers.people ? "${grouped(numbers.people)} people at most" : '',
        numbers.voxels ? "${images.counted ? '' : 'about '}${grouped(numbers.voxels)} voxels" : '',
        r || steps.represent || steps.import_ldrs ? "${numbers.components} components${r ? '' : ' (assumed)'}" : '',
        numbers.variants ? "${grouped(numbers.variants)} variants" : ''
    ]
    return said.findAll { text -> text }.join(', ')
}

def notes(numbers, options, steps, r) {
    def said = []
    if (steps.represent && numbers.voxels == null) {
        said += ['not known before the images are read: the number of voxels, and what follows from it']
    }
    if (steps.represent && numbers.people == null) {
        said += ['not known before the images are read: the number of people, and what follows from it']
    }
    if (options.minimal) {
        said += ['not known before the dataset is read: the numbers of variants, voxels and components, and what follows from them']
    }
    else if (!steps.represent || options.bases) {
        said += ["not known before the bases are read: ${(steps.represent ? [] : ['voxels']).plus(r ? [] : ['components']).collect { name -> "the number of ${name}" }.join(', ')}${r ? '' : "; ${numbers.components} components are assumed"}"]
    }
    else if (!r) {
        said += ["not known before FIT_BASES has run: the number of components; ${numbers.components} are assumed"]
    }
    if (steps.associate && !steps.import_sumstats && numbers.variants == null) {
        said += ['not known before the genotypes are read: the number of variants, and what follows from it']
    }
    if (steps.reconstruct && numbers.clump_tasks) {
        said += ['not known before the scan: where something is significant; clump_variants has a task for each such chromosome, at most those above']
    }
    return said.findAll { note -> !note.endsWith(': ') }
}

// Variants and people of a genotype file, by its header: null where the format has none, or the
// file is none of this format.
def genotypeNumbers(row) {
    def main = row[3]
    def format = row[1]
    if (format == 'pgen' || format == 'bgen') {
        def head = readable { main.withInputStream { stream -> stream.readNBytes(16) } }
        def numbers = java.nio.ByteBuffer.wrap(head ?: ''.bytes).order(java.nio.ByteOrder.LITTLE_ENDIAN)
        def at = format == 'pgen' ? 3 : 8
        return numbers.capacity() < 16 ? [variants: null, people: null] : [variants: positive(numbers.getInt(at)), people: positive(numbers.getInt(at + 4))]
    }
    if (format == 'bed') {
        def people = positive(lineCount(row[5]))
        def size = sizeOf(main)
        return [variants: people && size ? positive(((size - 3) / Math.ceil(people / 4)) as long) : null, people: people]
    }
    return [variants: null, people: null]
}

def positive(number) {
    return number && number > 0 ? number : null
}

// People, voxels and bytes of the images; null where only reading them tells.
def imageNumbers(files) {
    def all = files.images.collectMany { batch -> [batch[3]].flatten() }
    if (!all) {
        return [people: null, voxels: null, bytes: 0, image: 0, counted: false]
    }
    def many = files.images.any { batch -> batch[1] }
    def image = sizeOf(all[0])
    def mask = files.image_parts.mask
    return [
        people: many ? null : total(files.images.collect { batch -> lineCount(batch[2][0]) }),
        voxels: mask && files.image_parts.specifications.size() == 1 ? maskVoxels(mask[0]) : null,
        bytes: image == null ? null : image * all.size(),
        image: image,
        counted: true
    ]
}

// Lines that are not empty, or null.
def lineCount(path) {
    return withText(path) { reader -> reader.lines().filter { line -> !line.isEmpty() }.count() }
}

def withText(path, action) {
    return readable {
        path.withInputStream { stream ->
            def plain = path.name.endsWith('.gz') && bytesOf(path) ? new java.util.zip.GZIPInputStream(stream) : stream
            action.call(new BufferedReader(new InputStreamReader(plain, 'UTF-8')))
        }
    }
}

// Columns of the null model: the intercept, and the covariates that are used.
def covariateCount(options, path) {
    def header = withText(path) { reader -> reader.readLine() }
    return header == null ? null : 1 + (options.covariate_columns ? options.covariate_columns.tokenize(',').size() : Math.max(0, header.split('[\t,;]').size() - 1))
}

// The cells of a NIfTI mask that are not 0; null where the file is none.
def maskVoxels(path) {
    return readable { cellsBeyondZero(path) }
}

def cellsBeyondZero(path) {
    // Packed by its content, whatever its name says: the stage tells what is wrong with it.
    def mark = path.withInputStream { stream -> stream.readNBytes(2) }
    def packed = mark.length == 2 && mark[0] == 31 && mark[1] == -117
    def bytes = path.withInputStream { stream ->
        def start = packed ? new java.util.zip.GZIPInputStream(stream) : stream
        start.readNBytes(1 << 28)
    }
    if (bytes.length < 352) {
        return null
    }
    def header = java.nio.ByteBuffer.wrap(bytes)
    def order = header.getInt(0) == 348 ? java.nio.ByteOrder.BIG_ENDIAN : java.nio.ByteOrder.LITTLE_ENDIAN
    header.order(order)
    def width = header.getShort(72) / 8 as int
    def cells = (1..3).collect { axis -> Math.max(1, header.getShort(40 + 2 * axis)) as long }.inject { one, other -> one * other }
    def start = header.getFloat(108) as int
    if (header.getInt(0) != 348 || !(width in [1, 2, 4, 8]) || start < 352 || start + cells * width > bytes.length) {
        return null
    }
    // Whole cells against 0 by Java's own streams: a closure a cell would take minutes.
    def body = java.nio.ByteBuffer.wrap(bytes, start, (cells * width) as int).slice().order(order)
    def count = cells as int
    if (width == 8) {
        def values = java.nio.LongBuffer.allocate(count).put(body.asLongBuffer()).array()
        return cells - java.util.Arrays.stream(values).boxed().filter(java.util.function.Predicate.isEqual(0L)).count()
    }
    def values = width == 1
        ? new String(bytes, start, count, 'ISO_8859_1').chars()
        : width == 2 ? body.asCharBuffer().chars() : java.util.Arrays.stream(java.nio.IntBuffer.allocate(count).put(body.asIntBuffer()).array())
    return cells - values.boxed().filter(java.util.function.Predicate.isEqual(0)).count()
}
