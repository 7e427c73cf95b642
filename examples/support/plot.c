#define _POSIX_C_SOURCE 200809L
#include "plot.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SERIES = 16, PANEL_WIDTH = 620, PANEL_HEIGHT = 480 };

/* Colours that people who see colours differently tell apart (Okabe and Ito 2008). */
static const char *const colour[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                     "#E69F00", "#56B4E9", "#333333", "#F0E442"};
enum { N_COLOURS = sizeof colour / sizeof colour[0] };

struct plot {
    FILE *pipe;
    char *command; /* of the panel: the comma-separated parts of its plot command */
    size_t command_size;
    FILE *parts;
    int n_series, n_curves, n_blocks, n_panels;
};

/* Text inside gnuplot's double quotes, where a backquote would run a command of the shell. */
static void write_quoted(FILE *out, const char *text, const char *double_quote)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '\\' || *text == '`')
            fputc('\\', out);
        if (*text == '"')
            fputs(double_quote, out);
        else
            fputc(*text == '\n' ? ' ' : *text, out);
    }
    fputc('"', out);
}

static void quoted(FILE *out, const char *text) { write_quoted(out, text, "\\\""); }

/* In a block of data no double quote can stand, escaped or not. */
static void quoted_in_data(FILE *out, const char *text) { write_quoted(out, text, "'"); }

plot *plot_open(const char *path, int n_panels, const char *title)
{
    signal(SIGPIPE, SIG_IGN);
    if (system("command -v gnuplot >/dev/null 2>&1") != 0) {
        fprintf(stderr, "no picture %s: gnuplot is not installed\n", path);
        return NULL;
    }
    plot *p = calloc(1, sizeof *p);
    if (p == NULL || (p->pipe = popen("gnuplot", "w")) == NULL) {
        fprintf(stderr, "no picture %s: gnuplot could not be started\n", path);
        free(p);
        return NULL;
    }
    size_t n = strlen(path);
    int png = n > 4 && strcmp(path + n - 4, ".png") == 0;
    p->n_panels = n_panels;
    int rows = n_panels == 4 ? 2 : 1, columns = n_panels / rows;
    fprintf(p->pipe,
            "set encoding utf8\nset terminal %s noenhanced size %d,%d font \"Helvetica,%d\"\n",
            png ? "pngcairo" : "svg background rgb 'white'", PANEL_WIDTH * columns,
            PANEL_HEIGHT * rows, png ? 11 : 13);
    fprintf(p->pipe, "set output ");
    quoted(p->pipe, path);
    fprintf(p->pipe,
            "\nset border 3 lc rgb '#888888'\nset tics nomirror out scale 0.6 tc rgb '#333333'\n"
            "set grid ytics lc rgb '#dddddd' lt 1 lw 1\nset key top left Left reverse samplen 2\n"
            "set style fill solid 0.85 noborder\nset rmargin 7\nset multiplot layout %d,%d title ",
            rows, columns);
    quoted(p->pipe, title);
    fprintf(p->pipe, " font \"Helvetica-Bold,%d\"\n", png ? 14 : 17);
    return p;
}

static void finish_panel(plot *p)
{
    if (p->parts == NULL)
        return;
    fclose(p->parts);
    p->parts = NULL;
    if (p->n_series > 0)
        fprintf(p->pipe, "plot %s\n", p->command);
    free(p->command);
    p->command = NULL;
}

void plot_panel(plot *p, const char *title, const char *x_label, const char *y_label,
                const char *x_range, const char *y_range)
{
    if (p == NULL)
        return;
    finish_panel(p);
    p->parts = open_memstream(&p->command, &p->command_size);
    if (p->parts == NULL)
        return;
    p->n_series = p->n_curves = 0;
    fprintf(p->pipe, "unset logscale\nset xtics auto norotate\nset title ");
    quoted(p->pipe, title);
    fprintf(p->pipe, "\nset xlabel ");
    quoted(p->pipe, x_label);
    fprintf(p->pipe, "\nset ylabel ");
    quoted(p->pipe, y_label);
    fprintf(p->pipe, "\nset xrange %s\nset yrange %s\n", x_range == NULL ? "[*:*]" : x_range,
            y_range == NULL ? "[*:*]" : y_range);
}

void plot_set(plot *p, const char *setting)
{
    if (p != NULL)
        fprintf(p->pipe, "%s\n", setting);
}

static const char *begin_series(plot *p)
{
    if (p->n_series++ > 0)
        fputs(", ", p->parts);
    return colour[p->n_curves++ % N_COLOURS];
}

/* Every second curve is dashed, so that one that lies on another is seen. */
void plot_curve(plot *p, const char *label, int64_t n, const double *x, const double *y,
                const double *low, const double *high)
{
    if (p == NULL || p->parts == NULL)
        return;
    int band = low != NULL && high != NULL, block = p->n_blocks++;
    fprintf(p->pipe, "$b%d << EOD\n", block);
    for (int64_t i = 0; i < n; i++)
        if (isfinite(y[i]))
            fprintf(p->pipe, "%.9g %.9g %.9g %.9g\n", x[i], y[i], band ? low[i] : y[i],
                    band ? high[i] : y[i]);
    fprintf(p->pipe, "EOD\n");
    const char *rgb = begin_series(p);
    if (band)
        fprintf(
            p->parts,
            "$b%d using 1:3:4 with filledcurves fs transparent solid 0.18 lc rgb '%s' notitle, ",
            block, rgb);
    fprintf(p->parts, "$b%d using 1:2 with lines%s lw 2.5 dt %d lc rgb '%s' title ", block,
            band && n < 40 ? "points pt 7 ps 0.5" : "", p->n_curves % 2 == 0 ? 2 : 1, rgb);
    quoted(p->parts, label);
}

void plot_points(plot *p, const char *label, int64_t n, char *const *names, const double *y,
                 const double *error)
{
    if (p == NULL || p->parts == NULL)
        return;
    int block = p->n_blocks++;
    fprintf(p->pipe, "set xtics rotate by -35\n$b%d << EOD\n", block);
    for (int64_t i = 0; i < n; i++) {
        quoted_in_data(p->pipe, names[i]);
        fprintf(p->pipe, " %.9g %.9g\n", y[i], error == NULL ? 0.0 : error[i]);
    }
    fprintf(p->pipe, "EOD\n");
    const char *rgb = begin_series(p);
    fprintf(p->parts,
            "$b%d using 0:2:3:xtic(1) with yerrorbars pt 7 ps 0.9 lw 2 lc rgb '%s' title ", block,
            rgb);
    quoted(p->parts, label);
}

void plot_bars(plot *p, const char *label, int64_t n, char *const *names, const double *y)
{
    if (p == NULL || p->parts == NULL)
        return;
    int block = p->n_blocks++;
    fprintf(p->pipe,
            "set xtics rotate by -35\nset style data histograms\nset style histogram clustered gap "
            "1\n$b%d << EOD\n",
            block);
    for (int64_t i = 0; i < n; i++) {
        quoted_in_data(p->pipe, names[i]);
        fprintf(p->pipe, " %.9g\n", y[i]);
    }
    fprintf(p->pipe, "EOD\n");
    const char *rgb = begin_series(p);
    fprintf(p->parts, "$b%d using 2:xtic(1) with histograms lc rgb '%s' title ", block, rgb);
    quoted(p->parts, label);
}

int plot_close(plot *p)
{
    if (p == NULL)
        return -1;
    finish_panel(p);
    fprintf(p->pipe, "unset multiplot\nunset output\n");
    int status = pclose(p->pipe);
    free(p);
    return status == 0 ? 0 : -1;
}
