import java.nio.file.FileSystems
import java.nio.file.FileVisitOption
import java.nio.file.Files
import java.nio.file.Path

/** The inputs that a task found in its work folder. */
class Staged {

    /** Paths below the folder that fit the glob, such as chunks/*.h5, in order of name. */
    static List files(Path folder, String glob) {
        def matcher = FileSystems.default.getPathMatcher('glob:' + glob)
        return Files.walk(folder, FileVisitOption.FOLLOW_LINKS).withCloseable { found ->
            found.toList().findAll { one -> matcher.matches(folder.relativize(one)) }.sort()
        }
    }
}
