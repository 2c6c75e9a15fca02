// One run a folder, and what is printed when the run has ended.

// Hold the results' folder for this run; false where another run holds it. The lock goes with
// the program, however that ends; in an object store there is none.
def holdFolder(outdir) {
    def place = file(outdir, glob: false)
    if (place.fileSystem != java.nio.file.FileSystems.getDefault()) {
        return true
    }
    def marker = place.resolve('pipeline_info/.run.lock')
    marker.parent.mkdirs()
    def lock = new java.io.RandomAccessFile(marker.toFile(), 'rw').getChannel().tryLock()
    if (lock) {
        // Kept until the program ends: a lock that nobody refers to is given back early.
        Runtime.getRuntime().addShutdownHook(new Thread({ -> lock.release() }))
    }
    return lock as boolean
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
    def lines = [
        warnings.join('\n'),
        tables.join('\n'),
        "Done in ${duration}: ${summaries.size()} tasks in ${counts.size()} stages, ${warnings.size()} warnings.",
        "Report: ${file(options.outdir).toUriString()}/report.html"
    ]
    return lines.findAll { line -> line }.join('\n')
}

// A tab-separated table with its columns aligned.
def alignedTable(table) {
    def rows = table.readLines().collect { line -> line.split('\t', -1).toList() }
    def widths = rows.transpose().collect { cells -> cells.collect { cell -> cell.size() }.max() }
    return rows.collect { row -> [row, widths].transpose().collect { cell, width -> cell.padRight(width) }.join('  ').trim() }.join('\n')
}

// The task that failed and the line in which it says what is wrong, out of the engine's long
// report; empty where it says nothing.
def failureMessage(error_report) {
    def lines = (error_report ?: '').readLines().collect { line -> line.trim() }
    def said = lines.findAll { line -> line.startsWith('ERROR: ') }
    def task = (error_report ?: '').find("process > '(?:\\w+:)*([^']+)'") { _match, name -> name }
    return said ? "${task}: ${said.last().replaceFirst('ERROR: ', '')}" : ''
}

// The engine ends every failed run with status 1. Where a task refused its input, the run ends
// with that task's status as a refused parameter does: set as the last thing the program does,
// when files are published and logs are written.
def endWithStatus(status) {
    Runtime.getRuntime().addShutdownHook(new Thread({ -> Runtime.getRuntime().halt(status) }))
}
