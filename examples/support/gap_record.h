/* Results of the gap study: a line of JSON a finished job, appended to a file, so that a run that
 * was killed goes on where it was. */
#ifndef EXAMPLE_GAP_RECORD_H
#define EXAMPLE_GAP_RECORD_H

#include <stdint.h>

typedef struct {
    char key[64];
    double value;
} gap_value;

typedef struct {
    char job[128]; /* which job it was, with everything that its numbers hang on */
    gap_value *values;
    int n, capacity;
} gap_record;

/* Adds a number under a name made as by printf. */
void gap_put(gap_record *r, double value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* NaN when there is none. */
double gap_get(const gap_record *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gap_record_free(gap_record *r);

typedef struct {
    gap_record *records;
    int n;
} gap_results;

/* Reads what is there; a last line without its end is what a killed run left, and is left out.
 * goes_on: it is cut off, since a line is to follow, and no file is no results. The program ends
 * with one line where the file cannot be read. */
void gap_results_read(gap_results *out, const char *path, int goes_on);
/* Ends the program where gap_results_append could not write there: before there is work to lose. */
void gap_results_reach(const char *path);
void gap_results_free(gap_results *r);
const gap_record *gap_results_find(const gap_results *r, const char *job);
/* Appends the record as one line, in one write, and waits until it is on the disk. */
void gap_results_append(const char *path, const gap_record *record);

#endif
