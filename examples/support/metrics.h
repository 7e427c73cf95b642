/* metrics.jsonl: one JSON object a step, flushed as it is written, and the picture of its curves.
 */
#ifndef EXAMPLE_METRICS_H
#define EXAMPLE_METRICS_H

#include <stdint.h>

typedef struct metrics metrics;

/* Opens (or makes) the file to go on after step `after`: whole lines up to it stay, anything behind
 * it (steps that will be taken again, the half of a line) goes. The program ends with one line on
 * stderr where it cannot. */
metrics *metrics_open(const char *path, int64_t after);

/* A line: begin, its numbers (NaN: left out; infinities, which JSON lacks, as text), end. */
void metrics_begin(metrics *m, int64_t step);
void metrics_number(metrics *m, const char *name, double value);
void metrics_whole(metrics *m, const char *name, int64_t value);
void metrics_end(metrics *m);

/* Everything written so far is on the disk. */
void metrics_sync(metrics *m);
void metrics_close(metrics *m);

/* One panel of the picture and its curves, NULL after the last. */
typedef struct {
    const char *title, *y_label;
    const char *y_range; /* as plot_panel has it; NULL: what the curves need */
    const char *curves[5];
} metrics_panel;

/* Draws the panels that have something to show. 0 when the picture is there. */
int metrics_picture(const char *metrics_path, const char *picture_path, const char *title,
                    const metrics_panel *panels, int n_panels);

#endif
