// Parameters and samplesheets: functions that read and check them and turn them into plain values
// and files; nothing else in the pipeline does. They throw for a mistake of the user, and orExit
// ends the run with that one message and exit status 2.

// Refuse what the user gave, for a mistake that can be mended.
def inputError(message) {
    throw new IllegalArgumentException(message.toString())
}

// The result of a closure; what it refuses ends the run.
def orExit(action) {
    try {
        return action.call()
    }
    catch (Exception raised) {
        // A function of another script is called by reflection, which wraps what it throws.
        def cause = org.codehaus.groovy.runtime.StackTraceUtils.extractRootCause(raised)
        if (!(cause instanceof IllegalArgumentException)) {
            throw raised
        }
        exit(2, cause.message)
    }
}

// ---------------------------------------------------------------------------------------------
// Parameters
// ---------------------------------------------------------------------------------------------

// The properties of every parameter, by name, in the schema's order.
def parameterSchema() {
    def schema = new groovy.json.JsonSlurper().parseText(file("${projectDir}/nextflow_schema.json").text)
    return schema['allOf'].collectEntries { group -> schema['$defs'][group['$ref'].tokenize('/').last()]['properties'] }
}

// Check what the user gave against the schema and return every parameter with its declared type.
def checkParameters(given) {
    def schema = parameterSchema()
    def problems = unknownParameters(given, schema) + schema.collectMany { name, property -> valueProblems(name, given[name], property) }
    if (problems) {
        inputError(problems.join('\n'))
    }
    def options = schema.collectEntries { name, property -> [name, typedValue(given[name], property)] }
    def conflict = conflictingInputs(options)
    if (conflict) {
        inputError(conflict)
    }
    return options.simulate ? options + simulatedOptions() : options
}

// What the covariates and genotypes that SIMULATE makes need.
def simulatedOptions() {
    return [categorical_columns: 'site', genome_build: 'GRCh38']
}

// One sentence for each name that the schema does not know. Nextflow adds the other spelling of
// a name with dashes or capitals, hence one sentence for both.
def unknownParameters(given, schema) {
    def unknown = given.keySet().findAll { name -> !(name in schema.keySet()) }
    return unknown
        .groupBy { name -> name.replaceAll('([A-Z])', '_$1').replace('-', '_').toLowerCase() }
        .collect { spelling, names ->
            def near = schema.keySet().toList().closest(spelling)
            def hint = near ? "did you mean ${near.collect { name -> "--${name}" }.join(' or ')}?" : '--help lists all'
            "--${names.sort().first()}: no such parameter; ${hint}"
        }
}

// What is wrong with one value: a list of no or one sentence.
def valueProblems(name, value, property) {
    if (value == null || value.toString() == '') {
        return property.containsKey('default') && !(property.type == 'string' && value == '')
            ? ["--${name}: a value is due (default ${property['default']})"]
            : []
    }
    def typed = typedValue(value, property)
    if (typed == null) {
        return ["--${name} ${value}: should be ${property.type == 'boolean' ? 'true or false' : "of type ${property.type}"}"]
    }
    if (property['enum'] && !(typed in property['enum'])) {
        return ["--${name} ${value}: should be one of ${property['enum'].join(', ')}"]
    }
    if (property.pattern && !(typed ==~ property.pattern)) {
        return ["--${name} ${value}: should match ${property.pattern} (${property.description})"]
    }
    def low = property.minimum != null && typed < property.minimum || property.exclusiveMinimum != null && typed <= property.exclusiveMinimum
    def high = property.maximum != null && typed > property.maximum || property.exclusiveMaximum != null && typed >= property.exclusiveMaximum
    if (low || high) {
        return ["--${name} ${value}: out of range, should be ${rangeText(property)}"]
    }
    if (property.exists && !isRemote(typed) && !file(typed, glob: false).exists()) {
        return ["--${name} ${value}: no such file (${property.description})"]
    }
    if (property.format == 'file-path' && !isRemote(typed) && file(typed, glob: false).isDirectory()) {
        return ["--${name} ${value}: is a folder, but a file is due (${property.description})"]
    }
    return []
}

def rangeText(property) {
    def bounds = [
        property.minimum != null ? "at least ${property.minimum}" : '',
        property.exclusiveMinimum != null ? "above ${property.exclusiveMinimum}" : '',
        property.maximum != null ? "at most ${property.maximum}" : '',
        property.exclusiveMaximum != null ? "below ${property.exclusiveMaximum}" : ''
    ]
    return bounds.findAll { bound -> bound }.join(' and ')
}

// The value with its declared type, whatever the command line made of it; null where it has
// another type. Text that is not given is the empty string.
def typedValue(value, property) {
    def text = value == null ? '' : value.toString().trim()
    if (property.type == 'boolean') {
        return text in ['true', 'false'] ? text == 'true' : null
    }
    if (property.type == 'integer') {
        return text ==~ /[-+]?[0-9]+/ ? text.toBigInteger().toLong() : null
    }
    if (property.type == 'number') {
        return text.isNumber() ? text.toDouble() : null
    }
    return text
}

// One sentence where parameters do not go together, else the empty string.
def conflictingInputs(options) {
    def study = ['images', 'mask', 'covariates']
    if (options.simulate) {
        def extra = ['images', 'mask', 'genotypes', 'covariates', 'minimal', 'ld_panel_1', 'ld_panel_2', 'traits', 'truth'].findAll { name -> options[name] }
        return extra ? "--simulate makes the study itself; leave out ${extra.collect { name -> "--${name}" }.join(', ')}" : ''
    }
    if (options.minimal && options.images) {
        return '--minimal starts from a finished dataset; leave out --images (or --minimal)'
    }
    if (!options.minimal && !options.images) {
        return 'nothing to analyse: give --images (with --mask and --covariates), --minimal, or --simulate; --help lists every parameter'
    }
    def absent = study.findAll { name -> !options[name] }
    if (options.images && absent) {
        return "--images needs ${absent.collect { name -> "--${name}" }.join(' and ')} too"
    }
    if (options.ld_reference && (options.ld_panel_1 || options.ld_panel_2)) {
        return '--ld_reference is built already; leave out --ld_panel_1 and --ld_panel_2 (or --ld_reference)'
    }
    if (!options.ld_panel_1 != !options.ld_panel_2) {
        return "an LD reference needs two panels: give ${options.ld_panel_1 ? '--ld_panel_2' : '--ld_panel_1'} too"
    }
    return ''
}

def helpText() {
    def schema = new groovy.json.JsonSlurper().parseText(file("${projectDir}/nextflow_schema.json").text)
    def groups = schema['allOf'].collect { group -> schema['$defs'][group['$ref'].tokenize('/').last()] }
    def lines = groups.collectMany { group -> ['', "${group.title}: ${group.description}"] + group['properties'].collect { name, property -> parameterHelp(name, property) } }
    return (['Usage: nextflow run main.nf -profile <profile> -params-file study.yml -resume'] + lines).join('\n')
}

def parameterHelp(name, property) {
    def notes = [
        property['enum'] ? property['enum'].join(' | ') : '',
        rangeText(property),
        property.containsKey('default') ? "default ${property['default']}" : ''
    ].findAll { note -> note }
    return "  --${name.padRight(28)} ${property.description}${notes ? " [${notes.join('; ')}]" : ''}"
}

// The parameters that have a bearing on the results, as one line of JSON for the report.
def parametersJson(options) {
    def technical = ['outdir', 'publish_dir_mode', 'container', 'help', 'version']
    def kept = options.findAll { name, value -> !(name in technical) && value != '' }
    return groovy.json.JsonOutput.toJson(kept.sort())
}

// ---------------------------------------------------------------------------------------------
// What the inputs reach
// ---------------------------------------------------------------------------------------------

// Which parts run, by name.
def reachedSteps(options) {
    def made = options.simulate as boolean
    def represent = made || options.images as boolean
    def associate = made || options.images && options.genotypes
    def dataset = associate || options.minimal as boolean
    def ld_panels = made || options.ld_panel_1 as boolean
    def heritability = dataset && (ld_panels || options.ld_reference)
    return [
        represent: represent,
        associate: associate as boolean,
        reconstruct: dataset as boolean,
        ld_reference: ld_panels,
        heritability: heritability as boolean,
        cross_trait: heritability && (made || options.traits) as boolean
    ]
}

// One sentence for each part that the inputs do not reach.
def unreachedMessages(steps) {
    def messages = []
    if (!steps.reconstruct) {
        messages += ['association and all after it: give --genotypes']
    }
    if (steps.reconstruct && !steps.heritability) {
        messages += ['heritability and genetic correlation: give --ld_panel_1 and --ld_panel_2, or --ld_reference']
    }
    if (steps.heritability && !steps.cross_trait) {
        messages += ['genetic correlation with other traits: give --traits']
    }
    return messages
}

// ---------------------------------------------------------------------------------------------
// Samplesheets
// ---------------------------------------------------------------------------------------------

// The files of the study. An optional file that is not given is an empty list, as `path` inputs
// take it; the tuples are the inputs of READ_IMAGES, PLAN_CHUNKS, LD_BLOCKS and CROSS_TRAIT.
def studyFiles(options) {
    def genotypes = options.genotypes ? genotypeSheet('genotypes', options.genotypes) : []
    return [
        images: options.images ? imageBatches(options) : [],
        genotypes: genotypes.withIndex(1).collect { row, number -> [padded(number), row.chromosome, row.path, row.variants, row.samples] },
        ld_panels: options.ld_panel_1 ? ldPanels(genotypeSheet('ld_panel_1', options.ld_panel_1), genotypeSheet('ld_panel_2', options.ld_panel_2)) : [],
        traits: options.traits ? traitSheet(options.traits) : []
    ] + ['mask', 'covariates', 'keep', 'remove', 'known_loci', 'regions', 'ld_blocks', 'ld_reference', 'bases', 'minimal', 'truth'].collectEntries { name ->
        [name, options[name] ? file(options[name], glob: false) : []]
    }
}

// The options of a study that SIMULATE made: its sheets and files in place of the user's.
def simulatedStudy(options, folder) {
    def names = [
        images: 'images.csv',
        mask: 'mask.nii.gz',
        genotypes: 'genotypes.csv',
        covariates: 'covariates.tsv',
        ld_panel_1: 'ld_panel_1.csv',
        ld_panel_2: 'ld_panel_2.csv',
        traits: 'traits.csv',
        known_loci: 'known_loci.tsv',
        regions: 'regions.nii.gz',
        truth: 'truth.h5'
    ]
    return options + names.collectEntries { name, path -> [name, folder.resolve(path).toUriString()] }
}

// [batch, file of subject ids, image files] for every images_per_batch subjects, in the sheet's order.
def imageBatches(options) {
    def images = file(options.images, glob: false).isDirectory() ? imageDirectory(options) : imageSheet(options.images)
    refuseRepeated(images, 'subject')
    refuseRepeated(images, 'image')
    images.each { row ->
        if (row.subject =~ /[\s'"\\]/) {
            inputError("${row.where}: subject '${row.subject}' has a space, quote or backslash in its id; use other characters")
        }
    }
    return images
        .collate(options.images_per_batch as int)
        .withIndex(1)
        .collect { batch, number -> [padded(number), idsFile(batch.collect { row -> row.subject }), batch.collect { row -> row.image }] }
}

// A file of these ids, one a line, in the work folder: ids in a command would get into the engine's
// logs. Its name is made from its content, so that a resumed run finds the same file.
def idsFile(ids) {
    def text = ids.join('\n') + '\n'
    def path = workflow.workDir.resolve("subject_ids/${text.md5()}.txt")
    if (!path.exists() || path.text != text) {
        path.parent.mkdirs()
        path.text = text
    }
    return path
}

def imageSheet(path) {
    def rows = readSheet('images', path, ['subject', 'image'], [])
    return rows.collect { row -> [where: row.where, subject: row.subject, image: sheetFile(row, 'image')] }
}

def imageDirectory(options) {
    def pattern = java.util.regex.Pattern.compile(options.image_pattern)
    def images = file(options.images, glob: false).listFiles()
        .collect { image -> [image: image, found: pattern.matcher(image.name)] }
        .findAll { row -> row.found.matches() && row.found.groupCount() > 0 }
        .collect { row -> [where: row.image.toString(), subject: row.found.group(1), image: row.image] }
        .sort { row -> row.image.name }
    if (!images) {
        inputError("--images ${options.images}: no file name matches --image_pattern '${options.image_pattern}' with a group for the subject id")
    }
    return images
}

// Rows of chromosome, path, variants, samples; companions are found by the main file's stem.
def genotypeSheet(name, path) {
    def rows = readSheet(name, path, ['chromosome', 'path'], ['variants', 'samples', 'format'])
    def files = rows.collect { row ->
        def kind = row.format ? row.format.toLowerCase() : row.path.tokenize('.').last()
        def companions = [pgen: ['pvar', 'psam'], bed: ['bim', 'fam']][kind]
        if (!companions) {
            inputError("${row.where}: '${row.format ?: row.path}' is no genotype file that is read; use PLINK 2 (.pgen) or PLINK 1 (.bed)")
        }
        def stem = row.path.replaceAll('\\.(pgen|bed)$', '')
        def complete = row + [variants: row.variants ?: "${stem}.${companions[0]}", samples: row.samples ?: "${stem}.${companions[1]}"]
        [
            where: row.where,
            chromosome: chromosomeName(row),
            name: row.path,
            path: sheetFile(row, 'path'),
            variants: sheetFile(complete, 'variants'),
            samples: sheetFile(complete, 'samples')
        ]
    }
    refuseRepeated(files, 'path')
    return files
}

// The spelling of bin/rvga/chromosomes.py, or 'all'.
def chromosomeName(row) {
    def name = row.chromosome.replaceFirst('(?i)^chr', '').toUpperCase()
    def aliases = ['23': 'X', '24': 'Y', '25': 'X', '26': 'MT', XY: 'X', PAR: 'X', PAR1: 'X', PAR2: 'X', M: 'MT']
    def plain = aliases[name] ?: name.replaceFirst('^0(?=[1-9]$)', '')
    if (plain == 'ALL') {
        return 'all'
    }
    if (!(plain in (1..22).collect { number -> "${number}".toString() } + ['X', 'Y', 'MT'])) {
        inputError("${row.where}: chromosome '${row.chromosome}' is unknown; use 1-22, X, Y, MT or all (with or without 'chr')")
    }
    return plain
}

// [chromosome, panel 1 main, variants, samples, panel 2 main, variants, samples], each a list of
// files, for every chromosome that both panels have. A file of all chromosomes serves each.
def ldPanels(panel_1, panel_2) {
    def named = [panel_1, panel_2].collect { panel -> panel.collect { row -> row.chromosome } as Set }
    def usable = named.collect { names -> 'all' in names ? null : names }.findAll { names -> names != null }
    def chromosomes = usable ? usable.inject { first, second -> first.intersect(second) } : ['all'] as Set
    if (!chromosomes) {
        inputError("ld_panel_1 and ld_panel_2 have no chromosome in common (${named[0].sort().join(', ')} against ${named[1].sort().join(', ')})")
    }
    def columns = ['path', 'variants', 'samples']
    return chromosomes.sort { name -> name.isInteger() ? name.padLeft(2, '0') : name }.collect { chromosome ->
        [chromosome] + [panel_1, panel_2].collectMany { panel ->
            def rows = panel.findAll { row -> row.chromosome in [chromosome, 'all'] }
            columns.collect { column -> rows.collect { row -> row[column] } }
        }
    }
}

// [trait, columns, n, n_cases, n_controls, file]
def traitSheet(path) {
    def rows = readSheet('traits', path, ['trait', 'path'], ['n', 'n_cases', 'n_controls', 'build', 'columns'])
    refuseRepeated(rows, 'trait')
    return rows.collect { row ->
        if (!(row.trait ==~ /[A-Za-z0-9][A-Za-z0-9._-]*/)) {
            inputError("${row.where}: trait '${row.trait}' cannot name a file; use letters, digits, '.', '_' and '-'")
        }
        ['n', 'n_cases', 'n_controls'].each { column ->
            if (row[column] && !(row[column].isNumber() && row[column].toDouble() > 0)) {
                inputError("${row.where}: ${column} '${row[column]}' is no number above 0")
            }
        }
        if (row.columns.contains("'")) {
            inputError("${row.where}: columns has a quote in it; write standard=theirs pairs separated by commas")
        }
        [row.trait, row.columns, row.n, row.n_cases, row.n_controls, sheetFile(row, 'path')]
    }
}

// Read a CSV (with commas or semicolons) or TSV file by its header: a list of maps from column to text, with the sheet's
// folder and the place (file and line) for messages. Columns that are not given are empty.
def readSheet(name, path, required, optional) {
    def sheet = file(path, glob: false)
    if (!sheet.exists() || !sheet.isFile()) {
        inputError("--${name} ${path}: no such file")
    }
    // A byte that is no UTF-8 becomes this character, and a zero byte stands in no text.
    def text = new String(sheet.bytes, 'UTF-8').readLines()
    def garbled = text.findIndexOf { line -> line =~ /[\uFFFD\u0000]/ } + 1
    if (garbled) {
        inputError("${path}, line ${garbled}: is no UTF-8 text; save the sheet as CSV or TSV in UTF-8")
    }
    def lines = text.withIndex(1).findAll { line, _number -> line.replace('\uFEFF', '').trim() }
    if (!lines) {
        inputError("--${name} ${path}: the file is empty; its header should be ${required.join(',')}")
    }
    def separator = ['\t', ',', ';'].find { mark -> lines[0][0].contains(mark) } ?: ','
    def header = sheetCells(lines[0][0].replace('\uFEFF', ''), separator)
    def absent = required.findAll { column -> !(column in header) }
    if (absent) {
        inputError("${path}, line ${lines[0][1]}: column ${absent.join(', ')} is missing (found ${header.join(', ')})")
    }
    def known = required + optional
    def unknown = header.findAll { column -> !(column in known) }
    if (unknown) {
        inputError("${path}, line ${lines[0][1]}: column ${unknown.join(', ')} is unknown; use ${known.join(', ')}")
    }
    if (lines.size() == 1) {
        inputError("${path}: the sheet has a header but no row")
    }
    return lines.drop(1).collect { line, number ->
        def cells = sheetCells(line, separator)
        if (cells.size() != header.size()) {
            inputError("${path}, line ${number}: ${cells.size()} columns where the header has ${header.size()}")
        }
        def row = known.collectEntries { column -> [column, ''] } + [header, cells].transpose().collectEntries { column, cell -> [column, cell] }
        def empty = required.findAll { column -> !row[column] }
        if (empty) {
            inputError("${path}, line ${number}: ${empty.join(', ')} is empty")
        }
        row + [where: "${path}, line ${number}".toString(), folder: sheet.parent]
    }
}

// The cells of one line; a cell with the separator in it stands in double quotes.
def sheetCells(line, separator) {
    return line
        .split("${separator}(?=(?:[^\"]*\"[^\"]*\")*[^\"]*\$)", -1)
        .collect { cell -> cell.trim().replaceAll('^"(.*)"$', '$1').replace('""', '"').trim() }
}

// A file named in a sheet: a URI, an absolute path, or a path from the sheet's folder.
def sheetFile(row, column) {
    def name = row[column]
    if (isRemote(name)) {
        return file(name, glob: false)
    }
    def path = (name.startsWith('/') ? file(name, glob: false) : row.folder.resolve(name)).normalize()
    if (!path.exists()) {
        inputError("${row.where}: ${path.toUriString()}: no such file (column ${column})")
    }
    if (path.isDirectory()) {
        inputError("${row.where}: ${path.toUriString()}: is a folder, but a file is due (column ${column})")
    }
    return path
}

def refuseRepeated(rows, column) {
    rows.groupBy { row -> row[column] }.each { value, same ->
        if (same.size() > 1) {
            inputError("${same[1].where}: ${column} '${value}' stands there twice (first at ${same[0].where}); keep one")
        }
    }
}

def isRemote(path) {
    return path ==~ '[A-Za-z][A-Za-z0-9+.-]+://.*'
}

def padded(number) {
    return "${number}".padLeft(5, '0')
}

// ---------------------------------------------------------------------------------------------
// Fingerprint of a stage's code
// ---------------------------------------------------------------------------------------------

// Digest of a stage's entrypoint and of every rvga module that it imports, directly or through
// others: an input of the stage's process, so that tasks run again when their code has changed.
def codeDigest(stage) {
    def entrypoint = file("${projectDir}/bin/rvga_${stage}.py")
    def sources = importedSources([entrypoint], []).sort { source -> source.toString() }
    return sources.collect { source -> "${source.name}\n${source.text}" }.join('\n').md5().take(12)
}

// The sources to look into, and all that they import, without those seen already.
def importedSources(sources, seen) {
    def fresh = sources.unique().findAll { source -> source.exists() && !(source in seen) }
    if (!fresh) {
        return seen
    }
    return importedSources(fresh.collectMany { source -> directImports(source) }, seen + fresh)
}

// The files of the package that one source may import. Names that are no module (a function of
// one, say) have no file and fall out; a source that names the templates folder needs its files.
def directImports(source) {
    if (source.extension != 'py') {
        return []
    }
    def code = source.text.replaceAll('(?m)#.*$', '').replaceAll('\\\\\\r?\\n', ' ')
    def flat = code.replaceAll('\\(([^()]*)\\)') { _whole, inside -> inside.replaceAll('\\s+', ' ') }
    def froms = flat.findAll('(?m)^[ \\t]*from[ \\t]+(rvga|\\.)(\\.?[\\w.]*)[ \\t]+import[ \\t]+(.+)$') { _whole, _root, module, names ->
        def place = module.replaceFirst('^\\.', '')
        [place] + names.tokenize(',').collect { name -> [place, name.trim().tokenize(' ')[0]].findAll { part -> part }.join('.') }
    }
    def plain = flat.findAll('(?m)^[ \\t]*import[ \\t]+(.+)$') { _whole, names ->
        names.tokenize(',').collect { name -> name.trim().tokenize(' ')[0] }.findAll { name -> name == 'rvga' || name?.startsWith('rvga.') }.collect { name -> name.replaceFirst('^rvga\\.?', '') }
    }
    def modules = (froms + plain).flatten().findAll { name -> name }
    def templates = code.contains('templates') && source.name != 'main.nf' ? files("${projectDir}/bin/rvga/templates/*") : []
    def package_file = modules || froms || plain ? ['__init__'] : []
    return (package_file + modules).collect { name -> file("${projectDir}/bin/rvga/${name.replace('.', '/')}.py", glob: false) } + templates
}
