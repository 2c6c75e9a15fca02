import groovy.json.JsonSlurper

/** Facts about HDF5 files, which nf-test itself does not read: Python works them out. */
class Hdf5 {

    /**
     * What Python statements leave in answer. In them f is the list of the files (those that end
     * with .h5 opened for reading, of others the name) and np is NumPy.
     */
    static Object answer(List files, String statements) {
        def program = '''
import json, sys, textwrap
import h5py
import numpy as np
f = [h5py.File(name, "r") if name.endswith(".h5") else name for name in sys.argv[2:]]
exec(textwrap.dedent(sys.argv[1]))
print(json.dumps(answer, default=lambda value: value.tolist()))
'''
        def command = ['python', '-c', program, statements.toString()] + files*.toString()
        def output = new StringBuilder()
        def complaint = new StringBuilder()
        def running = new ProcessBuilder(command).start()
        running.waitForProcessOutput(output, complaint)
        if (running.exitValue() != 0) {
            throw new IllegalStateException("${statements}\n${complaint}")
        }
        return new JsonSlurper().parseText(output.toString())
    }
}
