/* What every example shares: stopping with the library's own text, options of the command line. */
#ifndef EXAMPLE_CLI_H
#define EXAMPLE_CLI_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

#endif
