// One run a folder, and what is printed when the run has ended.

include { inputError     } from '../parameters/main'
include { parametersJson } from '../parameters/main'

// Hold the results' folder for this run; false where another run holds it. The lock goes with
// the program, however that ends; in an object store there is none.
def holdFolder(outdir) {
    def place = file(outdir, glob: false)
    if (place.fileSystem != java.nio.file.FileSystems.getDefault()) {
        return true
    }
    return lockedOrAlone(lockFile(outdir, place.resolve('pipeline_info/.run.lock')), outdir)
}

// The open file whose lock holds the folder.
def lockFile(outdir, marker) {
    try {
        java.nio.file.Files.createDirectories(marker.parent)
        return new java.io.RandomAccessFile(marker.toFile(), 'rw').getChannel()
    }
    catch (java.io.IOException refused) {
        return inputError("--outdir ${outdir}: nothing can be written there (${refused.message}); name a folder that can be made and written")
    }
}

// False where another program holds the lock; true, with a warning, where a file system has no locks.
def lockedOrAlone(channel, outdir) {
    try {
        def lock = channel.tryLock()
        if (lock) {
            // Kept until the program ends: a lock that nobody refers to is given back early.
            Runtime.getRuntime().addShutdownHook(new Thread({ -> lock.release() }))
        }
        return lock as boolean
    }
    catch (java.io.IOException none) {
        log.warn("--outdir ${outdir}: this file system has no locks (${none.message}): see to it that no other run writes there")
        return true
    }
}

// The parameters of the run and what runs it, there from its start: a run that fails has them too.
// The report adds the versions of what the tasks use.
def writeBeginning(options, version, engine_version) {
    writeText(options, 'params.json', parametersJson(options) + '\n')
    def rows = [['software', 'version'], ['RVGA', version], ['Nextflow', engine_version], ['Java', System.getProperty('java.version')]]
    writeText(options, 'software_versions.tsv', rows.collect { row -> row.join('\t') + '\n' }.join(''))
}

// A file of an earlier run may be a link into the work folder: it is replaced, not written into.
def writeText(options, name, text) {
    def kept = file("${options.outdir}/pipeline_info/${name}", glob: false)
    try {
        java.nio.file.Files.createDirectories(kept.parent)
        java.nio.file.Files.deleteIfExists(kept)
        kept.text = text
    }
    catch (java.io.IOException refused) {
        inputError("--outdir ${options.outdir}: nothing can be written there (${refused.message}); name a folder that can be made and written")
    }
}

// What the user reads at the end: warnings, the comparison with the truth, where the report is.
def completionMessage(options, summaries, truth, duration) {
    def contents = summaries
        .sort { summary -> summary.name }
        .findAll { summary -> summary.size() > 0 }
        .collect { summary -> new groovy.json.JsonSlurper().parseText(summary.text) }
    def counts = contents.countBy { content -> content.stage }
    def warnings = contents.collectMany { content -> content.warnings.collect { warning -> "Warning (${content.stage}): ${warning}" } }.unique()
    def tables = truth.findAll { table -> table.name == 'truth_comparison.tsv' && table.size() > 0 }.collect { table -> alignedTable(table) }
    def tasks = traceRows(options)
    def lines = [
        alignedRows(stageRows(tasks)),
        tables.join('\n'),
        foundLines(contents).join('\n'),
        warnings.join('\n'),
        "Done in ${duration}: ${summaries.size()} tasks in ${counts.size()} stages, ${warnings.size()} warnings, at most ${largest(tasks, 'peak_rss')} of memory in a task.",
        "Report: ${file(options.outdir).toUriString()}/report.html"
    ]
    return lines.findAll { line -> line }.join('\n')
}

// The rows of the engine's trace, as maps; none where it wrote none.
def traceRows(options) {
    def trace = file("${options.outdir}/pipeline_info/trace.tsv", glob: false)
    if (!trace.exists()) {
        return []
    }
    def rows = trace.readLines().collect { line -> line.split('\t', -1).toList() }
    return rows.drop(1).collect { row -> [rows[0], row].transpose().collectEntries { name, cell -> [name, cell] } }
}

// One line a stage, in the order in which they began: tasks, time and memory.
def stageRows(tasks) {
    def header = ['stage', 'tasks', 'from cache', 'tried again', 'time of all', 'longest', 'most memory']
    def stages = tasks.groupBy { row -> row.name.tokenize(' ')[0].tokenize(':').last() }
    return [header] + stages.collect { stage, rows ->
        def done = rows.findAll { row -> row.status in ['COMPLETED', 'CACHED'] }
        def times = done.collect { row -> milliseconds(row.realtime) }
        [
            stage.toLowerCase(),
            "${done.size()}",
            "${rows.count { row -> row.status == 'CACHED' }}",
            "${rows.size() - done.size()}",
            nextflow.util.Duration.of(times.sum() ?: 0).toString(),
            nextflow.util.Duration.of(times.max() ?: 0).toString(),
            largest(done, 'peak_rss')
        ]
    }
}

def milliseconds(text) {
    return text && text != '-' ? nextflow.util.Duration.of(text).toMillis() : 0L
}

def largest(rows, column) {
    def sizes = rows.collect { row -> row[column] }.findAll { text -> text && text != '-' && text != '0' }.collect { text -> nextflow.util.MemoryUnit.of(text) }
    return sizes ? sizes.max().toString() : '-'
}

// What was found, in a sentence for each part that has run.
def foundLines(contents) {
    def numbers = contents.collectEntries { content -> [content.stage, content.numbers] }
    def dataset = numbers.minimal_dataset
    def loci = numbers.find_loci
    def heritability = numbers.heritability
    def traits = contents.findAll { content -> content.stage == 'cross_trait' }.collect { content -> content.numbers }
    def lines = [
        dataset ? "${dataset.n} people, ${dataset.m} variants, ${dataset.n_voxels} voxels, ${dataset.r} components" : '',
        loci ? "${loci.n_loci} loci (${loci.n_novel_loci == null ? 'novelty not known' : "${loci.n_novel_loci} novel"}), ${loci.n_significant_variants} variants and ${loci.n_significant_voxels} voxels beyond z ${rounded(loci.critical_z)}" : '',
        heritability ? "heritability ${rounded(heritability.mean_heritability_raw)} on average over ${heritability.n_voxels} voxels, ${heritability.n_significant_voxels_fdr_5_percent} of them significant (FDR 5 %)" : ''
    ] + traits.collect { trait_ -> "genetic correlation with ${trait_.trait}: ${trait_.n_significant_voxels_fdr_5_percent} voxels significant (FDR 5 %)" }
    return lines.findAll { line -> line }.collect { line -> "Found: ${line}" }
}

def rounded(number) {
    return number == null ? 'NA' : String.format(java.util.Locale.ROOT, '%.2f', number as double)
}

// A tab-separated table with its columns aligned.
def alignedTable(table) {
    return alignedRows(table.readLines().collect { line -> line.split('\t', -1).toList() })
}

def alignedRows(rows) {
    def widths = rows.transpose().collect { cells -> cells.collect { cell -> cell.size() }.max() }
    return rows.collect { row -> [row, widths].transpose().collect { cell, width -> cell.padRight(width) }.join('  ').trim() }.join('\n')
}

// The task that failed, what is wrong and what to do, out of the engine's long report: the
// program's own sentence, else what its exit status tells; empty where no task failed.
def failureMessage(error_report) {
    def lines = (error_report ?: '').readLines().collect { line -> line.trim() }
    def said = lines.findAll { line -> line.startsWith('ERROR: ') }
    def task = (error_report ?: '').find("process > '(?:\\w+:)*([^']+)'") { _match, name -> name }
    if (said) {
        return "${task}: ${said.last().replaceFirst('ERROR: ', '')}"
    }
    def refused = lines.findIndexOf { line -> line.startsWith('Failed to submit process') }
    if (task && refused >= 0) {
        // What the scheduler printed stands between its heading and the next one.
        def printed = lines.drop(lines.findIndexOf { line -> line == 'Command output:' } + 1).takeWhile { line -> !(line in ['Command error:', 'Command wrapper:', 'Work dir:', 'Container:']) && !line.startsWith('Tip:') }
        return "${task}: not submitted: ${printed.findAll { line -> line && line != '(empty)' }.with { said_ -> said_ ? said_.last() : lines[refused] }}"
    }
    def status = (error_report ?: '').find('terminated with an error exit status \\((\\d+)\\)') { _match, number -> number }
    def place = lines.findIndexOf { line -> line == 'Work dir:' }
    def folder = place >= 0 && place + 1 < lines.size() ? lines[place + 1] : 'its work folder'
    return task && status ? "${task}: ${statusMeaning(status.toInteger())}; its output is in ${folder}/.command.log" : ''
}

// What an exit status without a sentence means, and what to do.
def statusMeaning(status) {
    def meanings = [
        1: 'a fault of the program, not of your input (please report it)',
        127: 'a program was not found: give a container profile or conda, or .venv/bin on PATH',
        137: 'killed or out of memory in every attempt: give it more by process.withName in a file for -c, then -resume',
        140: 'stopped at its time limit in every attempt: give it more by process.withName in a file for -c, then -resume',
        143: 'stopped from outside (time limit, or by hand) in every attempt: give it more time by process.withName in a file for -c, then -resume'
    ]
    return meanings[status] ?: "ended with status ${status}; when its cause is mended, -resume goes on from there"
}

// The engine ends every failed run with status 1. Where a task refused its input, the run ends
// with that task's status as a refused parameter does: set as the last thing the program does,
// when files are published and logs are written.
def endWithStatus(status) {
    Runtime.getRuntime().addShutdownHook(new Thread({ -> Runtime.getRuntime().halt(status) }))
}
