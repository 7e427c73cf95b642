#include "metrics.h"

#include <math.h>

#include <jansson.h>

#include "cli.h"
#include "plot.h"

struct metrics {
    FILE *file;
    const char *path;
    char line[4096];
    size_t n;
};

static void __attribute__((noreturn)) failed(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(1);
}

/* The length of the whole lines of steps up to `after`. */
static off_t good_part(FILE *file, int64_t after)
{
    char *line = NULL;
    size_t size = 0;
    off_t end = 0;
    for (ssize_t n; (n = getline(&line, &size, file)) > 0 && line[n - 1] == '\n'; end += n) {
        json_t *object = json_loadb(line, (size_t)n, 0, NULL);
        const json_t *step = json_object_get(object, "step");
        int good = json_is_integer(step) && json_integer_value(step) <= after;
        json_decref(object);
        if (!good)
            break;
    }
    free(line);
    return end;
}

metrics *metrics_open(const char *path, int64_t after)
{
    metrics *m = calloc(1, sizeof *m);
    if (m == NULL || (m->path = strdup(path)) == NULL)
        failed(path);
    m->file = fopen(path, "a+");
    if (m->file == NULL)
        failed(path);
    rewind(m->file);
    if (ftruncate(fileno(m->file), after < 0 ? 0 : good_part(m->file, after)) != 0)
        failed(path);
    fseek(m->file, 0, SEEK_END);
    return m;
}

void metrics_begin(metrics *m, int64_t step)
{
    m->n = (size_t)snprintf(m->line, sizeof m->line, "{\"step\":%lld", (long long)step);
}

static void add(metrics *m, const char *name, const char *value)
{
    int n = snprintf(m->line + m->n, sizeof m->line - m->n, ",\"%s\":%s", name, value);
    if (n > 0 && m->n + (size_t)n + 3 < sizeof m->line)
        m->n += (size_t)n;
    m->line[m->n] = '\0';
}

void metrics_number(metrics *m, const char *name, double value)
{
    char text[40];
    if (isnan(value))
        return;
    if (isinf(value))
        snprintf(text, sizeof text, "\"%sInfinity\"", value < 0 ? "-" : "");
    else
        snprintf(text, sizeof text, "%.9g", value);
    add(m, name, text);
}

void metrics_whole(metrics *m, const char *name, int64_t value)
{
    char text[40];
    snprintf(text, sizeof text, "%lld", (long long)value);
    add(m, name, text);
}

void metrics_end(metrics *m)
{
    m->line[m->n++] = '}';
    m->line[m->n++] = '\n';
    if (fwrite(m->line, 1, m->n, m->file) != m->n || fflush(m->file) != 0)
        failed(m->path);
}

void metrics_sync(metrics *m)
{
    if (fflush(m->file) != 0 || fsync(fileno(m->file)) != 0)
        failed(m->path);
}

void metrics_close(metrics *m)
{
    if (m == NULL)
        return;
    if (fclose(m->file) != 0)
        failed(m->path);
    free((void *)(uintptr_t)m->path);
    free(m);
}

/* ---- the picture */

typedef struct {
    const char *name;
    int64_t n;
    double *x, *y;
} curve;

static void append(curve *c, double x, double y)
{
    if ((c->n & (c->n - 1)) == 0) { /* a power of two, or 0: the arrays are full */
        size_t room = c->n == 0 ? 1 : 2 * (size_t)c->n;
        c->x = realloc(c->x, room * sizeof *c->x);
        c->y = realloc(c->y, room * sizeof *c->y);
        if (c->x == NULL || c->y == NULL) {
            fprintf(stderr, "no memory for %s\n", c->name);
            exit(1);
        }
    }
    c->x[c->n] = x;
    c->y[c->n++] = y;
}

/* Of many points the means of some neighbours each: a curve that an eye can follow. */
static void thin(curve *c)
{
    enum { MOST = 30 };
    int64_t each = (c->n + MOST - 1) / MOST, n = 0;
    if (each < 2)
        return;
    for (int64_t i = 0; i < c->n; i += each, n++) {
        int64_t m = c->n - i < each ? c->n - i : each;
        double x = 0, y = 0;
        for (int64_t k = 0; k < m; k++) {
            x += c->x[i + k] / (double)m;
            y += c->y[i + k] / (double)m;
        }
        c->x[n] = x;
        c->y[n] = y;
    }
    c->n = n;
}

static void read_curves(const char *path, curve *curves, int n)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    if (file == NULL)
        failed(path);
    while (getline(&line, &size, file) > 0) {
        json_t *object = json_loads(line, 0, NULL);
        double step = json_number_value(json_object_get(object, "step"));
        for (int i = 0; i < n; i++) {
            const json_t *value = json_object_get(object, curves[i].name);
            if (json_is_number(value))
                append(&curves[i], step, json_number_value(value));
        }
        json_decref(object);
    }
    free(line);
    fclose(file);
    for (int i = 0; i < n; i++)
        if (strncmp(curves[i].name, "eval_", 5) != 0) /* those are few, and from the whole set */
            thin(&curves[i]);
}

/* The ranges of a panel: from step 0, and some height where all values are the same, which gnuplot
 * would warn of. 0: there is nothing to show. */
static int ranges(const curve *curves, int n, char x[64], char y[64], const char *y_range)
{
    double last = 0, low = INFINITY, high = -INFINITY;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < curves[i].n; k++) {
            last = fmax(last, curves[i].x[k]);
            low = fmin(low, curves[i].y[k]);
            high = fmax(high, curves[i].y[k]);
        }
    double some = fmax(fabs(low) / 10, 1e-3);
    snprintf(x, 64, "[0:%.9g]", fmax(last, 1));
    if (y_range != NULL)
        snprintf(y, 64, "%s", y_range);
    else if (high - low > 1e-9 * fabs(low))
        snprintf(y, 64, "[*:*]");
    else
        snprintf(y, 64, "[%.9g:%.9g]", low - some, high + some);
    return low <= high;
}

int metrics_picture(const char *metrics_path, const char *picture_path, const char *title,
                    const metrics_panel *panels, int n_panels)
{
    enum { MOST_PANELS = 4, MOST_CURVES = 5 };
    curve curves[MOST_PANELS * MOST_CURVES];
    int first[MOST_PANELS + 1] = {0}, n = 0, shown = 0;
    char x[64], y[64];
    for (int p = 0; p < n_panels && p < MOST_PANELS; first[++p] = n)
        for (int i = 0; i < MOST_CURVES && panels[p].curves[i] != NULL; i++)
            curves[n++] = (curve){.name = panels[p].curves[i]};
    read_curves(metrics_path, curves, n);
    for (int p = 0; p < n_panels; p++)
        shown += ranges(curves + first[p], first[p + 1] - first[p], x, y, NULL);
    plot *picture = shown > 0 ? plot_open(picture_path, shown, title) : NULL;
    for (int p = 0; p < n_panels; p++) {
        if (!ranges(curves + first[p], first[p + 1] - first[p], x, y, panels[p].y_range))
            continue;
        plot_panel(picture, panels[p].title, "step", panels[p].y_label, x, y);
        plot_set(picture, "set key below"); /* never over a curve */
        for (int i = first[p]; i < first[p + 1]; i++)
            if (curves[i].n > 0)
                plot_curve(picture, curves[i].name, curves[i].n, curves[i].x, curves[i].y, NULL,
                           NULL);
    }
    for (int i = 0; i < n; i++) {
        free(curves[i].x);
        free(curves[i].y);
    }
    return plot_close(picture);
}
