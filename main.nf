#!/usr/bin/env nextflow

// RVGA: voxel-level genetic analysis of images by representation learning.

include { RVGA              } from './workflows/rvga'
include { checkParameters   } from './subworkflows/parameters/main'
include { helpText          } from './subworkflows/parameters/main'
include { orExit            } from './subworkflows/parameters/main'
include { reachedSteps      } from './subworkflows/parameters/main'
include { unreachedMessages } from './subworkflows/parameters/main'
include { completionMessage } from './subworkflows/completion/main'
include { endWithStatus     } from './subworkflows/completion/main'
include { failureMessage    } from './subworkflows/completion/main'
include { holdFolder        } from './subworkflows/completion/main'
include { writeBeginning    } from './subworkflows/completion/main'

workflow {
    main:
    if (params.help) {
        println(helpText())
    }
    else if (params.version) {
        println("rvga ${workflow.manifest.version}")
    }
    else {
        def options = orExit { checkParameters(params) }
        if (!orExit { holdFolder(options.outdir) }) {
            exit(2, "--outdir ${options.outdir}: another run is writing there; wait for its end, stop it, or name another folder")
        }
        orExit { writeBeginning(options, workflow.manifest.version.toString(), workflow.nextflow.version.toString()) }
        def steps = reachedSteps(options)
        unreachedMessages(steps).each { message -> log.info("Not run: ${message}") }

        RVGA(options, steps, workflow.nextflow.version.toString())

        def summaries = []
        def truth = []
        RVGA.out.summaries.subscribe { summary -> summaries.add(summary) }
        RVGA.out.truth.subscribe { tables -> truth.addAll(tables) }

        workflow.onComplete = {
            if (workflow.success) {
                log.info(completionMessage(options, summaries, truth, workflow.duration))
            }
            else if (failureMessage(workflow.errorReport)) {
                log.error(failureMessage(workflow.errorReport))
                if (workflow.exitStatus == 2) {
                    endWithStatus(2)
                }
            }
        }
    }
}
