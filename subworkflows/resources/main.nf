// What a task asks for: processors, memory and time by the formulas of conf/resources.json, from
// the sizes of its own files and what it is told. Directives stay out of a task's hash.

// The constants of every formula.
def resourceConstants() {
    return new groovy.json.JsonSlurper().parseText(file("${moduleDir}/../../conf/resources.json").text)
}

// Bytes of a file, of a list of files, or of none.
def bytesOf(files) {
    return [files].flatten().collect { path -> path.size() }.sum() ?: 0
}

// A sum of terms: products of quantities, by name, times a factor, each perhaps bounded. What is
// not known counts as 0.
def sumOf(terms, quantities) {
    def values = terms.collect { names, factor ->
        def product = names.tokenize('*').inject(1.0d) { value, name -> value * (name == '1' ? 1 : (quantities[name] ?: 0)) }
        factor instanceof List ? Math.min(product * factor[0], factor[1] as double) : product * factor
    }
    return (values.sum() ?: 0) as double
}

// Bytes that the first attempt of a stage's task asks for.
def memoryBytes(constants, stage, quantities) {
    def entry = constants.stages[stage]
    def bytes = constants.margin * sumOf(entry.memory, [cpus: entry.cpus] + quantities)
    return Math.max(bytes as double, constants.least_memory as double) as long
}

def cpusOf(stage) {
    return resourceConstants().stages[stage].cpus as int
}

// Memory of an attempt. A second and later attempt has twice, three times that.
def memoryOf(stage, quantities, attempt) {
    return nextflow.util.MemoryUnit.of(memoryBytes(resourceConstants(), stage, quantities)) * attempt
}

// Time limit of an attempt, about ten times what is expected.
def timeOf(stage, quantities, attempt) {
    def hours = sumOf(resourceConstants().stages[stage].hours, quantities)
    return nextflow.util.Duration.of((hours * 3600000) as long) * attempt
}
