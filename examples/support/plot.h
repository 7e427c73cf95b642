/* Pictures of the examples, drawn by gnuplot: SVG or PNG by the file's ending. */
#ifndef EXAMPLE_PLOT_H
#define EXAMPLE_PLOT_H

#include <stdint.h>

typedef struct plot plot;

/* Several panels side by side, four of them two by two. NULL (with one line on stderr) when gnuplot
 * cannot be started: every call below takes NULL, so that a program runs on without its picture. */
plot *plot_open(const char *path, int n_panels, const char *title);
/* Starts the next panel. range texts are gnuplot's, e.g. "[0:1]"; NULL: automatic. */
void plot_panel(plot *p, const char *title, const char *x_label, const char *y_label,
                const char *x_range, const char *y_range);
/* A further gnuplot setting of the panel, e.g. "set logscale x 2". */
void plot_set(plot *p, const char *setting);
/* A curve; low and high (may be NULL) make a band around it. */
void plot_curve(plot *p, const char *label, int64_t n, const double *x, const double *y,
                const double *low, const double *high);
/* Points with error bars (may be NULL) and a name each on the x axis. */
void plot_points(plot *p, const char *label, int64_t n, char *const *names, const double *y,
                 const double *error);
/* Bars side by side: one group a name, one bar a series; all series of a panel share the names. */
void plot_bars(plot *p, const char *label, int64_t n, char *const *names, const double *y);
/* Draws everything. 0 when the picture is there. */
int plot_close(plot *p);

#endif
