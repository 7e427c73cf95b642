/* What every example shares: stopping with the library's own text, options of the command line. */
#ifndef EXAMPLE_CLI_H
#define EXAMPLE_CLI_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <prefopt/prefopt.h>

/* The call succeeds, or the program says why and ends. */
#define CALL(call)                                                                                 \
    do {                                                                                           \
        int32_t status_ = (call);                                                                  \
        if (status_ < 0) {                                                                         \
            fprintf(stderr, "%s: %s\n", prefopt_status_name(status_), prefopt_last_error());       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* The argument after option argv[*i]. */
static inline const char *option_value(int argc, char **argv, int *i)
{
    if (*i + 1 >= argc) {
        fprintf(stderr, "%s needs a value\n", argv[*i]);
        exit(2);
    }
    return argv[++*i];
}

/* The same as a number in [low, high]. */
static inline double option_number(int argc, char **argv, int *i, double low, double high)
{
    const char *name = argv[*i], *text = option_value(argc, argv, i);
    char *end;
    double value = strtod(text, &end);
    if (text[0] == '\0' || *end != '\0' || !(value >= low && value <= high)) {
        fprintf(stderr, "%s is \"%s\", expected a number from %g to %g\n", name, text, low, high);
        exit(2);
    }
    return value;
}

/* n doubles (at least one), zeroed. */
static inline double *doubles(int64_t n)
{
    double *array = calloc((size_t)(n > 0 ? n : 1), sizeof *array);
    if (array == NULL) {
        fprintf(stderr, "no memory for %lld numbers\n", (long long)n);
        exit(1);
    }
    return array;
}

/* One line on stderr that is written over: done of total, rate and time left. The clock starts with
 * the first call, and anew with 0 done, which does nothing else. Any thread may call otherwise. */
static inline void progress_line(const char *what, int64_t done, int64_t total)
{
    static _Thread_local struct timespec last;
    static struct timespec start;
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    if (start.tv_sec == 0 || done == 0)
        start = now;
    double since = (double)(now.tv_sec - last.tv_sec) + 1e-9 * (double)(now.tv_nsec - last.tv_nsec);
    double elapsed =
        (double)(now.tv_sec - start.tv_sec) + 1e-9 * (double)(now.tv_nsec - start.tv_nsec);
    if (done == 0 || (done < total && since < 0.2) || !isatty(STDERR_FILENO))
        return;
    last = now;
    double rate = elapsed > 0 ? (double)done / elapsed : 0;
    fprintf(stderr, "\r%s %3d %%  %.1f/s  %.0f s left  %s", what, (int)(100 * done / total), rate,
            rate > 0 ? (double)(total - done) / rate : 0.0, done == total ? "\n" : "");
}

#endif
