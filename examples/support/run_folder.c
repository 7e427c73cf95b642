#include "run_folder.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cli.h"
#include "kept.h"
#include "language.h"

static void __attribute__((format(printf, 2, 3), noreturn)) stop(int code, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(code);
}

void run_folder_begin(const char *out, const char *const *inputs)
{
    struct stat here, there;
    int known = stat(out, &here) == 0;
    if (known && !S_ISDIR(here.st_mode))
        stop(1, "--out %s is a file, expected a folder or nothing", out);
    for (; known && *inputs != NULL; inputs++)
        if (stat(*inputs, &there) == 0 && here.st_dev == there.st_dev &&
            here.st_ino == there.st_ino)
            stop(2, "--out %s is the same folder as the input %s: nothing is written over", out,
                 *inputs);
    if (!known && mkdir(out, 0777) != 0)
        stop(1, "--out %s cannot be made: %s", out, strerror(errno));
    char *probe = language_path(out, ".tune-XXXXXX"), *lock = language_path(out, ".tune-lock");
    int file = mkstemp(probe);
    if (file >= 0) {
        close(file);
        unlink(probe);
        file = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    }
    if (file < 0)
        stop(1, "--out %s cannot be written to: %s", out, strerror(errno));
    /* Held until the program ends. A file's, since a save of the library waits for the folder's. */
    if (flock(file, LOCK_EX | LOCK_NB) != 0)
        stop(1, "--out %s is in use by another run", out);
}

json_t *run_folder_file(const char *path)
{
    struct stat info;
    FILE *file = fopen(path, "rb");
    static unsigned char buffer[1 << 16];
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    int64_t bytes = 0;
    if (file == NULL)
        stop(1, "%s: %s", path, strerror(errno));
    if (fstat(fileno(file), &info) == 0 && S_ISFIFO(info.st_mode))
        stop(1, "%s is a pipe, expected a file: it is read more than once", path);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0; bytes += (int64_t)n)
        for (size_t i = 0; i < n; i++)
            hash = (hash ^ buffer[i]) * UINT64_C(0x100000001b3);
    if (ferror(file))
        stop(1, "%s: %s", path, strerror(errno));
    fclose(file);
    char text[32], *absolute = realpath(path, NULL);
    if (absolute == NULL)
        stop(1, "%s: %s", path, strerror(errno));
    snprintf(text, sizeof text, "fnv1a:%016" PRIx64, hash);
    json_t *value =
        json_pack("{s:s, s:I, s:s}", "path", absolute, "bytes", (json_int_t)bytes, "hash", text);
    if (value == NULL)
        stop(1, "%s is no UTF-8, in which the paths of a run are written down", absolute);
    free(absolute);
    return kept_json(value);
}

void run_folder_json(const char *path, const json_t *value)
{
    struct stat info;
    char *beside = kept(malloc(strlen(path) + 5), free);
    int whole = lstat(path, &info) != 0 || S_ISREG(info.st_mode); /* no link, device or pipe */
    sprintf(beside, "%s%s", path, whole ? ".new" : "");
    FILE *file = fopen(beside, "w");
    int good = file != NULL && json_dumpf(value, file, JSON_INDENT(2)) == 0 &&
               fputc('\n', file) != EOF && fflush(file) == 0 &&
               (!whole || fsync(fileno(file)) == 0);
    if (file != NULL)
        good = fclose(file) == 0 && good;
    if (whole && good)
        good = rename(beside, path) == 0;
    if (good)
        return;
    int error = errno;
    if (whole && file != NULL)
        unlink(beside);
    stop(1, "%s cannot be written: %s", path, strerror(error));
}

void run_folder_write(const char *folder, const char *name, const json_t *value)
{
    run_folder_json(language_path(folder, name), value);
}

static json_t *load(const char *folder, const char *name)
{
    char *path = language_path(folder, name);
    json_error_t error;
    if (access(path, F_OK) != 0)
        return NULL;
    json_t *value = json_load_file(path, 0, &error);
    if (value == NULL && error.line < 0)
        stop(1, "%s", error.text);
    if (value == NULL)
        stop(1, "%s:%d: %s", path, error.line, error.text);
    return kept_json(value);
}

/* The first input whose content is another; NULL: none. */
static const char *other_input(const json_t *then, const json_t *now)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)now, name,
                        value) if (!json_equal(json_object_get(json_object_get(then, name), "hash"),
                                               json_object_get(value, "hash"))) return name;
    json_object_foreach((json_t *)(uintptr_t)then, name,
                        value) if (json_object_get(now, name) == NULL) return name;
    return NULL;
}

int run_folder_check(const char *out, const tune_options *o, const json_t *echo)
{
    json_t *before = load(out, "config_echo.json");
    if (before == NULL) {
        static const char *const own[] = {"config.json",   "model.safetensors", "metrics.jsonl",
                                          "finished.json", "curves.svg",        "checkpoints"};
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
            char *path = language_path(out, own[i]);
            if (access(path, F_OK) == 0)
                stop(1, "--out %s has a %s but no config_echo.json: it is no run of tune", out,
                     own[i]);
        }
        const json_t *inputs = json_object_get(echo, "inputs");
        const json_t *mine = json_object_get(inputs, "model/tokenizer.json");
        char *path = language_path(out, "tokenizer.json");
        if (mine == NULL)
            mine = json_object_get(inputs, "tokenizer");
        if (access(path, F_OK) == 0 && !json_equal(json_object_get(run_folder_file(path), "hash"),
                                                   json_object_get(mine, "hash")))
            stop(1, "--out %s has another tokenizer.json: nothing is written over", out);
        return 0;
    }
    const char *command = json_string_value(json_object_get(before, "command"));
    if (command == NULL || strcmp(command, o->command_name) != 0)
        stop(1, "--out %s has a run of tune %s, not of tune %s", out, command ? command : "?",
             o->command_name);
    char *then, *now;
    const tune_option *t = tune_options_differ(o, json_object_get(before, "options"), &then, &now);
    if (t != NULL)
        stop(1, "--out %s has a run with %s %s, not %s: take another folder, or those options", out,
             t->name, then[0] != '\0' ? then : "(none)", now[0] != '\0' ? now : "(none)");
    const char *input =
        other_input(json_object_get(before, "inputs"), json_object_get(echo, "inputs"));
    if (input != NULL)
        stop(1, "--out %s has a run with another content of --%s", out, input);
    const char *version = json_string_value(json_object_get(before, "version"));
    if (version == NULL || strcmp(version, prefopt_version_string()) != 0)
        fprintf(stderr,
                "%s was begun with version %s, this is %s: results may differ in rounding\n", out,
                version == NULL ? "?" : version, prefopt_version_string());
    return 1;
}

static void say_other_inputs(const char *config, const json_t *inputs)
{
    const json_t *other = kept_json(json_load_file(config, 0, NULL));
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(other, "inputs"), name, value)
    {
        const json_t *here = json_object_get(inputs, name);
        if (here != NULL &&
            !json_equal(json_object_get(value, "hash"), json_object_get(here, "hash")))
            fprintf(stderr, "--%s is not what it was for %s: the run will be another one\n", name,
                    config);
    }
}

json_t *run_folder_echo(const tune_options *o, json_t *inputs)
{
    if (o->config != NULL)
        say_other_inputs(o->config, inputs);
    return kept_json(json_pack("{s:s, s:s, s:s, s:s, s:O, s:O}", "program", "tune", "version",
                               prefopt_version_string(), "command", o->command_name, "again",
                               tune_options_line(o), "options", tune_options_json(o), "inputs",
                               inputs));
}

json_t *run_folder_finished(const char *out) { return load(out, "finished.json"); }

int64_t run_folder_config(const char *folder, const char *name, int64_t missing)
{
    json_t *config = load(folder, "config.json");
    const json_t *value = json_object_get(config, name);
    int64_t number = json_is_integer(value) ? json_integer_value(value) : missing;
    return number;
}
