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
    def study = ['images', 'covariates']
    if (options.simulate) {
        def extra = ['images', 'image_subjects', 'mask', 'surface', 'coordinates', 'parts', 'genotypes', 'covariates', 'ldrs', 'component_sumstats', 'residual_cross_product', 'loco_predictions', 'minimal', 'ld_panel_1', 'ld_panel_2', 'traits', 'truth'].findAll { name -> options[name] }
        return extra ? "--simulate makes the study itself; leave out ${extra.collect { name -> "--${name}" }.join(', ')}" : ''
    }
    if (options.minimal && options.images) {
        return '--minimal starts from a finished dataset; leave out --images (or --minimal)'
    }
    def starts = ['images', 'ldrs', 'residual_cross_product', 'minimal'].findAll { name -> options[name] }
    if (starts.size() > 1) {
        return "${starts.collect { name -> "--${name}" }.join(' and ')} are different starting points; give one of them"
    }
    if (!starts && !options.component_sumstats) {
        return 'nothing to analyse: give --images (with --mask and --covariates), --ldrs (with --bases and --covariates), --component_sumstats, --minimal, or --simulate; --help lists every parameter'
    }
    def imported = conflictingImports(options)
    if (imported) {
        return imported
    }
    def absent = study.findAll { name -> !options[name] }
    if (options.images && absent) {
        return "--images needs ${absent.collect { name -> "--${name}" }.join(' and ')} too"
    }
    if (options.ld_reference && (options.ld_panel_1 || options.ld_panel_2)) {
        return '--ld_reference is built already; leave out --ld_panel_1 and --ld_panel_2 (or --ld_reference)'
    }
    if (options.ld_panel_2 && !options.ld_panel_1) {
        return '--ld_panel_2 is the second LD panel: give --ld_panel_1 too (one panel alone is --ld_panel_1)'
    }
    return ''
}

// One sentence where the entrances between images and dataset lack something, else the empty string.
def conflictingImports(options) {
    if (options.component_sumstats && !options.ldrs && !options.residual_cross_product) {
        return '--component_sumstats needs --bases and either --ldrs and --covariates, or --residual_cross_product, --n_subjects and --n_covariates'
    }
    def absent = ['bases', 'covariates'].findAll { name -> !options[name] }
    if (options.ldrs && absent) {
        return "--ldrs needs ${absent.collect { name -> "--${name}" }.join(' and ')} too"
    }
    if (options.loco_predictions && !options.images && !options.ldrs) {
        return '--loco_predictions are taken off LDRs: give --images or --ldrs'
    }
    if (options.residual_cross_product) {
        def lacking = ['component_sumstats', 'bases'].findAll { name -> !options[name] } + (options.n_subjects < 1 ? ['n_subjects'] : []) + (options.n_covariates < 0 ? ['n_covariates'] : [])
        return lacking ? "--residual_cross_product needs ${lacking.collect { name -> "--${name}" }.join(' and ')} too" : ''
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
    def technical = ['outdir', 'publish_dir_mode', 'container', 'queue', 'aws_region', 'aws_work_dir', 'spot_attempts', 'help', 'version']
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
    def associate = made || (options.images || options.ldrs) && options.genotypes || options.component_sumstats as boolean
    def dataset = associate || options.minimal as boolean
    def ld_panels = made || options.ld_panel_1 as boolean
    def heritability = dataset && (ld_panels || options.ld_reference)
    return [
        represent: represent,
        import_ldrs: options.ldrs as boolean,
        import_sumstats: options.component_sumstats as boolean,
        genotypes: options.genotypes as boolean,
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
    if (steps.import_sumstats && steps.genotypes) {
        messages += ['association of --genotypes, which --component_sumstats takes the place of (they serve LD between lead variants)']
    }
    if (steps.reconstruct && !steps.heritability) {
        messages += ['heritability and genetic correlation: give --ld_panel_1 (and --ld_panel_2), or --ld_reference']
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
// take it; the tuples are the inputs of READ_IMAGES, PREPARE_GENOTYPES and CROSS_TRAIT.
def studyFiles(options) {
    return [
        images: options.images ? imageBatches(options) : [],
        image_parts: options.images ? imageParts(options) : [specifications: [], mask: [], surface: [], coordinates: []],
        genotypes: options.genotypes ? genotypeSheet('genotypes', options.genotypes) : [],
        ld_panels: options.ld_panel_1 ? panelSheets(options) : [],
        traits: options.traits ? traitSheet(options.traits, options.genome_build) : [],
        component_sumstats: options.component_sumstats ? componentSumstats(options.component_sumstats) : [],
        loco_predictions: options.loco_predictions ? locoSheet(options.loco_predictions) : [],
        regions: options.regions ? regionFiles(options) : []
    ] + ['ldrs', 'residual_cross_product', 'kinship', 'covariates', 'keep', 'remove', 'keep_variants', 'remove_variants', 'known_loci', 'ld_blocks', 'ld_reference', 'bases', 'minimal', 'truth'].collectEntries { name ->
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

// [batch, share, lists of subject ids, files] for READ_IMAGES: images_per_batch subjects of one file each, in the sheet's
// order and part by part, or a share of files of many subjects, one a part.
def imageBatches(options) {
    def rows = imageRows(options)
    def parts = imageParts(options)
    def batches = rows[0].subject ? subjectBatches(options, rows) : sharedBatches(rows)
    def first = rows.find { row -> row.image.name ==~ /(?i).*\.(nii|nii\.gz|hdr)/ && !(row.image.name ==~ /(?i).*\.d[a-z]+\.nii/) }
    if (first && !parts.mask && !parts.surface) {
        inputError("--images needs --mask too: ${first.image.name} is a volume")
    }
    return batches.withIndex(1).collect { batch, number -> [padded(number)] + batch }
}

// Rows of place, part, image, and subject (of one image) or subjects (a list for a file of many; a table has none).
def imageRows(options) {
    def images = file(options.images, glob: false)
    if (images.isDirectory()) {
        return imageDirectory(options)
    }
    def kind = imagesKind(images)
    if (kind == 'sheet') {
        return imageSheet(options)
    }
    def list = options.image_subjects ? [file(options.image_subjects, glob: false)] : []
    if (kind == 'volumes' && !list) {
        inputError("--images ${options.images}: is an image, which is read as one of many subjects; give the list of its subjects (--image_subjects), or a samplesheet")
    }
    if (kind == 'table' && list) {
        inputError("--image_subjects ${options.image_subjects}: a table names its subjects itself; leave the list out")
    }
    return [[where: "--images ${options.images}", part: '', subject: '', subjects: list, image: images]]
}

// What a file given as images is, by its content: table (subjects by voxels), volumes, or a samplesheet.
def imagesKind(path) {
    def head = firstBytes(path, 1 << 20)
    def start = head ? new String(head, 0, Math.min(head.length, 8), 'ISO-8859-1') : ''
    if (start.startsWith('PAR1') || start.startsWith('\u0089HDF')) {
        return 'table'
    }
    def size = head && head.length > 3 ? java.nio.ByteBuffer.wrap(head).getInt() : 0
    if (size in [348, 540, 1] || Integer.reverseBytes(size) in [348, 540]) {
        return 'volumes'
    }
    def line = head ? new String(head, 'UTF-8').readLines().find { text -> text.replace('\uFEFF', '').trim() } : ''
    def separator = ['\t', ',', ';'].find { mark -> line?.contains(mark) } ?: ','
    def header = line ? sheetCells(line.replace('\uFEFF', ''), separator) : []
    def plain = !(line =~ /[\uFFFD\u0000]/)
    return plain && header.size() > 2 && !('image' in header) ? 'table' : 'sheet'
}

// The first bytes of a file, without the compression by gzip.
def firstBytes(path, count) {
    def packed = isCompressed(path)
    return path.withInputStream { stream ->
        def plain = packed ? new java.util.zip.GZIPInputStream(stream) : stream
        plain.readNBytes(count)
    }
}

def isCompressed(path) {
    def mark = path.withInputStream { stream -> stream.readNBytes(2) }
    return mark.length == 2 && mark[0] == 31 && mark[1] == -117
}

// One image a subject (columns subject, image), or files of many subjects (image, and subjects for a list of ids).
def imageSheet(options) {
    def rows = readSheet('images', options.images, ['image'], ['subject', 'subjects', 'part'])
    def single = rows.any { row -> row.subject }
    rows.each { row ->
        if (single && !row.subject) {
            inputError("${row.where}: subject is empty")
        }
        if (single && row.subjects) {
            inputError("${row.where}: both subject and subjects are given; a file holds one subject or many")
        }
        if (row.part && !(row.part ==~ /[A-Za-z0-9][A-Za-z0-9._-]*/)) {
            inputError("${row.where}: part '${row.part}' cannot name a file; use letters, digits, '.', '_' and '-'")
        }
    }
    return rows.collect { row ->
        [where: row.where, part: row.part, subject: row.subject, subjects: row.subjects ? [sheetFile(row, 'subjects')] : [], image: sheetFile(row, 'image')]
    }
}

// The images of a folder, told by the pattern: of file names, or of paths in the folder when it has a '/'.
def imageDirectory(options) {
    def pattern = java.util.regex.Pattern.compile(options.image_pattern)
    def named = ['subject', 'part'].collectEntries { group -> [group, options.image_pattern.contains("(?<${group}>")] }
    def folder = file(options.images, glob: false)
    def deep = options.image_pattern.replace('(?:.*/)', '').contains('/')
    def found = deep ? filesBelow(folder) : folder.listFiles().toList()
    def images = found
        .findAll { image -> !image.isDirectory() }
        .collect { image -> [image: image, found: pattern.matcher(deep ? folder.relativize(image).toString() : image.name)] }
        .findAll { row -> row.found.matches() && row.found.groupCount() > 0 }
        .collect { row ->
            def groups = (1..row.found.groupCount()).collect { number -> row.found.group(number) }
            def part = named.part ? row.found.group('part') ?: '' : ''
            def subject = named.subject ? row.found.group('subject') : groups.find { text -> text && text != part }
            [where: row.image.toString(), part: part, subject: subject ?: '', subjects: [], image: row.image]
        }
        .findAll { row -> row.subject }
        .sort { row -> row.image.toString() }
    if (!images) {
        inputError("--images ${options.images}: no file name matches --image_pattern '${options.image_pattern}' with a group for the subject id")
    }
    return images
}

def filesBelow(folder) {
    return folder.listFiles().toList().collectMany { entry -> entry.isDirectory() ? filesBelow(entry) : [entry] }
}

// Batches of one image a subject: every subject has every part once.
def subjectBatches(options, rows) {
    def parts = rows.collect { row -> row.part }.unique()
    rows.each { row ->
        if (row.subject =~ /[\s'"\\]/) {
            inputError("${row.where}: subject '${row.subject}' has a space, quote or backslash in its id; use other characters")
        }
    }
    parts.each { part -> refuseRepeated(rows.findAll { row -> row.part == part }, 'subject') }
    refuseRepeated(rows, 'image')
    def byPart = parts.collectEntries { part -> [part, rows.findAll { row -> row.part == part }.collectEntries { row -> [row.subject, row] }] }
    def subjects = rows.collect { row -> row.subject }.unique()
    parts.each { part ->
        def lacking = subjects.findAll { subject -> !byPart[part].containsKey(subject) }
        if (lacking) {
            inputError("--images ${options.images}: ${lacking.size()} subjects have no image of part '${part}' ('${lacking[0]}' the first); every subject needs every part, so add them or leave those subjects out")
        }
    }
    return subjects.collate(options.images_per_batch as int).collect { some ->
        def images = parts.collectMany { part -> some.collectMany { subject -> imageFiles(byPart[part][subject]) } }
        ['', [idsFile(some)], images]
    }
}

// An image's files: a header (.hdr), its values (.img) and, of SPM, its affine (.mat) go together.
def imageFiles(row) {
    def found = row.image.name =~ /(?i)^(.*)\.(hdr|img)(\.gz)?$/
    if (!found.matches()) {
        return [row.image]
    }
    def stem = found.group(1)
    def pair = ['hdr', 'img'].collect { ending ->
        ["${stem}.${ending}", "${stem}.${ending}.gz"].collect { name -> row.image.resolveSibling(name) }.find { path -> path.exists() }
    }
    if (!pair.every()) {
        inputError("${row.where}: ${row.image.name}: an Analyze image is two files, ${stem}.hdr and ${stem}.img, and one is not there")
    }
    def matrix = row.image.resolveSibling("${stem}.mat".toString())
    return matrix.exists() ? pair + [matrix] : pair
}

// Batches of files of many subjects: the first file of each part together, then the second. A file is divided by its
// size, unless it is compressed, which can only be read from its beginning.
def sharedBatches(rows) {
    def byPart = rows.groupBy { row -> row.part }
    def counts = byPart.collect { _part, files -> files.size() }.unique()
    if (counts.size() > 1) {
        inputError("${rows[0].where}: the parts have different numbers of files (${byPart.collect { part, files -> "${part}: ${files.size()}" }.join(', ')}); give as many of each, in one order")
    }
    def listed = rows.collect { row -> row.subjects.size() }.unique()
    if (listed.size() > 1) {
        inputError("${rows[0].where}: some files have a list of subjects and others have none; volumes need one, tables have their own")
    }
    refuseRepeated(rows, 'image')
    return (0..<counts[0]).collectMany { index ->
        def files = byPart.collect { _part, some -> some[index] }
        def shares = isCompressed(files[0].image) ? 1 : Math.max(1, (files[0].image.size() / sharedBytes()).toBigDecimal().setScale(0, java.math.RoundingMode.CEILING).intValue())
        (1..shares).collect { share -> ["${share}/${shares}".toString(), files.collectMany { row -> row.subjects }, files.collect { row -> row.image }] }
    }
}

// How much of a file of many subjects one task reads.
def sharedBytes() {
    return 1073741824L
}

// Where the voxels of each part lie: one specification a part (name:mask:surfaces:coordinates, by the files' numbers)
// and the files.
def imageParts(options) {
    def names = imageRows(options).collect { row -> row.part }.unique()
    def given = [
        mask: options.mask ? [file(options.mask, glob: false)] : [],
        surface: surfaceFiles(options),
        coordinates: options.coordinates && !(options.coordinates in coordinateRules()) ? [file(options.coordinates, glob: false)] : []
    ]
    if (given.coordinates && !given.coordinates[0].exists()) {
        inputError("--coordinates ${options.coordinates}: no such file; give a table (voxel,x,y,z), index or none")
    }
    def own = [:]
    if (options.parts) {
        def rows = readSheet('parts', options.parts, ['part'], ['mask', 'surface', 'coordinates'])
        refuseRepeated(rows, 'part')
        own = rows.collectEntries { row ->
            [row.part, ['mask', 'surface', 'coordinates'].collectEntries { column -> [column, row[column] ? [sheetFile(row, column)] : []] }]
        }
        def unknown = rows.find { row -> !(row.part in names) }
        def absent = names.find { name -> !(name in own) }
        if (unknown || absent != null) {
            inputError("${unknown ? unknown.where : "--parts ${options.parts}"}: part '${unknown ? unknown.part : absent}' is ${unknown ? 'in no row of the images' : 'missing'} (parts of the images: ${names.join(', ')})")
        }
    }
    def used = names.collect { name -> [name, ['mask', 'surface', 'coordinates'].collectEntries { column -> [column, (own[name] ?: [:])[column] ?: given[column]] }] }
    def files = ['mask', 'surface', 'coordinates'].collectEntries { column -> [column, used.collectMany { _name, of -> of[column] }.unique()] }
    def specifications = used.collect { name, of ->
        def numbers = ['mask', 'surface', 'coordinates'].collect { column -> of[column].collect { path -> files[column].indexOf(path) + 1 }.join('+') ?: '0' }
        ([name] + numbers).join(':')
    }
    return files + [specifications: specifications]
}

def surfaceFiles(options) {
    return options.surface
        ? options.surface.tokenize(',').collect { name ->
            def path = file(name.trim(), glob: false)
            if (!path.exists()) {
                inputError("--surface ${name.trim()}: no such file")
            }
            path
        }
        : []
}

// What --coordinates says in place of a table.
def coordinateRules() {
    return ['index', 'none']
}

// The file of the regions; of a sheet (part, labels, names) the files that it names after it, which are found by their names.
def regionFiles(options) {
    def path = file(options.regions, glob: false)
    def head = null
    try {
        head = firstBytes(path, 65536)
    }
    catch (IOException unreadable) {
        log.debug("--regions ${options.regions}: ${unreadable.message}")
        // HERITABILITY says what is wrong with it.
        return [path]
    }
    def line = head ? new String(head, 'UTF-8').readLines().find { text -> text.trim() } ?: '' : ''
    def header = sheetCells(line.replace('\uFEFF', ''), ['\t', ',', ';'].find { mark -> line.contains(mark) } ?: ',')
    if (!('labels' in header) || 'voxel' in header) {
        return [path]
    }
    def rows = readSheet('regions', options.regions, ['labels'], ['part', 'names'])
    def parts = options.images ? imageRows(options).collect { row -> row.part }.unique() : []
    def unknown = parts.size() > 1 ? rows.find { row -> !(row.part in parts) } : null
    if (unknown) {
        inputError("${unknown.where}: part '${unknown.part}' is in no row of the images (parts of the images: ${parts.join(', ')})")
    }
    def files = rows.collectMany { row -> ['labels', 'names'].findAll { column -> row[column] }.collect { column -> sheetFile(row, column) } }.unique()
    def same = ([path] + files).groupBy { found -> found.name }.values().find { found -> found.size() > 1 }
    if (same) {
        inputError("--regions ${options.regions}: names two files called ${same[0].name}; give them different names")
    }
    return [path] + files
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

// [file, format, chromosome, main, variants, samples] of every row, the inputs of
// PREPARE_GENOTYPES; companions are found by the main file's stem.
def genotypeSheet(name, path) {
    def rows = readSheet(name, path, ['chromosome', 'path'], ['variants', 'samples', 'format'])
    def files = rows.collect { row ->
        def format = genotypeFormat(row)
        def complete = row + companionNames(row, format)
        [
            where: row.where,
            format: format,
            chromosome: chromosomeName(row),
            path: sheetFile(row, 'path'),
            variants: complete.variants ? sheetFile(complete, 'variants') : [],
            samples: complete.samples ? sheetFile(complete, 'samples') : []
        ]
    }
    refuseRepeated(files, 'path')
    def prefix = name == 'genotypes' ? '' : "${name}."
    return files.withIndex(1).collect { row, number ->
        ["${prefix}${padded(number)}".toString(), row.format, row.chromosome, row.path, row.variants, row.samples]
    }
}

// The format of a genotype file: the one given, else by the end of its name.
def genotypeFormat(row) {
    def formats = ['pgen', 'bed', 'bgen', 'vcf', 'bcf']
    def end = row.path.toLowerCase().replaceFirst('\\.vcf\\.gz$', '.vcf').tokenize('.').last()
    def format = row.format ? row.format.toLowerCase() : end
    if (!(format in formats)) {
        inputError("${row.where}: '${row.format ?: row.path}' is no genotype file that is read; use PLINK 2 (.pgen), PLINK 1 (.bed), BGEN (.bgen), VCF (.vcf, .vcf.gz) or BCF (.bcf)")
    }
    return format
}

// The companions of a genotype file, those given before those of its stem. Formats that hold
// their variants need none (an index is not used), and a sample file only if there is one.
def companionNames(row, format) {
    def stem = row.path.replaceFirst('(?i)\\.(pgen|bed|bgen|bcf|vcf|vcf\\.gz)$', '')
    if (format in ['pgen', 'bed']) {
        def ends = format == 'pgen' ? [variants: ['pvar', 'pvar.zst'], samples: ['psam']] : [variants: ['bim', 'bim.zst'], samples: ['fam']]
        return ends.collectEntries { column, names ->
            def candidates = names.collect { end -> "${stem}.${end}".toString() }
            [column, row[column] ?: candidates.find { name -> besideSheet(row, name) } ?: candidates[0]]
        }
    }
    def candidate = "${stem}.${format == 'bgen' ? 'sample' : 'psam'}".toString()
    return [variants: '', samples: row.samples ?: (besideSheet(row, candidate) ? candidate : '')]
}

// Whether a file named in a sheet is there; those that are not on this machine are not looked for.
def besideSheet(row, name) {
    return !isRemote(name) && (name.startsWith('/') ? file(name, glob: false) : row.folder.resolve(name)).exists()
}

// The rows of the LD panels; if there are two, they have a chromosome in common.
def panelSheets(options) {
    def rows = ['ld_panel_1', 'ld_panel_2'].findAll { name -> options[name] }.collectMany { name -> genotypeSheet(name, options[name]) }
    ldPanels(rows.collect { file, _format, chromosome, main, variants, samples -> [file, chromosome, main, variants, samples] })
    return rows
}

// The spelling of bin/rvga/chromosomes.py, or 'all'.
def chromosomeName(row) {
    def name = row.chromosome.replaceFirst('(?i)^chr', '').toUpperCase()
    def aliases = ['23': 'X', '24': 'Y', '25': 'X', '26': 'MT', '0X': 'X', XY: 'X', PAR: 'X', PAR1: 'X', PAR2: 'X', '0Y': 'Y', M: 'MT', '0M': 'MT']
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
// files, for every chromosome that both panels have (or the only one; those of the other are then
// empty lists). A file of all chromosomes serves each.
def ldPanels(sets) {
    def panels = ['ld_panel_1', 'ld_panel_2'].collect { name -> sets.findAll { row -> row[0].startsWith("${name}.") } }
    def named = panels.findAll { panel -> panel }.collect { panel -> panel.collect { row -> row[1] } as Set }
    def usable = named.collect { names -> 'all' in names ? null : names }.findAll { names -> names != null }
    def chromosomes = usable ? usable.inject { first, second -> first.intersect(second) } : ['all'] as Set
    if (!chromosomes) {
        inputError("ld_panel_1 and ld_panel_2 have no chromosome in common (${named[0].sort().join(', ')} against ${named[1].sort().join(', ')})")
    }
    return chromosomes.sort { name -> name.isInteger() ? name.padLeft(2, '0') : name }.collect { chromosome ->
        [chromosome] + panels.collectMany { panel ->
            def rows = panel.findAll { row -> row[1] in [chromosome, 'all'] }
            [2, 3, 4].collect { column -> rows.collect { row -> row[column] } }
        }
    }
}

// [trait, columns, n, n_cases, n_controls, overlap, file, chain file or an empty list]
def traitSheet(path, genome_build) {
    def rows = readSheet('traits', path, ['trait', 'path'], ['n', 'n_cases', 'n_controls', 'build', 'chain', 'columns', 'overlap'])
    refuseRepeated(rows, 'trait')
    return rows.collect { row ->
        if (!(row.trait ==~ /[A-Za-z0-9][A-Za-z0-9._-]*/)) {
            inputError("${row.where}: trait '${row.trait}' cannot name a file; use letters, digits, '.', '_' and '-'")
        }
        if (row.trait ==~ /.*\.(regions|intercepts)|cross_trait_regions/) {
            inputError("${row.where}: trait '${row.trait}' has the name of another table; use another name")
        }
        ['n', 'n_cases', 'n_controls'].each { column ->
            if (row[column] && !(row[column].isNumber() && row[column].toDouble() > 0)) {
                inputError("${row.where}: ${column} '${row[column]}' is no number above 0")
            }
        }
        if (row.columns.contains("'")) {
            inputError("${row.where}: columns has a quote in it; write standard=theirs pairs separated by commas")
        }
        if (row.overlap && !(row.overlap in ['possible', 'none'])) {
            inputError("${row.where}: overlap '${row.overlap}' should be possible (people may be in common with the study) or none")
        }
        if (row.build && !(row.build in ['GRCh37', 'GRCh38'])) {
            inputError("${row.where}: build '${row.build}' should be GRCh37 or GRCh38")
        }
        if (row.build && genome_build && row.build != genome_build && !row.chain) {
            inputError("${row.where}: ${row.trait} is on ${row.build}, the study on ${genome_build}; give a chain file in column chain")
        }
        [row.trait, row.columns, row.n, row.n_cases, row.n_controls, row.overlap ?: 'possible', sheetFile(row, 'path'), row.chain ? sheetFile(row, 'chain') : []]
    }
}

// [group, components, [file], variants] for every chromosome of the sheet (one group without them).
def componentSumstats(path) {
    def rows = readSheet('component_sumstats', path, ['component', 'path'], ['chromosome', 'variants'])
    rows.each { row -> componentName(row) }
    rows.groupBy { row -> [row.component.toUpperCase().replaceFirst('^LDR', ''), row.chromosome] }.each { _key, same ->
        if (same.size() > 1) {
            inputError("${same[1].where}: component '${same[1].component}' stands there twice (first at ${same[0].where}); keep one, or say the chromosome of each")
        }
    }
    return rows
        .groupBy { row -> row.chromosome ? chromosomeName(row) : 'all' }
        .values()
        .withIndex(1)
        .collect { group, number ->
            def variants = group.findAll { row -> row.variants }.collect { row -> sheetFile(row, 'variants') }
            if (variants.size() > 1) {
                inputError("${group[1].where}: variants is HEIG's .snpinfo, one for each .sumstats file; give one row a chromosome")
            }
            [padded(number), group.collect { row -> row.component }.join(','), group.collect { row -> sheetFile(row, 'path') }, variants ?: heigCompanion(group[0])]
        }
}

// The .snpinfo file beside HEIG's .sumstats, where there is one.
def heigCompanion(row) {
    def name = row.path.replaceFirst('\\.sumstats$', '.snpinfo')
    return name != row.path && besideSheet(row, name) ? sheetFile(row + [variants: name], 'variants') : []
}

// LDR3, 3 or all: what is read is checked when the files are.
def componentName(row) {
    if (!(row.component ==~ /(?i)((LDR)?[1-9][0-9]*|all)/)) {
        inputError("${row.where}: component '${row.component}' is no component; use LDR1, LDR2, … (or all, for a file of several)")
    }
}

// [components, [file]]: a sheet component,path, or the list of predictions that REGENIE writes
// (name and file separated by a space, without a header).
def locoSheet(path) {
    def lines = file(path, glob: false).readLines().findAll { line -> line.trim() }
    def first = lines ? lines[0].replace('\uFEFF', '') : ''
    def rows = first ==~ /\S+\s+\S+/ && !first.contains('component')
        ? lines.withIndex(1).collect { line, number -> predictionRow(path, line.trim().split(/\s+/, 2), number) }
        : readSheet('loco_predictions', path, ['component', 'path'], [])
    rows.each { row -> componentName(row) }
    return [rows.collect { row -> row.component }.join(','), rows.collect { row -> sheetFile(row, 'path') }]
}

def predictionRow(path, words, number) {
    def where = "${path}, line ${number}".toString()
    if (words.size() != 2) {
        inputError("${where}: a component and a file are due")
    }
    return [where: where, folder: file(path, glob: false).parent, component: words[0], path: words[1]]
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
